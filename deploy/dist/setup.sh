#!/bin/sh
# Fetches what the worker needs and the package does not hold. The Python beside this program, if there is one, does it.
prefix="$(dirname "$(dirname "$(readlink -f "$0")")")"
PATH="$prefix/bin:$PATH" exec "$prefix/lib/sortinghat/deploy/install.sh" "$@"
