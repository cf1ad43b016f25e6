"""Accuracy on real test pictures of a network that is trained only on synthetic pictures.

    python jobs/benchmarks/pictures.py [--data build/data] [--epsilon 1] [--seeds 3]

This repeats the first half of jobs/fashion_mnist.sh in memory: pixels of Fashion-MNIST on the
principal axes of drawn shapes, a release with the strategy, kernel, privacy gate and accounting of
the package, samples, pictures of 28x28 pixels, and the network of `dpgmm evaluate` (256 hidden
units). It prints a line of JSON for each release. Noise is private unless --insecure-seeds makes
runs repeatable. With --validation the test split is not read; 10,000 of the training pictures take
its place.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from classify import DELTA, SPLIT_SEED, Rows, noise_of
from threadpoolctl import threadpool_limits

from dpgmm_dist.artifact.receipt import budget_rho
from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.encode.drawn_shapes import principal_axes
from dpgmm_dist.encode.projection import Projection
from dpgmm_dist.evaluate.classify import classifier_accuracy
from dpgmm_dist.model.problem import Fitted, Problem
from dpgmm_dist.model.strategy import fit

SHAPE = (28, 28, 1)
VALIDATION_ROWS = 10_000
LARGE_EPSILON = 5
DEFAULTS = {False: (196, 64), True: (324, 96)}
"""Axes and latent dimensions below `LARGE_EPSILON` (False) and from there on (True), as in
jobs/fashion_mnist.sh."""


def pictures(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 784) uint8 and labels (n,)."""
    table = pq.read_table(path)
    pixels = table["pixels"].combine_chunks().flatten().to_numpy()
    return pixels.reshape(len(table), -1), table["label"].to_numpy().astype(np.int64)


def brightness(pixels: np.ndarray) -> np.ndarray:
    """Pixels scaled from 0..255 to 0..1, float32."""
    return (pixels / np.float32(255)).astype(np.float32)


def splits(folder: Path, validation: bool) -> tuple[np.ndarray, ...]:
    """Training and test pictures with their labels."""
    X, y = pictures(folder / "train.parquet")
    if not validation:
        return (X, y, *pictures(folder / "test.parquet"))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(X))
    validation_rows, kept = order[:VALIDATION_ROWS], order[VALIDATION_ROWS:]
    return X[kept], y[kept], X[validation_rows], y[validation_rows]


def synthetic(
    fitted: Fitted, axes: Projection, rows: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures as `dpgmm sample` and `dpgmm decode` make them, in [0, 1], and their labels."""
    latent, component = fitted.mixture.sample(rows, seed)
    features = fitted.latent.to_features(latent)
    residual = np.random.default_rng([seed, 1]).standard_normal(features.shape)
    residual *= np.sqrt(fitted.residual_variance)
    if fitted.latent.basis is not None:
        features += residual - (residual @ fitted.latent.basis) @ fitted.latent.basis.T
    pixels = np.rint(255 * np.clip(axes.backward(features), 0, 1)).astype(np.uint8)
    return brightness(pixels), fitted.mixture.label_index[component]


def main() -> None:
    """Print a line for each release, then the mean."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/data"))
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--axes", type=int, default=None)
    parser.add_argument("--dimension", type=int, default=None)
    parser.add_argument("--norm", type=float, default=11.8)
    parser.add_argument("--rows", type=int, default=120_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--validation", action="store_true", help="never read the test split")
    parser.add_argument("--insecure-seeds", action="store_true", help="repeatable, NOT PRIVATE")
    parser.add_argument("--noise", default="auto")
    args = parser.parse_args()
    default_width, default_dimension = DEFAULTS[args.epsilon >= LARGE_EPSILON]
    width, dimension = args.axes or default_width, args.dimension or default_dimension
    axes = principal_axes(lambda p: brightness(p.reshape(len(p), -1)), SHAPE, width)
    X, y, test_X, test_y = splits(args.data / "fashion_mnist_raw", args.validation)
    accuracies = []
    with threadpool_limits(1):
        features = ((brightness(X) - axes.mean) @ axes.matrix).astype(np.float32)
        for seed in range(args.seeds):
            noise = noise_of(args, seed)
            rho = budget_rho(args.epsilon, DELTA, noise.accounting) * (1 - 1e-9)
            rows = Rows(features, y, noise, FeatureMap(width, args.norm))
            problem = Problem(
                width,
                args.norm,
                rho,
                tuple(range(10)),
                "auto",
                assignment="hard",
                dimension=dimension,
            )
            fitted = fit(problem, rows.ask)
            train = synthetic(fitted, axes, args.rows, seed + 1)
            accuracy = classifier_accuracy(*train, brightness(test_X), test_y, epochs=args.epochs)
            accuracies.append(round(100 * accuracy, 2))
            line = {"epsilon": args.epsilon, "axes": width, "dimension": dimension}
            line |= {"norm": args.norm, "rows": args.rows, "epochs": args.epochs}
            print(json.dumps({**line, "seed": seed, "accuracy": accuracies[-1]}), flush=True)
    mean, worst = np.mean(accuracies), min(accuracies)
    print(f"mean {mean:.2f}, worst {worst:.2f} of {len(accuracies)} releases")


if __name__ == "__main__":
    main()
