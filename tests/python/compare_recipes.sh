#!/usr/bin/env bash
# Predicts every photo once by a model of each recipe that fits a regression, on the folds of docs/parity, and compares the predictions
# with fastai's that are kept there. It prints how long each model took, from the submission to the stored model.
#
#   tests/python/compare_recipes.sh [OUT]      default: target/compare-recipes
set -euo pipefail

CHECKOUT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
readonly CHECKOUT
readonly CACHE="${SORTINGHAT_CACHE:-$HOME/.cache/sortinghat}"
readonly PHOTOS="$CACHE/photos/stamps"
readonly OUT="${1:-$CHECKOUT/target/compare-recipes}"
readonly PYTHON="$CHECKOUT/tests/python"
readonly PROFILE=release
readonly RECIPES=(fast best auto)
readonly PARITY="$CHECKOUT/docs/parity"
# shellcheck source=tests/python/folds.sh
source "$PYTHON/folds.sh"

export PATH="${CARGO_TARGET_DIR:-$CHECKOUT/target}/release:$PATH"
export SORTINGHAT_DATA_DIR="$OUT/data"
export SORTINGHAT_WEIGHTS_DIR="$CACHE/weights"

# predict_fold RECIPE FOLD: makes a model from the other folds and predicts the photos of this one.
predict_fold() {
    local recipe=$1 fold=$2 started ended
    started=$(date +%s%N)
    hat --quiet finetune compare@1 --recipe "$recipe" --name "$recipe-$fold" --fold "$fold"
    ended=$(date +%s%N)
    awk -v from="$started" -v to="$ended" 'BEGIN { printf "%.1f\n", (to - from) / 1e9 }' >>"$OUT/$recipe-seconds"
    copy_fold "$fold" "$OUT/fold-$fold"
    hat --quiet classify "$recipe-$fold" "$OUT/fold-$fold" --out "$OUT/$recipe-$fold.csv" --force
}

mkdir -p "$OUT"
deal_folds
# Otherwise a model would be asked about photos from which it has learned.
cmp "$PARITY/folds.csv" "$OUT/folds.csv"
rm -f "$OUT"/*-seconds
hat up --background
trap 'hat down' EXIT
ingest_folds
for recipe in "${RECIPES[@]}"; do
    for ((fold = 0; fold < FOLDS; fold++)); do
        predict_fold "$recipe" "$fold"
    done
    python3 "$PYTHON/fold_predictions.py" collect "$OUT/folds.csv" 0 "$OUT/$recipe"-[0-9].csv >"$OUT/$recipe.csv"
done
for recipe in "${RECIPES[@]}"; do
    echo "The recipe $recipe; seconds for each model: $(paste -sd' ' "$OUT/$recipe-seconds")"
    echo "Beside fastai:"
    difference "$PARITY/fastai.csv" "$OUT/$recipe.csv"
    echo "Beside fastai with test-time augmentation:"
    difference "$PARITY/fastai.csv" "$OUT/$recipe.csv" --first-column predicted_tta
done
