"""What limits a linear discriminant under noise, where rows are few and dimensions many.

    python jobs/benchmarks/discriminants.py [--data build/data] [--epsilon 1] [--seeds 3]

Ten-fold cross-validation on the training rows of spamassassin_minilm384. A floating-point
simulation of noise, NOT PRIVATE: it asks what could be done, not what a release does.
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
Rule = tuple[np.ndarray, float]
Method = Callable[[np.ndarray, np.ndarray, np.random.Generator], Rule]


class Noise:
    """Gaussian noise on sums of rows of norm at most 1, for a share of the budget."""

    def __init__(self, rho: float, rng: np.random.Generator) -> None:
        self.rho, self.rng = rho, rng

    def vector(self, exact: np.ndarray, share: float) -> np.ndarray:
        """A sum with noise; without, at a share of 0."""
        scale = 1 / math.sqrt(2 * self.rho * share) if share else 0.0
        return exact + scale * self.rng.standard_normal(exact.shape)

    def matrix(self, exact: np.ndarray, share: float) -> np.ndarray:
        """A second moment with noise isotropic in Frobenius norm."""
        noise = np.triu(self.vector(np.zeros_like(exact), share)) / math.sqrt(2)
        return (
            exact
            + np.triu(noise, 1)
            + np.triu(noise, 1).T
            + math.sqrt(2) * np.diag(noise.diagonal())
        )


def rule(means: np.ndarray, covariance: np.ndarray, counts: np.ndarray) -> Rule:
    """The linear discriminant of two labels."""
    normal = np.linalg.solve(covariance, means[1] - means[0])
    return normal, float(np.log(counts[1, 0] / counts[0, 0]) - (means[0] + means[1]) @ normal / 2)


def sums(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums (2, d) and counts (2, 1) of the labels."""
    return np.stack([X[y == k].sum(axis=0) for k in (0, 1)]), np.bincount(y)[:, None].astype(float)


def eigenvectors(rho: float, q: int, for_means: float, for_second: float) -> Method:
    """The covariance on its first q eigenvectors, round elsewhere."""

    def fit(X: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Rule:
        noise = Noise(rho, rng)
        total, counts = sums(X, y)
        apart = X - (total / counts)[y]
        values, vectors = np.linalg.eigh(noise.matrix(apart.T @ apart, for_second) / len(X))
        rest = max(float(values[: len(values) - q].mean()), 1e-6)
        values, vectors = (
            np.maximum(values[len(values) - q :], rest),
            vectors[:, len(vectors) - q :],
        )
        covariance = rest * np.eye(len(vectors)) + (vectors * (values - rest)) @ vectors.T
        return rule(noise.vector(total, for_means) / counts, covariance, counts)

    return fit


def products(rho: float, count: int, shares: list[float]) -> Method:
    """The discriminant within q, S q, S S q, ...: S in those directions is taken as exact."""

    def fit(X: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Rule:
        noise = Noise(rho, rng)
        total, counts = sums(X, y)
        means = noise.vector(total, shares[0]) / counts
        apart, directions = X - means[y], [means[1] - means[0]]
        for share in shares[1:count]:
            signed = np.sign(apart @ directions[-1])
            product = noise.vector(apart.T @ signed, share)
            basis, _ = np.linalg.qr(np.array(directions).T)
            directions.append(product - basis @ (basis.T @ product))
        basis, _ = np.linalg.qr(np.array(directions).T)
        inside = apart @ basis
        normal, offset = rule(means @ basis, inside.T @ inside / len(X), counts)
        return basis @ normal, offset

    return fit


def with_tails(rho: float, shares: list[float]) -> Method:
    """One product in which labels weigh alike, then tails; moments in the directions exact."""

    def inside(X: np.ndarray, y: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen = X @ basis
        means = np.stack([seen[y == k].mean(axis=0) for k in (0, 1)])
        return means, np.stack([np.cov(seen[y == k].T) for k in (0, 1)])

    def fit(X: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Rule:
        noise = Noise(rho, rng)
        total, counts = sums(X, y)
        means = noise.vector(total, shares[0]) / counts
        apart, q = X - means[y], means[1] - means[0]
        weight = np.sqrt(counts.min() / counts)[y, 0]
        product = noise.vector(apart.T @ (weight * np.sign(apart @ q)), shares[1])
        basis, _ = np.linalg.qr(np.array([q, product]).T)
        if len(shares) > 2:
            middles, covariances = inside(X, y, basis)
            normal = np.linalg.solve(covariances.mean(axis=0), middles[1] - middles[0])
            toward = np.where(y == 1, -1.0, 1.0)
            deviation = np.sqrt(np.einsum("i,kij,j->k", normal, covariances, normal))[y]
            tail = toward * (((X @ basis) - middles[y]) @ normal) > TAIL * deviation
            turn = noise.vector(-(toward * tail) @ (X - means.mean(axis=0)), shares[2])
            basis, _ = np.linalg.qr(np.column_stack([basis, turn]))
        middles, covariances = inside(X, y, basis)
        normal, offset = rule(middles, np.tensordot(counts[:, 0] / len(X), covariances, 1), counts)
        return basis @ normal, offset

    return fit


def accuracy(X: np.ndarray, y: np.ndarray, method: Method, seed: int) -> float:
    """Share of rows told rightly by rules fitted without their fold."""
    right = 0
    for fold, held in enumerate(
        np.array_split(np.random.default_rng(0).permutation(len(X)), FOLDS)
    ):
        kept = np.setdiff1d(np.arange(len(X)), held)
        normal, offset = method(X[kept], y[kept], np.random.default_rng([seed, fold]))
        right += int(((X[held] @ normal + offset > 0) == y[held]).sum())
    return right / len(X)


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
    splits = ([0.95], [0.2, 0.75], [0.35, 0.6], [0.5, 0.45], [0.6, 0.35], [0.7, 0.25])
    splits += ([0.5, 0.25, 0.2], [0.4, 0.4, 0.15], [0.3, 0.35, 0.3])
    lines += [(f"{len(s)} directions, noisy {s}", products(rho, len(s), s)) for s in splits]
    lines += [
        (f"weighted product and tails {s}", with_tails(rho, s))
        for s in ([0.0] * 2, [0.6, 0.35], [0.0] * 3, [0.37, 0.35, 0.2])
    ]
    with threadpool_limits(1):
        for name, method in lines:
            found = [100 * accuracy(X, y, method, seed) for seed in range(args.seeds)]
            print(f"{name:50} {np.mean(found):6.2f} worst {min(found):6.2f}", flush=True)


if __name__ == "__main__":
    main()
