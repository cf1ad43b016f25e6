#!/usr/bin/env bash
# Real pictures, private release, synthetic pictures, a classifier trained on those alone.
#
#   jobs/fashion_mnist.sh [EPSILON]      with the environment (.venv) active; everything under build/
#
# Two ways: the raw pixels, whose samples are pictures again, and scattering embeddings. Both are
# charged to one ledger. DATA=folder takes fashion_mnist_raw from elsewhere than build/data.
set -euo pipefail
cd "$(dirname "$0")/.."
epsilon=${1:-1}
data=${DATA:-build/data}/fashion_mnist_raw
out=build/fashion_mnist
delta=1e-5

say() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

[ -e "$data/train.parquet" ] || run jobs/data/build.sh "${DATA:-build/data}" fashion_mnist_raw

rm -rf "$out"
say "A budget for both releases: they add up to less than twice epsilon $epsilon"
run dpgmm ledger init "$out/ledger" --epsilon "$(python -c "print(2 * $epsilon)")" --delta 2e-5

say "Raw pixels: a mixture of pictures, released at epsilon $epsilon, delta $delta"
run dpgmm release jobs/fashion_mnist.yaml --release-id pixels \
    --set "dataset.path=$data/train.parquet" --set "privacy.epsilon=$epsilon"
say "Synthetic pictures, as pictures: see $out/pixels/images/contact.png"
run dpgmm sample "$out/pixels/release" --rows 120000 --partitions 4 --seed 1 --output "$out/pixels/samples"
run dpgmm decode "$out/pixels/samples" --decoder pixels --shape 28x28 --output "$out/pixels/images"

say "The same through wavelet scattering, which has no weights"
for split in train test; do
    run dpgmm encode "$data/$split.parquet" --encoder scattering --column pixels --shape 28x28 \
        --project 128 --unit-norm --output "$out/scattering/$split"
done
run dpgmm release jobs/fashion_mnist_scattering.yaml --release-id scattering \
    --set "privacy.epsilon=$epsilon"
run dpgmm sample "$out/scattering/release" --rows 120000 --partitions 4 --seed 1 \
    --output "$out/scattering/samples"

say "Classifiers trained on synthetic rows alone, tested on the real test split (NOT PRIVATE)"
run dpgmm evaluate "$out/pixels/release" --synthetic "$out/pixels/samples" --max-rows 120000 \
    --data "$data/test.parquet" --epochs 15 --output "$out/pixels/evaluation"
run dpgmm evaluate "$out/scattering/release" --synthetic "$out/scattering/samples" \
    --max-rows 120000 --data "$out/scattering/test" --epochs 15 --output "$out/scattering/evaluation"
