"""What limits a linear discriminant under noise, with few rows and many dimensions.

    python jobs/benchmarks/discriminants.py [--data build/data] [--epsilon 1] [--seeds 3]

Ten-fold cross-validation on the training rows of spamassassin_minilm384. The noise is simulated in
floating point and NOT PRIVATE: this explores what is possible, and not what a release does.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from classify import DELTA, load
from threadpoolctl import threadpool_limits

from dpgmm_dist.artifact.receipt import budget_rho
from dpgmm_dist.privacy.noise import noise_source

FOLDS = 10
TAIL = 0.52
"""Standard deviations beyond the mean, toward the other label, at which a tail begins."""
Rule = tuple[np.ndarray, float]
"""Normal (d,) and offset of a linear rule for two labels."""
Method = Callable[[np.ndarray, np.ndarray, np.random.Generator], Rule]
"""Fits a rule to rows (n, d) and labels (n,)."""


class Noise:
    """Gaussian noise on sums of rows whose norm is at most 1, for a share of the budget."""

    def __init__(self, rho: float, rng: np.random.Generator) -> None:
        self.rho, self.rng = rho, rng

    def vector(self, exact: np.ndarray, share: float) -> np.ndarray:
        """A sum with noise; a share of 0 adds none."""
        scale = 1 / math.sqrt(2 * self.rho * share) if share else 0.0
        return exact + scale * self.rng.standard_normal(exact.shape)

    def matrix(self, exact: np.ndarray, share: float) -> np.ndarray:
        """A second moment with noise that is isotropic in the Frobenius norm."""
        noise = np.triu(self.vector(np.zeros_like(exact), share)) / math.sqrt(2)
        return (
            exact
            + np.triu(noise, 1)
            + np.triu(noise, 1).T
            + math.sqrt(2) * np.diag(noise.diagonal())
        )


def rule(means: np.ndarray, covariance: np.ndarray, counts: np.ndarray) -> Rule:
    """The linear discriminant of two labels, from means (2, d), covariance and counts (2, 1)."""
    normal = np.linalg.solve(covariance, means[1] - means[0])
    return normal, float(np.log(counts[1, 0] / counts[0, 0]) - (means[0] + means[1]) @ normal / 2)


def sums(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums (2, d) and counts (2, 1) of the rows of each label."""
    return np.stack([X[y == k].sum(axis=0) for k in (0, 1)]), np.bincount(y)[:, None].astype(float)


