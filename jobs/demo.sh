#!/usr/bin/env bash
# A private release of real data, from ledger to a classifier trained on sampled rows alone.
# Run from the repository by `make demo`, which puts the environment on PATH.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

rm -rf build/demo
say "A budget for this data: epsilon 3 in all"
run dpgmm ledger init build/demo/ledger --epsilon 3 --delta 1e-5
say "What will be measured, and with how much noise (reads no row, spends nothing)"
run dpgmm plan jobs/demo.yaml --rows 30000
say "The release: charged to the ledger, then measured"
run dpgmm release jobs/demo.yaml --release-id demo
say "Check it: digests, parameters, and the guarantee worked out anew"
run dpgmm verify build/demo/release
say "Synthetic rows from the release alone"
run dpgmm sample build/demo/release --rows 30000 --output build/demo/samples --partitions 2 --seed 1
say "A two-layer network trained on them, tested on real rows it never saw"
run python jobs/demo_classifier.py build/demo/samples
say "Where to look next"
cat <<'TEXT'
build/demo/release/report.html   the release for people
build/demo/release/receipt.json  what was measured, with which noise, at which cost
dpgmm ledger show build/demo/ledger
docs/quickstart.md               your own data
docs/privacy.md                  the guarantee, and its limits
TEXT
