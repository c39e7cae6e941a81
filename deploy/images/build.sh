#!/usr/bin/env bash
# Builds container images without a registry, a daemon or root. `make images` runs it; see --help.
set -euo pipefail

CHECKOUT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
readonly CHECKOUT
readonly CACHE="${SORTINGHAT_CACHE:-$HOME/.cache/sortinghat}"
readonly LIBTORCH="$CACHE/libtorch-2.11.0"
readonly HERE="$CHECKOUT/deploy/images"
readonly OUT="${CARGO_TARGET_DIR:-$CHECKOUT/target}/images"
# Where apt's packages of the base come from: a suite of Debian whose C library is not older than the machine's that built the programs.
readonly SUITE="${SUITE:-bookworm}"
# Of what apt fetches for them, the base takes these packages. Nothing in the images runs openssl or debconf.
readonly BASE_PACKAGES="libc6 libgcc-s1 libstdc++6 ca-certificates gcc-[0-9]*-base"
# What libtorch_cpu and its CUDA runtime load on a machine without a GPU.
readonly CPU_LIBRARIES=(torch/lib/libtorch_cpu.so torch/lib/libc10.so torch/lib/libgomp.so.1
    nvidia/cu13/lib/libcudart.so.13 nvidia/cu13/lib/libcupti.so.13)

usage() {
    cat <<'HELP'
Usage: deploy/images/build.sh BIN [IMAGE...]

Builds the images `coordinator`, `worker` and `hat`, or those that are named, with the programs of the folder BIN, such as
target/release. There is also `worker-cuda`, which needs `deploy/install.sh cuda`.

Each image goes to target/images/sortinghat-IMAGE.oci.tar, with its bill of materials (SPDX) beside it and in it. The
same programs, packages and commit make the same bytes again.

  SUITE=bookworm   the Debian release whose C library the images get
  STORAGE_DRIVER=  how buildah stores layers: vfs works everywhere; overlay takes a third of the room, where it works
  MIRROR=URL       where its packages come from, such as a snapshot, to build an old image again
HELP
}

say() { printf '%-20s %s\n' "$1" "$2"; }

fail() {
    printf 'build.sh: %s\n' "$*" >&2
    exit 1
}

buildah() {
    command buildah --root "$OUT/storage" --runroot "$OUT/run" --storage-driver "${STORAGE_DRIVER:-vfs}" "$@"
}

# Everything in the images has the time of the commit.
commit_time() { git -C "$CHECKOUT" log -1 --format=%ct; }

# fetch_base DIRECTORY: the packages of the base, checked by apt against the archive's keys.
fetch_base() {
    mkdir -p "$1"
    mmdebstrap --quiet --variant=extract --format=null --include=libc6,libstdc++6,ca-certificates \
        --extract-hook="copy-out /var/cache/apt/archives $1" "$SUITE" /dev/null ${MIRROR:+"$MIRROR"}
}