def eigenvectors(rho: float, q: int, for_means: float, for_second: float) -> Method:
    """The discriminant of a covariance with q free eigenvalues and the others equal.

    ``for_means`` and ``for_second`` are shares of the budget rho; 0 means exact.
    """

    def fit(X: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Rule:
        noise = Noise(rho, rng)
        total, counts = sums(X, y)
        centred = X - (total / counts)[y]
        values, vectors = np.linalg.eigh(noise.matrix(centred.T @ centred, for_second) / len(X))
        other = max(float(values[: len(values) - q].mean()), 1e-6)
        values, vectors = (
            np.maximum(values[len(values) - q :], other),
            vectors[:, len(vectors) - q :],
        )
        covariance = other * np.eye(len(vectors)) + (vectors * (values - other)) @ vectors.T
        return rule(noise.vector(total, for_means) / counts, covariance, counts)

    return fit


def products(rho: float, count: int, shares: list[float]) -> Method:
    """The discriminant in the Krylov space of q, S q, S S q, ..., with q the difference of means.

    The covariance S within that space is exact. ``shares`` are those of the means and of each
    further direction.
    """

    def fit(X: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Rule:
        noise = Noise(rho, rng)
        total, counts = sums(X, y)
        means = noise.vector(total, shares[0]) / counts
        centred, directions = X - means[y], [means[1] - means[0]]
        for share in shares[1:count]:
            signs = np.sign(centred @ directions[-1])
            product = noise.vector(centred.T @ signs, share)
            basis, _ = np.linalg.qr(np.array(directions).T)
            directions.append(product - basis @ (basis.T @ product))
        basis, _ = np.linalg.qr(np.array(directions).T)
        coordinates = centred @ basis
        normal, offset = rule(means @ basis, coordinates.T @ coordinates / len(X), counts)
        return basis @ normal, offset

    return fit


def with_tails(rho: float, shares: list[float]) -> Method:
    """A Krylov direction with equal weight for both labels, then a direction from the tails.

    The moments within the space of these directions are exact. ``shares`` are those of the means,
    of the Krylov direction and, if there are three, of the tails.
    """

    def moments(X: np.ndarray, y: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        coordinates = X @ basis
        means = np.stack([coordinates[y == k].mean(axis=0) for k in (0, 1)])
        return means, np.stack([np.cov(coordinates[y == k].T) for k in (0, 1)])

    def fit(X: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Rule:
        noise = Noise(rho, rng)
        total, counts = sums(X, y)
        means = noise.vector(total, shares[0]) / counts
        centred, q = X - means[y], means[1] - means[0]
        weight = np.sqrt(counts.min() / counts)[y, 0]
        product = noise.vector(centred.T @ (weight * np.sign(centred @ q)), shares[1])
        basis, _ = np.linalg.qr(np.array([q, product]).T)
        if len(shares) > 2:
            label_means, covariances = moments(X, y, basis)
            normal = np.linalg.solve(covariances.mean(axis=0), label_means[1] - label_means[0])
            sign = np.where(y == 1, -1.0, 1.0)
            deviation = np.sqrt(np.einsum("i,kij,j->k", normal, covariances, normal))[y]
            in_tail = sign * (((X @ basis) - label_means[y]) @ normal) > TAIL * deviation
            direction = noise.vector(-(sign * in_tail) @ (X - means.mean(axis=0)), shares[2])
            basis, _ = np.linalg.qr(np.column_stack([basis, direction]))
        label_means, covariances = moments(X, y, basis)
        pooled = np.tensordot(counts[:, 0] / len(X), covariances, 1)
        normal, offset = rule(label_means, pooled, counts)
        return basis @ normal, offset

    return fit


def accuracy(X: np.ndarray, y: np.ndarray, method: Method, seed: int) -> float:
    """Share of rows that a rule fitted without their fold labels correctly."""
    correct = 0
    folds = np.array_split(np.random.default_rng(0).permutation(len(X)), FOLDS)
    for fold, test in enumerate(folds):
        train = np.setdiff1d(np.arange(len(X)), test)
        normal, offset = method(X[train], y[train], np.random.default_rng([seed, fold]))
        correct += int(((X[test] @ normal + offset > 0) == y[test]).sum())
    return correct / len(X)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/data"))
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    X, y = load(args.data / "spamassassin_minilm384", "train")
    X = X.astype(np.float64)
    rho = budget_rho(args.epsilon, DELTA, noise_source("auto").accounting)
    lines: list[tuple[str, Method]] = []
    for q in (0, 3, 10, 30, 100, 300):
        lines += [
            (f"{q} eigenvectors, exact", eigenvectors(rho, q, 0.0, 0.0)),
            (f"{q} eigenvectors, exact; noisy means 0.5", eigenvectors(rho, q, 0.5, 0.0)),
            (f"{q} eigenvectors, noisy 0.5; noisy means 0.5", eigenvectors(rho, q, 0.5, 0.5)),
        ]
    lines += [(f"{q} directions, exact", products(rho, q, [0.0] * q)) for q in (1, 2, 3, 4, 8)]
    allocations = ([0.95], [0.2, 0.75], [0.35, 0.6], [0.5, 0.45], [0.6, 0.35], [0.7, 0.25])
    allocations += ([0.5, 0.25, 0.2], [0.4, 0.4, 0.15], [0.3, 0.35, 0.3])
    lines += [
        (f"{len(shares)} directions, noisy {shares}", products(rho, len(shares), shares))
        for shares in allocations
    ]
    lines += [
        (f"weighted product and tails {shares}", with_tails(rho, shares))
        for shares in ([0.0] * 2, [0.6, 0.35], [0.0] * 3, [0.37, 0.35, 0.2])
    ]
    with threadpool_limits(1):
        for name, method in lines:
            percent = [100 * accuracy(X, y, method, seed) for seed in range(args.seeds)]
            print(f"{name:50} {np.mean(percent):6.2f} worst {min(percent):6.2f}", flush=True)


if __name__ == "__main__":
    main()
