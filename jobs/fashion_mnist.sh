#!/usr/bin/env bash
# A private release of real pictures, synthetic pictures, and classifiers trained only on those.
#
#   jobs/fashion_mnist.sh [EPSILON]      with the environment (.venv) active; writes to build/
#
# There are two releases: of pixels, whose samples can be decoded to pictures, and of wavelet
# scattering features. Both are charged to one ledger. DATA=folder is where fashion_mnist_raw is; the
# default is build/data.
set -euo pipefail
cd "$(dirname "$0")/.."
epsilon=${1:-1}
data=${DATA:-build/data}/fashion_mnist_raw
out=build/fashion_mnist
# With less noise, more axes are useful. The numbers were chosen on a part of the training pictures;
# see docs/tutorials/images.md.
axes=196 dimension=64
if python -c "raise SystemExit(float('$epsilon') < 5)"; then axes=324 dimension=96; fi

say() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

[ -e "$data/train.parquet" ] || run jobs/data/build.sh "${DATA:-build/data}" fashion_mnist_raw

rm -rf "$out"
mkdir -p "$out"
say "A budget for both releases: together they cost at most twice the epsilon and delta of one"
run dpgmm ledger init "$out/ledger" --epsilon "$(python -c "print(2 * $epsilon)")" --delta 2e-5

say "Pixels on $axes principal axes of drawn shapes: a public map that can be inverted to pictures"
run dpgmm encode "$data/train.parquet" --encoder pixels --column pixels --shape 28x28 \
    --project "$axes" --save-projection "$out/pixels.npz" --output "$out/pixels/train"
say "The release at epsilon $epsilon, delta 1e-5"
run dpgmm release jobs/fashion_mnist.yaml --release-id pixels \
    --set "privacy.epsilon=$epsilon" --set "model.dimension=$dimension"
say "Synthetic pictures to look at: $out/pixels/smooth-images/contact.png"
run dpgmm sample "$out/pixels/release" --rows 1000 --balanced --no-residual --seed 1 --output "$out/pixels/smooth"
run dpgmm decode "$out/pixels/smooth" --decoder "projection:$out/pixels.npz" --shape 28x28 \
    --output "$out/pixels/smooth-images"
say "Synthetic pictures to train on, with the residual variance"
run dpgmm sample "$out/pixels/release" --rows 120000 --partitions 4 --seed 1 --output "$out/pixels/samples"
run dpgmm decode "$out/pixels/samples" --decoder "projection:$out/pixels.npz" --shape 28x28 \
    --output "$out/pixels/images"
say "Classifiers trained only on synthetic pictures and tested on real ones"
run python jobs/image_classifier.py "$out/pixels/images" "$data/test.parquet"

say "The same with wavelet scattering, on 128 principal axes of drawn shapes"
run dpgmm encode "$data/train.parquet" --encoder scattering --column pixels --shape 28x28 \
    --project 128 --save-projection "$out/scattering.npz" --unit-norm --workers 2 --output "$out/scattering/train"
run dpgmm encode "$data/test.parquet" --encoder scattering --column pixels --shape 28x28 \
    --projection "$out/scattering.npz" --unit-norm --workers 2 --output "$out/scattering/test"
run dpgmm release jobs/fashion_mnist_scattering.yaml --release-id scattering \
    --set "privacy.epsilon=$epsilon"
run dpgmm evaluate "$out/scattering/release" --data "$out/scattering/test" --rows 120000 \
    --max-rows 120000 --epochs 15 --output "$out/scattering/evaluation"
