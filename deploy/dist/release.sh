#!/usr/bin/env bash
# Makes and checks the files of a release; docs/releasing.md has the steps before and after. See --help.
set -euo pipefail

CHECKOUT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
readonly CHECKOUT
readonly HERE="$CHECKOUT/deploy/dist"
readonly DIST="${CARGO_TARGET_DIR:-$CHECKOUT/target}/dist"
VERSION="$(sed -n 's/^version = "\(.*\)"/\1/p;T;q' "$CHECKOUT/Cargo.toml")"
readonly VERSION

usage() {
    cat <<'HELP'
Usage: deploy/dist/release.sh BIN [STEP...]

Makes the files of a release from the programs of the folder BIN and checks them. Without steps, all of these are done in order, and the
first that fails ends it:

  source      the commit is tagged vVERSION, nothing in the checkout is changed, and CHANGELOG.md has a dated section
  advisories  no crate of Cargo.lock has a known vulnerability or was withdrawn (fetches the advisories from the internet)
  packages    target/dist is built, and a second time with the same digests
  install     each package is installed in a clean place and sorts photos (0.5 GB of downloads for each)
  sign        SHA256SUMS is signed with the OpenPGP key SIGN_KEY
  verify      what a user does: the signature and the digests are checked, with nothing but the public key
HELP
}

say() { printf '\n\e[1m%s\e[0m\n' "$*"; }

fail() {
    printf 'release.sh: %s\n' "$*" >&2
    exit 1
}

step_source() {
    local tag
    [[ -z "$(git -C "$CHECKOUT" status --porcelain)" ]] || fail "the checkout has changes: commit them, or take a fresh clone"
    tag="$(git -C "$CHECKOUT" tag --points-at HEAD --list "v$VERSION")"
    [[ -n "$tag" ]] || fail "the commit is not tagged v$VERSION: run \`git tag --sign v$VERSION\`"
    grep -qE "^## \[$VERSION\] - [0-9]{4}-[0-9]{2}-[0-9]{2}$" "$CHECKOUT/CHANGELOG.md" ||
        fail "CHANGELOG.md has no line \"## [$VERSION] - YYYY-MM-DD\""
}

step_advisories() {
    (cd "$CHECKOUT" && cargo deny --log-level error --all-features check --hide-inclusion-graph advisories)
}

step_packages() {
    local first
    first="$("$HERE/build.sh" "$BIN" >/dev/null && cat "$DIST/SHA256SUMS")"
    "$HERE/build.sh" "$BIN"
    diff <(echo "$first") "$DIST/SHA256SUMS" || fail "the packages differ when they are built twice from the same programs"
}

step_install() { "$HERE/test.sh"; }

step_sign() {
    [[ -n "${SIGN_KEY:-}" ]] || fail "set SIGN_KEY to the fingerprint of the key that signs releases"
    gpg --batch --yes --local-user "$SIGN_KEY" --armor --detach-sign --output "$DIST/SHA256SUMS.asc" "$DIST/SHA256SUMS"
    gpg --batch --yes --armor --export "$SIGN_KEY" >"$DIST/sortinghat.asc"
}

# With a keyring of its own, so that nothing which this machine already trusts counts.
step_verify() {
    local ring="$DIST/verify" failed=''
    mkdir -p "$ring" && chmod 700 "$ring"
    if ! {
        gpg --homedir "$ring" --batch --quiet --import "$DIST/sortinghat.asc" &&
            gpg --homedir "$ring" --batch --quiet --trust-model always --verify "$DIST/SHA256SUMS.asc" "$DIST/SHA256SUMS" &&
            (cd "$DIST" && sha256sum --check SHA256SUMS)
    }; then failed=yes; fi
    gpgconf --homedir "$ring" --kill all
    rm -rf "$ring"
    [[ -z "$failed" ]] || fail "the signature or a digest is wrong"
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
    shift
    [[ $# -gt 0 ]] || set -- source advisories packages install sign verify
    local step
    for step in "$@"; do
        [[ "$(type -t "step_$step")" == function ]] || fail "there is no step '$step'; see --help"
        say "$VERSION: $step"
        "step_$step"
    done
    say "Next: what docs/releasing.md says about publishing."
}

main "$@"
