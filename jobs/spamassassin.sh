#!/usr/bin/env bash
# Private mails as embeddings, a private release, and a spam filter trained on synthetic rows alone.
#
#   jobs/spamassassin.sh [EPSILON]      with the environment (.venv) active; everything under build/
#
# DATA=folder takes spamassassin_minilm384 from elsewhere than build/data.
set -euo pipefail
cd "$(dirname "$0")/.."
epsilon=${1:-1}
data=${DATA:-build/data}/spamassassin_minilm384
out=build/spamassassin

say() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

[ -e "$data/train.parquet" ] || run jobs/data/build.sh "${DATA:-build/data}" spamassassin_minilm384

rm -rf "$out"
say "A budget, and the release at epsilon $epsilon, delta 1e-5"
run dpgmm ledger init "$out/ledger" --epsilon "$epsilon" --delta 1e-5
run dpgmm release jobs/spamassassin.yaml --release-id mails \
    --set "dataset.path=$data/train.parquet" --set "privacy.epsilon=$epsilon"
say "As many synthetic rows as there were mails, many times over: sampling is free"
run dpgmm sample "$out/release" --rows 24000 --seed 1 --output "$out/samples"
say "Spam filters trained on synthetic rows alone, tested on real mails (NOT PRIVATE)"
run dpgmm evaluate "$out/release" --synthetic "$out/samples" --data "$data/test.parquet" \
    --training "$data/train.parquet" --epochs 5 --output "$out/evaluation"
