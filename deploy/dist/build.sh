#!/usr/bin/env bash
# Builds what is installed without a compiler. `make dist` runs it; see --help.
set -euo pipefail

CHECKOUT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
readonly CHECKOUT
readonly HERE="$CHECKOUT/deploy/dist"
readonly CACHE="${SORTINGHAT_CACHE:-$HOME/.cache/sortinghat}"
readonly PYTHON="$CACHE/python/bin/python"
readonly OUT="${CARGO_TARGET_DIR:-$CHECKOUT/target}/dist"
readonly PROGRAMS=(hat sortinghat-coordinator sortinghat-worker)
VERSION="$(sed -n 's/^version = "\(.*\)"/\1/p;T;q' "$CHECKOUT/Cargo.toml")"
readonly VERSION
# Everything in the packages has the time of the commit, so that the same programs make the same bytes.
SOURCE_DATE_EPOCH="$(git -C "$CHECKOUT" log -1 --format=%ct)"
export SOURCE_DATE_EPOCH

usage() {
    cat <<'HELP'
Usage: deploy/dist/build.sh BIN

Packs the programs of the folder BIN, such as target/release, for Linux on x86-64, into target/dist:

  sortinghat_photos-VERSION-...whl       a Python wheel: the programs and the client for Python
  sortinghat_VERSION_amd64.deb           a Debian package
  sortinghat-VERSION-linux-x86_64.tar.gz the programs with an install.sh
  SHA256SUMS                             their digests

None holds libtorch, which is ten times as large as everything else: `sortinghat-setup`, which is in each, fetches it.
HELP
}

say() { printf '%-14s %s\n' "$1" "$2"; }

fail() {
    printf 'dist/build.sh: %s\n' "$*" >&2
    exit 1
}

# stage PREFIX: the programs and what `sortinghat-setup` needs, as every package has them.
stage() {
    local prefix=$1 program lib="$1/lib/sortinghat"
    for program in "${PROGRAMS[@]}"; do
        "$CHECKOUT/deploy/stage_program.sh" "$program" "$BIN" "$prefix/bin"
    done
    install -m 0755 "$HERE/setup.sh" "$prefix/bin/sortinghat-setup"
    install -D -m 0755 "$CHECKOUT/deploy/install.sh" "$lib/deploy/install.sh"
    install -D -m 0644 "$CHECKOUT/deploy/convert_weights.py" "$lib/deploy/convert_weights.py"
    install -D -m 0644 -t "$lib/deploy/pins" "$CHECKOUT"/deploy/pins/{libtorch,cuda,weights}.txt
    install -D -m 0644 -t "$lib/licences" "$CHECKOUT"/LICENSE-*
    "$PYTHON" "$HERE/licences.py" "$CHECKOUT/Cargo.lock" "$lib/licences/crates.txt"
}

# auditwheel finds out how old a system the programs run on, and names the wheel after it. Libtorch stays outside.
build_wheel() {
    local raw="$OUT/work/wheel"
    SORTINGHAT_STAGE="$OUT/work/prefix" "$PYTHON" -m pip wheel --quiet --no-deps --no-build-isolation \
        --wheel-dir "$raw" "$CHECKOUT/client/python"
    PATH="$CACHE/python/bin:$PATH" "$PYTHON" -m auditwheel repair --exclude 'libtorch*.so' --exclude libc10.so \
        --plat auto --wheel-dir "$OUT" "$raw"/*.whl >"$OUT/work/auditwheel.log" 2>&1 ||
        fail "auditwheel refused the wheel: $(tail -n 5 "$OUT/work/auditwheel.log")"
}

build_tarball() {
    local name="sortinghat-$VERSION-linux-x86_64" root="$OUT/work/tarball"
    mkdir -p "$root/$name"
    cp -R "$OUT/work/prefix/." "$root/$name/"
    install -m 0755 "$HERE/install.sh" "$root/$name/install.sh"
    tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --directory "$root" "$name" |
        gzip --no-name --best >"$OUT/$name.tar.gz"
}

build_deb() {
    local root="$OUT/work/deb" doc
    doc="$root/usr/share/doc/sortinghat"
    mkdir -p "$root/usr" "$root/DEBIAN" "$doc"
    cp -R "$OUT/work/prefix/." "$root/usr/"
    mv "$root/usr/lib/sortinghat/licences/crates.txt" "$doc/"
    cat "$CHECKOUT"/LICENSE-* >"$doc/copyright"
    rm -r "$root/usr/lib/sortinghat/licences"
    mkdir -p "$root/usr/share/bash-completion/completions"
    "$BIN/hat" completions bash >"$root/usr/share/bash-completion/completions/hat"
    sed -e "s/@VERSION@/$VERSION/" -e "s/@SIZE@/$(du -sk "$root/usr" | cut -f1)/" "$HERE/control" >"$root/DEBIAN/control"
    install -m 0755 "$HERE/postrm" "$root/DEBIAN/postrm"
    chmod -R u=rwX,go=rX "$root"
    dpkg-deb --root-owner-group -Zzstd -z12 --build "$root" "$OUT/sortinghat_${VERSION}_amd64.deb" >/dev/null
}

main() {
    case "${1:-}" in
    '' | -h | --help)
        usage
        return
        ;;
    esac
    BIN="$(cd "$1" && pwd)"
    readonly BIN
    rm -rf "$OUT"
    mkdir -p "$OUT/work"
    stage "$OUT/work/prefix"
    build_wheel
    build_tarball
    build_deb
    rm -rf "$OUT/work"
    (cd "$OUT" && sha256sum -- *.whl *.deb *.tar.gz >SHA256SUMS)
    local file
    for file in "$OUT"/*; do
        say dist "$(du -h "$file" | cut -f1)  $file"
    done
}

main "$@"
