#!/bin/sh
# The way from photos to predictions with the programs on the path: tour.sh FOLDER. The folder has photos/ with a folder for each class.
set -eu
cd "$1"
export SORTINGHAT_DATA_DIR="$1/data"

hat up --background
trap 'hat down >/dev/null' EXIT
hat doctor
hat ingest shapes photos
hat finetune shapes@1 --recipe fast
hat evaluate shapes/1
hat classify shapes/1 photos --out predictions.csv

photos="$(find photos -type f | wc -l)"
# The path of a photo begins with its class, and the prediction is a column of its own.
right="$(grep -cE '^([a-z]+)/[^,]*,.*\b\1\b' predictions.csv)"
echo "$right of $photos photos are sorted right"
[ "$right" -ge "$((photos * 9 / 10))" ]
if [ -n "${EXAMPLE:-}" ]; then
    python3 "$EXAMPLE"
fi
