#!/usr/bin/env bash
# Real pictures, a private release, synthetic pictures, a classifier trained on those alone.
#
#   jobs/fashion_mnist.sh [EPSILON]      with the environment (.venv) active; everything under build/
#
# Two ways: pixels, whose samples are pictures again, and wavelet scattering. Both are charged to one
# ledger. DATA=folder takes fashion_mnist_raw from elsewhere than build/data.
set -euo pipefail
cd "$(dirname "$0")/.."
epsilon=${1:-1}
data=${DATA:-build/data}/fashion_mnist_raw
out=build/fashion_mnist
# Less noise, more detail. Chosen on a tenth of the training pictures; see docs/tutorials/images.md.
axes=196 dimension=64
if python -c "raise SystemExit(float('$epsilon') < 5)"; then axes=324 dimension=96; fi

say() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

[ -e "$data/train.parquet" ] || run jobs/data/build.sh "${DATA:-build/data}" fashion_mnist_raw

rm -rf "$out"
mkdir -p "$out"
say "A budget for both releases: (epsilon, delta) of each add up to twice as much at most"
run dpgmm ledger init "$out/ledger" --epsilon "$(python -c "print(2 * $epsilon)")" --delta 2e-5

say "Pixels, on the $axes principal axes of drawn shapes: a public map, which leads back to pictures"
run dpgmm encode "$data/train.parquet" --encoder pixels --column pixels --shape 28x28 \
    --project "$axes" --save-projection "$out/pixels.npz" --output "$out/pixels/train"
say "The release, at epsilon $epsilon, delta 1e-5"
run dpgmm release jobs/fashion_mnist.yaml --release-id pixels \
    --set "privacy.epsilon=$epsilon" --set "model.dimension=$dimension"
say "Synthetic pictures to look at: $out/pixels/smooth-images/contact.png"
run dpgmm sample "$out/pixels/release" --rows 1000 --balanced --no-residual --seed 1 --output "$out/pixels/smooth"
run dpgmm decode "$out/pixels/smooth" --decoder "projection:$out/pixels.npz" --shape 28x28 \
    --output "$out/pixels/smooth-images"
say "Synthetic pictures to train on, as rough as real ones"
run dpgmm sample "$out/pixels/release" --rows 120000 --partitions 4 --seed 1 --output "$out/pixels/samples"
run dpgmm decode "$out/pixels/samples" --decoder "projection:$out/pixels.npz" --shape 28x28 \
    --output "$out/pixels/images"
say "Classifiers of synthetic pictures alone, tested on real ones"
run python jobs/image_classifier.py "$out/pixels/images" "$data/test.parquet"

say "The same through wavelet scattering, on the 128 principal axes of drawn shapes"
run dpgmm encode "$data/train.parquet" --encoder scattering --column pixels --shape 28x28 \
    --project 128 --save-projection "$out/scattering.npz" --unit-norm --workers 2 --output "$out/scattering/train"
run dpgmm encode "$data/test.parquet" --encoder scattering --column pixels --shape 28x28 \
    --projection "$out/scattering.npz" --unit-norm --workers 2 --output "$out/scattering/test"
run dpgmm release jobs/fashion_mnist_scattering.yaml --release-id scattering \
    --set "privacy.epsilon=$epsilon"
run dpgmm evaluate "$out/scattering/release" --data "$out/scattering/test" --rows 120000 \
    --max-rows 120000 --epochs 15 --output "$out/scattering/evaluation"