# unpack_base PACKAGES ROOT: a root without a shell. Scanners find in status.d which packages it is made of.
unpack_base() {
    local packages=$1 root=$2 deb name
    mkdir -p "$root"/{var/lib/dpkg/status.d,etc/ssl/certs,proc,sys,dev,run,home}
    for deb in "$packages"/*.deb; do
        name="$(dpkg-deb --field "$deb" Package)"
        is_in_base "$name" || continue
        dpkg-deb --field "$deb" >"$root/var/lib/dpkg/status.d/$name"
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --no-same-owner
    done
    # What the package's own script would do, which needs a shell.
    cat "$root"/usr/share/ca-certificates/mozilla/*.crt >"$root/etc/ssl/certs/ca-certificates.crt"
    rm -rf "$root"/usr/{sbin,share/{man,locale,lintian}} "$root"/usr/lib/x86_64-linux-gnu/{gconv,audit} "$root/etc/ca-certificates"
    printf 'root:x:0:0:root:/:/sbin/nologin\nsortinghat:x:65532:65532::/var/lib/sortinghat:/sbin/nologin\n' >"$root/etc/passwd"
    printf 'root:x:0:\nsortinghat:x:65532:\n' >"$root/etc/group"
    printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
}

is_in_base() {
    local pattern
    set -f
    for pattern in $BASE_PACKAGES; do
        # shellcheck disable=SC2053
        [[ "$1" == $pattern ]] && set +f && return
    done
    set +f
    return 1
}

# The owner of each file is written into the archive, so that nobody needs to be root here.
pack_base() {
    local root=$1 archive=$2
    local tar=(tar --sort=name --mtime=@0 --numeric-owner --format=gnu -f "$archive")
    mkdir -p "$root.own/var/lib/sortinghat" "$root.own/tmp"
    "${tar[@]}" --create --owner=0 --group=0 --mode=go-w -C "$root" .
    "${tar[@]}" --append --owner=65532 --group=65532 --mode=0700 -C "$root.own" ./var/lib/sortinghat
    "${tar[@]}" --append --owner=0 --group=0 --mode=1777 -C "$root.own" ./tmp
}

build_base() {
    local work="$OUT/base"
    say base "Debian $SUITE, without a shell"
    fetch_base "$work/debs"
    unpack_base "$(dirname "$(find "$work/debs" -name 'libc6_*.deb')")" "$work/root"
    pack_base "$work/root" "$work/base.tar"
    printf 'FROM scratch\nADD base.tar /\n' |
        buildah build --quiet --isolation chroot --identity-label=false --timestamp "$(commit_time)" --tag sortinghat-base -f - "$work" >/dev/null
}

# stage_program PROGRAM DIRECTORY: a program without the path of the folder that it was built in, and the licences.
stage_program() {
    local program=$1 root=$2
    "$CHECKOUT/deploy/stage_program.sh" "$program" "$BIN" "$root/usr/bin"
    mkdir -p "$root/usr/share/doc/sortinghat"
    cp "$CHECKOUT"/LICENSE-* "$root/usr/share/doc/sortinghat/"
}

# stage_libtorch IMAGE DIRECTORY: the libraries where they find each other by the paths that they already name, and their licences.
stage_libtorch() {
    local image=$1 root=$2 library
    [[ -d "$LIBTORCH/torch/lib" ]] || fail "there is no libtorch in $LIBTORCH: run deploy/install.sh libtorch"
    mkdir -p "$root/torch"
    cp -r "$LIBTORCH"/*.dist-info "$root/"
    if [[ "$image" == worker-cuda ]]; then
        [[ -d "$LIBTORCH/nvidia/cudnn" ]] || fail "there is no CUDA in $LIBTORCH: run deploy/install.sh cuda"
        cp -r "$LIBTORCH/nvidia" "$root/"
        cp -r "$LIBTORCH/torch/lib" "$root/torch/"
        # These serve Python only.
        rm -rf "$root"/torch/lib/{libtorch_python.so,libshm,libshm_windows} && find "$root/nvidia" -name include -prune -exec rm -rf {} +
    else
        for library in "${CPU_LIBRARIES[@]}"; do
            install -D -m 0755 "$LIBTORCH/$library" "$root/$library"
        done
    fi
}

# stage IMAGE CONTEXT
stage() {
    local image=$1 context=$2 weights="$CACHE/weights/efficientnet_lite0.safetensors"
    case "$image" in
    coordinator) stage_program sortinghat-coordinator "$context" ;;
    hat) stage_program hat "$context" ;;
    worker | worker-cuda)
        [[ -f "$weights" ]] || fail "there are no weights in $CACHE/weights: run deploy/install.sh weights"
        stage_program sortinghat-worker "$context/program"
        stage_libtorch "$image" "$context/libtorch"
        install -D -m 0644 "$weights" "$context/weights/efficientnet_lite0.safetensors"
        ;;
    *) fail "there is no image '$image'; see deploy/images/build.sh --help" ;;
    esac
}

# bill IMAGE CONTEXT FILE: what the image is made of. Cargo.lock stands for the program, since a program does not say what it is made of.
bill() {
    local image=$1 context=$2 file=$3 scanned="$OUT/scanned/$1" package
    package="sortinghat-$(sed 's/^hat$/client/; s/-cuda$//' <<<"$image")"
    mkdir -p "$scanned/program" "$scanned/base/var/lib"
    cp -r "$OUT/base/root/var/lib/dpkg" "$scanned/base/var/lib/"
    python3 "$HERE/sbom.py" lock "$package" "$CHECKOUT" "$scanned/program/Cargo.lock"
    [[ ! -d "$context/libtorch" ]] || cp -r "$context/libtorch"/*.dist-info "$scanned/program/"
    # Where this checkout lies must not stand in it.
    (cd "$scanned" && "$CACHE/syft/bin/syft" scan --quiet dir:. --source-name "sortinghat-$image" --output "spdx-json=$file")
    python3 "$HERE/sbom.py" normalise "$file" "$(commit_time)" "sortinghat-$image"
}

labels() {
    local image=$1 version=$2
    local -A label=(
        [title]="sortinghat-$image"
        [description]="$(sed -n 's/^# \(The [^.]*\)\..*/\1 of sortinghat/p;q' "$HERE/$image.Containerfile")"
        [version]="$version"
        [revision]="$(git -C "$CHECKOUT" rev-parse HEAD)"
        [source]="$(sed -n 's/^repository = "\(.*\)"/\1/p' "$CHECKOUT/Cargo.toml")"
        [licenses]="MIT OR Apache-2.0"
    )
    for name in title description version revision source licenses; do
        printf -- '--label\norg.opencontainers.image.%s=%s\n' "$name" "${label[$name]}"
    done
}

