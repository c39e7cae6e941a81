# What the comparisons over folds share; to be sourced. PHOTOS and OUT name the photos and the outputs, PROFILE the build.

readonly FOLDS=5
# Of the folds.
readonly FOLD_SEED=1

# deal_folds: writes folds.csv, as ingest deals the folds.
deal_folds() {
    [[ -f "$OUT/folds.csv" ]] && return
    local classes
    mapfile -t classes < <(basename -a "$PHOTOS"/*/)
    cargo run --quiet --profile "$PROFILE" --manifest-path "$CHECKOUT/Cargo.toml" --package sortinghat-worker --example folds -- \
        "$PHOTOS" "$FOLDS" "$FOLD_SEED" "${classes[@]}" >"$OUT/folds.csv.part"
    mv "$OUT/folds.csv.part" "$OUT/folds.csv"
}

# ingest_folds: makes the dataset compare@1, if it is not there.
ingest_folds() {
    hat datasets show compare@1 >/dev/null 2>&1 || hat ingest compare "$PHOTOS" --folds "$FOLDS" --seed "$FOLD_SEED"
}

# copy_fold FOLD TARGET: the photos of one fold, without their labels.
copy_fold() {
    mkdir -p "$2"
    python3 "$PYTHON/fold_predictions.py" paths "$OUT/folds.csv" "$1" | while IFS=$'\t' read -r path digest; do
        cp "$PHOTOS/$path" "$2/$digest.${path##*.}"
    done
}

# difference FIRST SECOND [OPTION...]
difference() {
    python3 "$PYTHON/paired_difference.py" "$@" --folds "$OUT/folds.csv"
    echo
}
