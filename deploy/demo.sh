#!/usr/bin/env bash
# From a folder of photos to predictions, in a temporary folder on free loopback ports. `make demo` builds first.
#
#   deploy/demo.sh [--keep]     --keep leaves the server running and its folder in place
#
# The report and the predictions are left in target/demo.
set -euo pipefail

CHECKOUT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly CHECKOUT
readonly PHOTOS="${SORTINGHAT_CACHE:-$HOME/.cache/sortinghat}/photos"
readonly KEEP="${1:-}"
FOLDER="$(mktemp -d "${TMPDIR:-/tmp}/sortinghat-demo.XXXXXX")"
readonly FOLDER

readonly TARGET="${CARGO_TARGET_DIR:-$CHECKOUT/target}"
readonly RESULTS="$TARGET/demo"

export PATH="$TARGET/debug:$PATH"
# A server of one's own is not the demo's.
unset SORTINGHAT_SERVER SORTINGHAT_TOKEN SORTINGHAT_TOKEN_FILE SORTINGHAT_CA_FILE
export SORTINGHAT_DATA_DIR="$FOLDER/data"
export SORTINGHAT_WEIGHTS_DIR="${SORTINGHAT_CACHE:-$HOME/.cache/sortinghat}/weights"

step() {
    printf '\n\e[1m$ hat %s\e[0m\n' "$*"
    hat "$@"
}

finish() {
    local status=$?
    if [[ "$KEEP" != --keep ]]; then
        hat down || true
        rm -rf "$FOLDER"
    fi
    ((status == 0)) || printf '\nThe demo stopped at the command above.\n' >&2
}

# A dozen photos of all kinds in one folder, as they come out of a camera: without labels.
make_holiday() {
    mkdir -p "$FOLDER/holiday"
    find "$PHOTOS/stamps" -name '*.png' | sort | awk 'NR % 60 == 1' |
        while read -r photo; do cp "$photo" "$FOLDER/holiday/$(basename "$(dirname "$photo")")-$(basename "$photo")"; done
    cp "$PHOTOS"/scikit-image/*.png "$FOLDER/holiday/"
    cp "$CHECKOUT/README.md" "$FOLDER/holiday/not-a-photo.jpg"
}

explain() {
    cat <<TEXT

What happened, in $((SECONDS / 60)) min $((SECONDS % 60)) s:
  1. A coordinator and a worker were started on this machine, with everything they store in
     $SORTINGHAT_DATA_DIR.
  2. 713 small pictures in eight folders became the dataset stamps@1: decoded, checked, exact duplicates kept once, a fifth
     of each class held out.
  3. Of what a network sees that has learned from ImageNet, these eight classes were learned: two recipes were compared on
     folds of the pictures to learn from, and the better one made the model stamps/1.
  4. It was measured on the held-out pictures. The report, with the pictures that it got wrong, is
     $RESULTS/report.html
  5. It was asked about a photograph of a cat, which is unlike the drawings that it learned from: it says so itself.
     Then about a folder of $(find "$FOLDER/holiday" -type f | wc -l) files, of which one is no photo:
     $RESULTS/predictions.csv
TEXT
    if [[ "$KEEP" == --keep ]]; then
        cat <<TEXT

The server still runs. To go on:
  export PATH="$TARGET/debug:\$PATH" SORTINGHAT_DATA_DIR=$SORTINGHAT_DATA_DIR
  hat models show stamps/1
  hat classify stamps/1 YOUR_PHOTO.jpg
  hat down
TEXT
    else
        cat <<TEXT

The server of this demo is stopped and its folder removed. With photos of your own, a folder for each class:
  export PATH="$TARGET/debug:\$PATH" SORTINGHAT_WEIGHTS_DIR=$SORTINGHAT_WEIGHTS_DIR
  hat up --background
  hat ingest mine ./photos
  hat finetune mine@1
  hat evaluate mine/1
  hat classify mine/1 me.jpg
  hat down
TEXT
    fi
}

main() {
    trap finish EXIT
    mkdir -p "$RESULTS"
    step up --background
    step ingest stamps "$PHOTOS/stamps"
    step finetune stamps@1
    step evaluate stamps/1 --report "$RESULTS/report.html" --force
    step classify stamps/1 "$PHOTOS/scikit-image/chelsea.png"
    make_holiday
    step classify stamps/1 "$FOLDER/holiday" --out "$RESULTS/predictions.csv" --force
    printf '\nThe first lines of predictions.csv:\n'
    head -n 5 "$RESULTS/predictions.csv" | cut -c1-110
    explain
}

main