# build_image IMAGE
build_image() {
    local image=$1 context="$OUT/context/$1" name="sortinghat-$1" version program options
    version="$(sed -n 's/^version = "\(.*\)"/\1/p' "$CHECKOUT/Cargo.toml" | head -1)"
    stage "$image" "$context"
    bill "$image" "$context" "$OUT/$name.spdx.json"
    program="$context"
    [[ ! -d "$context/program" ]] || program="$context/program"
    install -D -m 0644 "$OUT/$name.spdx.json" "$program/usr/share/sbom/$name.spdx.json"
    python3 "$CHECKOUT/deploy/dist/licences.py" "$OUT/scanned/$image/program/Cargo.lock" "$program/usr/share/doc/sortinghat/crates.txt"
    chmod -R u=rwX,go=rX "$context"
    mapfile -t options < <(labels "$image" "$version")
    buildah build --quiet --pull-never --isolation chroot --layers --identity-label=false --timestamp "$(commit_time)" \
        --build-arg BASE=localhost/sortinghat-base "${options[@]}" --tag "$name:$version" -f "$HERE/$image.Containerfile" "$context" >/dev/null
    try_image "$name:$version"
    export_image "$name" "$version"
}

# The program has to find its libraries in the image, and a C library that is new enough.
try_image() {
    local container program
    container="$(buildah from --pull-never "localhost/$1")"
    program="$(buildah inspect --format '{{index .OCIv1.Config.Entrypoint 0}}' "$container")"
    buildah run --isolation chroot "$container" -- "$program" --version >"$OUT/said" 2>&1 ||
        fail "$program does not start in $1: $(<"$OUT/said")"
    buildah rm "$container" >/dev/null
}

export_image() {
    local name=$1 version=$2 layout="$OUT/layout/$1"
    rm -rf "$layout"
    mkdir -p "$layout"
    buildah push --quiet "localhost/$name:$version" "oci:$layout:$name:$version"
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$OUT/$name.oci.tar" -C "$layout" .
    say "$name" "$(du -h "$OUT/$name.oci.tar" | cut -f1) $(sed -n 's/.*"digest":"\(sha256:[0-9a-f]*\)".*/\1/p' "$layout/index.json")"
}

# What buildah wrote for somebody who is not root belongs to other users of a name space.
clean() {
    local removal=(rm -rf "$OUT"/{storage,run,base,context,scanned,layout,said})
    if ((EUID)); then command buildah unshare "${removal[@]}"; else "${removal[@]}"; fi
}

main() {
    case "${1:---help}" in
    -h | --help)
        usage
        return
        ;;
    esac
    BIN="$(cd "$1" 2>/dev/null && pwd)" || fail "there is no folder $1: run \`make release\`, or name another one with BIN=FOLDER"
    shift
    mkdir -p "$OUT"
    clean
    trap clean EXIT
    build_base
    (($#)) || set -- coordinator worker hat
    for image in "$@"; do build_image "$image"; done
}

main "$@"
