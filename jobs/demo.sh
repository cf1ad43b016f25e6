#!/usr/bin/env bash
# A private release of real data, from the ledger to a classifier trained only on sampled rows.
# `make demo` runs this in the repository, with the environment on PATH.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

rm -rf build/demo
say "A budget for this data: epsilon 3 in total"
run dpgmm ledger init build/demo/ledger --epsilon 3 --delta 1e-5
say "The plan: what will be measured, and with how much noise (reads no rows, spends nothing)"
run dpgmm plan jobs/demo.yaml --rows 30000
say "The release: it is charged to the ledger and then measured"
run dpgmm release jobs/demo.yaml --release-id demo
say "The check: digests, parameters, and the accounting, which is recomputed"
run dpgmm verify build/demo/release
say "Synthetic rows, drawn from the release"
run dpgmm sample build/demo/release --rows 30000 --output build/demo/samples --partitions 2 --seed 1
say "A two-layer network trained on them and tested on real rows that were not released from"
run python jobs/demo_classifier.py build/demo/samples
say "Where to look next"
cat <<'TEXT'
build/demo/release/report.html   a report on the release
build/demo/release/receipt.json  the privacy receipt: queries, noise, cost
dpgmm ledger show build/demo/ledger
docs/quickstart.md               how to use your own data
docs/privacy.md                  the guarantee and its limits
TEXT
