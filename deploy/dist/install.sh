#!/bin/sh
# Installs sortinghat from this folder: ./install.sh [PREFIX], by default into ~/.local. Run it again with a newer one to upgrade.
set -eu

case "${1:-}" in -*) sed -n '2s/^# //p' "$0" && exit ;; esac
here="$(dirname "$(readlink -f "$0")")"
mkdir -p "${1:-$HOME/.local}"
prefix="$(cd "${1:-$HOME/.local}" && pwd)"

mkdir -p "$prefix/bin" "$prefix/lib"
# A program that runs keeps its file. Libtorch, which is linked here, stays.
for program in "$here"/bin/*; do
    cp "$program" "$prefix/bin/.$(basename "$program").new"
    mv "$prefix/bin/.$(basename "$program").new" "$prefix/bin/$(basename "$program")"
done
cp -R "$here/lib/sortinghat" "$prefix/lib/"

echo "hat, sortinghat-coordinator, sortinghat-worker and sortinghat-setup are in $prefix/bin."
case ":$PATH:" in *":$prefix/bin:"*) ;; *) echo "Put them on your path: export PATH=\"$prefix/bin:\$PATH\"" ;; esac
echo "Then fetch libtorch and the pretrained weights, 0.6 GB: sortinghat-setup"
