#!/usr/bin/env bash
# A private release of embeddings of mails, and a spam filter trained only on synthetic rows.
#
#   jobs/spamassassin.sh [EPSILON]      with the environment (.venv) active; writes to build/
#
# DATA=folder is where spamassassin_minilm384 is; the default is build/data.
set -euo pipefail
cd "$(dirname "$0")/.."
epsilon=${1:-1}
data=${DATA:-build/data}/spamassassin_minilm384
out=build/spamassassin

say() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

[ -e "$data/train.parquet" ] || run jobs/data/build.sh "${DATA:-build/data}" spamassassin_minilm384

rm -rf "$out"
say "A budget and the release at epsilon $epsilon, delta 1e-5"
run dpgmm ledger init "$out/ledger" --epsilon "$epsilon" --delta 1e-5
run dpgmm release jobs/spamassassin.yaml --release-id mails \
    --set "dataset.path=$data/train.parquet" --set "privacy.epsilon=$epsilon"
say "Many more synthetic rows than there are mails: sampling has no privacy cost"
run dpgmm sample "$out/release" --rows 24000 --seed 1 --output "$out/samples"
say "Spam filters trained on synthetic rows and tested on real mails (NOT PRIVATE)"
run dpgmm evaluate "$out/release" --synthetic "$out/samples" --data "$data/test.parquet" \
    --training "$data/train.parquet" --epochs 5 --output "$out/evaluation"
