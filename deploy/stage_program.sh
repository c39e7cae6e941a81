#!/usr/bin/env bash
# Copies one program for a package or an image: without debug information, and the worker so that it finds libtorch by a path that is
# relative to itself, wherever it is put.
#
#   deploy/stage_program.sh PROGRAM BIN FOLDER
set -euo pipefail

readonly PROGRAM=$1 BIN=$2 FOLDER=$3
# The one of deploy/install.sh python, where the system has none.
export PATH="$PATH:${SORTINGHAT_CACHE:-$HOME/.cache/sortinghat}/python/bin"

if [[ ! -x "$BIN/$PROGRAM" ]]; then
    echo "there is no $PROGRAM in $BIN: run \`make release\`, or name the folder with BIN=FOLDER" >&2
    exit 1
fi
mkdir -p "$FOLDER"
strip --strip-debug -o "$FOLDER/$PROGRAM" "$BIN/$PROGRAM"
if [[ "$PROGRAM" == sortinghat-worker ]]; then
    # shellcheck disable=SC2016
    patchelf --set-rpath '$ORIGIN/../lib/sortinghat/libtorch/torch/lib' "$FOLDER/$PROGRAM"
fi
chmod 0755 "$FOLDER/$PROGRAM"
