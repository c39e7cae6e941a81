#!/usr/bin/env bash
# Installs each package of target/dist where nothing else is, and runs the tour with it. `make test-dist` runs it; see --help.
set -euo pipefail

CHECKOUT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
readonly CHECKOUT
readonly HERE="$CHECKOUT/deploy/dist"
readonly DIST="${CARGO_TARGET_DIR:-$CHECKOUT/target}/dist"
readonly SUITE="${SUITE:-bookworm}"

usage() {
    cat <<'HELP'
Usage: deploy/dist/test.sh [wheel] [deb] [tarball]

Installs packages of target/dist, by default all, and runs the way from photos to predictions with each:

  wheel     in a fresh virtual environment, followed by the example of docs/python.md
  deb       in a fresh Debian (SUITE=bookworm, by mmdebstrap), by root for a user without any right
  tarball   in the same Debian, for a user without any right

deb and tarball need root and Debian's mmdebstrap. Each fetches libtorch anew, 0.5 GB.
HELP
}

say() { printf '\n\e[1m%s\e[0m\n' "$*"; }

finish() {
    local mount
    for mount in proc dev; do
        mountpoint --quiet "$WORK/root/$mount" || continue
        # What is mounted is this machine's own, so nothing is removed as long as it is there.
        umount --lazy --recursive "$WORK/root/$mount" || return
    done
    rm -rf "$WORK"
}

# in_clean HOME COMMAND...: with nothing of this machine but its system and pip's settings.
in_clean() {
    local home=$1
    shift
    env -i HOME="$home" LANG=C.UTF-8 PATH="$home/venv/bin:/usr/bin:/bin" ${EXAMPLE:+"EXAMPLE=$EXAMPLE"} "${pip_settings[@]}" "$@"
}

make_photos() {
    python3 "$CHECKOUT/client/python/tests/photos.py" "$1/photos" 20
    python3 "$CHECKOUT/client/python/tests/photos.py" "$1/holiday" 1
}

test_wheel() {
    local home="$WORK/wheel" started=$SECONDS EXAMPLE="$WORK/example.py"
    say "The wheel, in a fresh virtual environment"
    make_photos "$home"
    # The first example of the page.
    sed -n '/^```python$/,/^```$/p' "$CHECKOUT/docs/python.md" | sed '/^```$/q' | grep -v '^```' >"$EXAMPLE"
    python3 -m venv "$home/venv"
    in_clean "$home" pip install --quiet "$(echo "$DIST"/*.whl)[pandas]"
    in_clean "$home" sortinghat-setup
    in_clean "$home" "$HERE/tour.sh" "$home"
    say "The wheel took $((SECONDS - started)) s from nothing to the end of the example."
}

make_root() {
    [[ ! -d "$WORK/root" ]] || return 0
    say "Debian $SUITE, fresh"
    mmdebstrap --quiet --variant=apt --include=python3,python3-pip,ca-certificates "$SUITE" "$WORK/root"
    mount -t proc proc "$WORK/root/proc"
    mount --rbind /dev "$WORK/root/dev"
    cp /etc/resolv.conf "$WORK/root/etc/"
    # The certificates that this machine trusts, for pip behind a proxy.
    cp /etc/ssl/certs/ca-certificates.crt "$WORK/root/etc/ssl/certs/"
    cp "$HERE/tour.sh" "$WORK/root/tmp/"
}

# in_root USER HOME COMMAND...
in_root() {
    local user=$1 home=$2
    shift 2
    env -i HOME="$home" LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive PATH="$home/.local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
        "${pip_settings[@]}" chroot --userspec="$user" "$WORK/root" "$@"
}

test_deb() {
    make_root
    local started=$SECONDS home=/home/bob quiet=(-qq --yes -o Dpkg::Use-Pty=0)
    say "The Debian package, installed by root and used by somebody else"
    make_photos "$WORK/root$home"
    chown -R 1000:1000 "$WORK/root$home"
    cp "$DIST"/*.deb "$WORK/root/tmp/sortinghat.deb"
    in_root root:root /root apt-get "${quiet[@]}" install /tmp/sortinghat.deb
    if in_root 1000:1000 "$home" sortinghat-setup; then
        echo "a user without any right has installed libtorch for all users" >&2
        exit 1
    fi
    in_root root:root /root sortinghat-setup libtorch
    in_root 1000:1000 "$home" sortinghat-setup
    in_root 1000:1000 "$home" /tmp/tour.sh "$home"
    in_root root:root /root apt-get "${quiet[@]}" purge sortinghat
    if [[ -e "$WORK/root/usr/lib/sortinghat" || -e "$WORK/root/var/lib/sortinghat" ]]; then
        echo "the package leaves something behind when it is purged" >&2
        exit 1
    fi
    say "The Debian package took $((SECONDS - started)) s."
}

test_tarball() {
    make_root
    local started=$SECONDS home=/home/ann
    say "The tarball, for a user without any right"
    mkdir -p "$WORK/root$home"
    tar -xzf "$DIST"/*.tar.gz -C "$WORK/root$home"
    make_photos "$WORK/root$home"
    chown -R 1000:1000 "$WORK/root$home"
    in_root 1000:1000 "$home" sh -c 'cd ~/sortinghat-*/ && ./install.sh'
    in_root 1000:1000 "$home" sortinghat-setup
    in_root 1000:1000 "$home" /tmp/tour.sh "$home"
    say "The tarball took $((SECONDS - started)) s."
}

main() {
    case "${1:-}" in
    -h | --help)
        usage
        return
        ;;
    esac
    [[ $# -gt 0 ]] || set -- wheel deb tarball
    if [[ "$*" =~ deb|tarball && -z "${IN_NAMESPACE:-}" ]]; then
        # What is mounted for the clean Debian is seen by nobody else.
        IN_NAMESPACE=yes exec unshare --mount "${BASH_SOURCE[0]}" "$@"
    fi
    trap finish EXIT
    WORK="$(mktemp -d "${TMPDIR:-/tmp}/sortinghat-dist.XXXXXX")"
    readonly WORK
    # pip's own settings are this machine's way to its packages.
    mapfile -t pip_settings < <(env | grep -E '^(PIP_|SSL_CERT_FILE=|REQUESTS_CA_BUNDLE=|https?_proxy=|HTTPS?_PROXY=)' | grep -v '^PIP_FIND_LINKS=')
    (cd "$DIST" && sha256sum --check --quiet SHA256SUMS)
    local package
    for package in "$@"; do
        "test_$package"
    done
}

main "$@"
