#!/usr/bin/env bash
# Real pictures to synthetic ones and back: encode, release, sample, decode, train, test.
#
#   jobs/cifar10.sh PICTURES [EPSILON ...]      with the environment (.venv) active; writes to build/
#
# PICTURES is a folder of your CIFAR-10 pictures, or others, in a form that
# jobs/data/pictures_to_parquet.py reads. A tenth of the training pictures is declared public; the
# release is of the rest. The default for EPSILON is 1 3 10. Environment:
#   ENCODER   the encoder; the default is EfficientNet-Lite0 (jobs/effnet_lite0.py)
#   OPTIONS   more options of dpgmm encode, such as "--shape 28x28" for lists of pixels
#   SHAPE     size of the pictures that come back, by default 32x32x3
#   ROWS      synthetic rows, by default 45000
#   OUT       the folder that is written, by default build/cifar10; it is replaced
set -euo pipefail
pictures=$(realpath "${1:?usage: jobs/cifar10.sh PICTURES [EPSILON ...]}")
shift
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- 1 3 10
encoder=${ENCODER:-effnet_lite0:EfficientNetLite0}
shape=${SHAPE:-32x32x3}
rows=${ROWS:-45000}
out=${OUT:-build/cifar10}
export PYTHONPATH="$PWD/jobs:$PWD/jobs/benchmarks${PYTHONPATH:+:$PYTHONPATH}"

say() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

rm -rf "$out"
mkdir -p "$out"
say "A tenth of the training pictures is declared public"
run python jobs/data/pictures_to_parquet.py "$pictures" "$out/raw"
labels=$(python -c "import sys; print(list(range(len(open(sys.argv[1]).read().split()))))" "$out/raw/classes.txt")

say "Embeddings; the public pictures keep their pixels, so that synthetic ones can come back as them"
for part in private public test; do
    keep=(--keep label)
    [ $part != public ] || keep+=(--keep picture)
    # shellcheck disable=SC2086  # the options are meant to be split
    run dpgmm encode "$out/raw/$part.parquet" --encoder "$encoder" --column picture --unit-norm \
        "${keep[@]}" ${OPTIONS:-} --output "$out/embeddings/$part"
done

say "A budget for all releases"
run dpgmm ledger init "$out/ledger" \
    --epsilon "$(python -c "import sys; print(sum(map(float, sys.argv[1:])))" "$@")" \
    --delta "$(python -c "import sys; print(1e-5 * (len(sys.argv) - 1))" "$@")"

for epsilon; do
    say "The release at epsilon $epsilon, delta 1e-5, and synthetic embeddings"
    run dpgmm release jobs/cifar10.yaml --release-id "cifar10-$epsilon" \
        --set "dataset.path=$out/embeddings/private" --set "dataset.labels=$labels" \
        --set "privacy.epsilon=$epsilon" --set "privacy.ledger=$out/ledger" \
        --output "$out/release-$epsilon"
    run dpgmm sample "$out/release-$epsilon" --rows "$rows" --seed 1 --output "$out/samples-$epsilon"
    say "Pictures: the nearest public one, and by a decoder learned from public pairs"
    for how in nearest fit; do
        run dpgmm decode "$out/samples-$epsilon" --decoder "$how:$out/embeddings/public" \
            --shape "$shape" --label label --output "$out/$how-$epsilon"
    done
    say "Classifiers of embeddings trained on synthetic rows, tested on real ones (NOT PRIVATE)"
    run dpgmm evaluate "$out/release-$epsilon" --data "$out/embeddings/test" \
        --synthetic "$out/samples-$epsilon" --public "$out/embeddings/public" --epochs 5 \
        --pictures "$out/raw/test.parquet" --decoded "$out/nearest-$epsilon" --shape "$shape" \
        --output "$out/evaluation-$epsilon"
    say "DP logistic regression on the same embeddings at the same epsilon: a classifier alone"
    run python jobs/benchmarks/embeddings.py "$out/embeddings" --private-logistic "$epsilon"
    for how in nearest fit; do
        say "A classifier of pictures trained on the pictures by $how (NOT PRIVATE)"
        run python jobs/image_classifier.py "$out/$how-$epsilon" "$out/raw/test.parquet" 5 "$shape"
    done
done
say "Contact sheets are in $out/nearest-*, $out/fit-* and $out/evaluation-*"
