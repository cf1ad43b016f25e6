"""Accuracy on real test pictures of a network trained only on synthetic pictures.

    python jobs/benchmarks/pictures.py [--data build/data] [--epsilon 1] [--seeds 3]

The first half of jobs/fashion_mnist.sh, several times over: Fashion-MNIST's pixels on the principal
axes of drawn shapes, a release through the real strategy, kernel, gate and accounting, samples,
pictures of 28x28 bytes, and the network of `dpgmm evaluate` (256 hidden units). All in memory; a
line of JSON for each release. Noise is private unless --insecure-seeds makes runs repeatable.
With --validation the test split is never read: 10,000 of the training pictures take its place.
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
HELD = 10_000
# As in jobs/fashion_mnist.sh: axes and dimension, up to epsilon 5 and from there on.
DEFAULTS = {False: (196, 64), True: (324, 96)}


def pictures(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 784) uint8 and labels (n,)."""
    table = pq.read_table(path)
    pixels = table["pixels"].combine_chunks().flatten().to_numpy()
    return pixels.reshape(len(table), -1), table["label"].to_numpy().astype(np.int64)


def unit(pixels: np.ndarray) -> np.ndarray:
    """Brightness from 0 to 1."""
    return (pixels / np.float32(255)).astype(np.float32)


def splits(folder: Path, validation: bool) -> tuple[np.ndarray, ...]:
    """Training and test pictures with their labels."""
    X, y = pictures(folder / "train.parquet")
    if not validation:
        return (X, y, *pictures(folder / "test.parquet"))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(X))
    held, kept = order[:HELD], order[HELD:]
    return X[kept], y[kept], X[held], y[held]


def synthetic(
    fitted: Fitted, axes: Projection, rows: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures as `dpgmm sample` and `dpgmm decode` make them, in [0, 1], and their labels."""
    latent, component = fitted.mixture.sample(rows, seed)
    features = fitted.latent.to_features(latent)
    rough = np.random.default_rng([seed, 1]).standard_normal(features.shape)
    rough *= np.sqrt(fitted.residual_variance)
    if fitted.latent.basis is not None:
        features += rough - (rough @ fitted.latent.basis) @ fitted.latent.basis.T
    pixels = np.rint(255 * np.clip(axes.backward(features), 0, 1)).astype(np.uint8)
    return unit(pixels), fitted.mixture.label_index[component]


def main() -> None:
    """A line for each release, then the mean."""
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
    usual = DEFAULTS[args.epsilon >= 5]
    width, dimension = args.axes or usual[0], args.dimension or usual[1]
    axes = principal_axes(lambda p: unit(p.reshape(len(p), -1)), SHAPE, width)
    X, y, test_X, test_y = splits(args.data / "fashion_mnist_raw", args.validation)
    found = []
    with threadpool_limits(1):
        features = ((unit(X) - axes.mean) @ axes.matrix).astype(np.float32)
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
            made = synthetic(fitted, axes, args.rows, seed + 1)
            right = classifier_accuracy(*made, unit(test_X), test_y, epochs=args.epochs)
            found.append(round(100 * right, 2))
            told = {"epsilon": args.epsilon, "axes": width, "dimension": dimension}
            told |= {"norm": args.norm, "rows": args.rows, "epochs": args.epochs}
            print(json.dumps({**told, "seed": seed, "accuracy": found[-1]}), flush=True)
    print(f"mean {np.mean(found):.2f}, worst {min(found):.2f} of {len(found)} releases")


if __name__ == "__main__":
    main()
