#!/usr/bin/env bash
# Predicts every photo of a folder once with sortinghat and once with fastai, on the same group-aware folds, and compares
# the two photo by photo. About two hours on two cores; what it has already done it does not do again.
#
#   tests/python/compare.sh [PHOTOS] [OUT]      defaults: the installed stamps, target/compare
set -euo pipefail

CHECKOUT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
readonly CHECKOUT
readonly CACHE="${SORTINGHAT_CACHE:-$HOME/.cache/sortinghat}"
readonly PHOTOS="${1:-$CACHE/photos/stamps}"
readonly OUT="${2:-$CHECKOUT/target/compare}"
# Each trains every fold anew, because one start is luck: all folds share a seed's first weights of the head.
read -ra SEEDS <<<"${SEEDS:-1 2 3}"
readonly SEEDS
readonly PYTHON="$CHECKOUT/tests/python"
readonly PROFILE=dev
# shellcheck source=tests/python/folds.sh
source "$PYTHON/folds.sh"

export PATH="${CARGO_TARGET_DIR:-$CHECKOUT/target}/debug:$PATH"
export SORTINGHAT_DATA_DIR="$OUT/data"
export SORTINGHAT_WEIGHTS_DIR="$CACHE/weights"

run_fastai() {
    # glibc gives memory back after every batch unless told otherwise; that is half of the time.
    MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_TOP_PAD_=268435456 \
        "$CACHE/fastai/bin/python" "$PYTHON/compare_fastai.py" --folds "$OUT/folds.csv" --photos "$PHOTOS" \
        --weights "$SORTINGHAT_WEIGHTS_DIR/efficientnet_lite0.safetensors" --seeds "$(IFS=,; echo "${SEEDS[*]}")" --out "$OUT/fastai.csv"
}

# The ways in which each fold's photos are predicted, as NAME OPTIONS.
readonly WAYS=("plain" "bf16 --precision bf16" "tta --tta")

# predict_fold SEED FOLD: trains on the others and predicts this one in each way.
predict_fold() {
    local seed=$1 fold=$2 model="seed-$1-fold-$2" way name options
    hat models show "$model" >/dev/null 2>&1 ||
        hat finetune compare@1 --name "$model" --backbone efficientnet_lite0 --epochs 5 --fold "$fold" --seed "$seed"
    copy_fold "$fold" "$OUT/fold-$fold"
    for way in "${WAYS[@]}"; do
        read -r name options <<<"$way"
        # shellcheck disable=SC2086 # several words
        hat classify "$model" "$OUT/fold-$fold" $options --out "$OUT/part.csv" --force
        mv "$OUT/part.csv" "$OUT/$name-$seed-$fold.csv"
    done
}

run_sortinghat() {
    local seed fold way name
    hat up --background
    trap 'hat down' EXIT
    ingest_folds
    for seed in "${SEEDS[@]}"; do
        for ((fold = 0; fold < FOLDS; fold++)); do
            # The last of the ways.
            [[ -f "$OUT/tta-$seed-$fold.csv" ]] || predict_fold "$seed" "$fold"
        done
    done
    for way in "${WAYS[@]}"; do
        name="${way%% *}"
        for seed in "${SEEDS[@]}"; do
            python3 "$PYTHON/fold_predictions.py" collect "$OUT/folds.csv" "$seed" "$OUT/$name-$seed"-[0-9].csv
        done | awk 'NR == 1 || !/^digest,/' >"$OUT/sortinghat-$name.csv"
    done
}

mkdir -p "$OUT"
"$CHECKOUT/deploy/install.sh" weights photos fastai
deal_folds
run_fastai
run_sortinghat
echo "Predictions in bf16 beside those in f32:"
difference "$OUT/sortinghat-bf16.csv" "$OUT/sortinghat-plain.csv"
echo "With test-time augmentation, beside fastai:"
difference "$OUT/fastai.csv" "$OUT/sortinghat-tta.csv" --first-column predicted_tta
echo "Beside fastai:"
difference "$OUT/fastai.csv" "$OUT/sortinghat-plain.csv" --margin 3
