"""The baselines of classify.py: other methods for the same rows and the same budget.

Each method takes a :class:`Task` and returns its accuracy on the test rows, or rows to train the
network on. k-means, the discriminant and least squares go through the kernel and the privacy gate.
The noisy gradients are a floating-point simulation of the mechanism. Parameter perturbation follows
the literature (arXiv 2506.03467): it adds noise to a mixture that is fitted without privacy, with
the sensitivities of moments for fixed assignments. Its guarantee is weaker than that of a release.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dpgmm_dist.model.allocation import kl_curvatures, split
from dpgmm_dist.model.fitting.first_moments import find_centre
from dpgmm_dist.model.pass_plan import BlockPlan, Latent, PassPlan
from dpgmm_dist.model.problem import Ask, Centre, Problem
from dpgmm_dist.model.shrinkage import floor_eigenvalues

COMPONENTS = 5
"""Components, or k-means centres, of each label."""
_LLOYD_ROUNDS = 4
_STEPS = 300
_RATE = 40.0
Labelled = tuple[np.ndarray, np.ndarray]
"""Rows (n, d) and labels (n,)."""


@dataclass(frozen=True, eq=False)
class Task:
    """Rows of norm at most 1, a way to ask privately, and a budget."""

    ask: Ask
    X: np.ndarray
    y: np.ndarray
    test_X: np.ndarray
    test_y: np.ndarray
    rho: float
    seed: int

    @property
    def labels(self) -> int:
        """Number of labels."""
        return int(self.y.max()) + 1


def kmeans(task: Task) -> Labelled:
    """Noisy k-means in each label. The rows are its centres, repeated as often as counted."""
    d, count = task.X.shape[1], COMPONENTS * task.labels
    label = np.repeat(np.arange(task.labels), COMPONENTS)
    rng = np.random.default_rng(task.seed)
    centres = rng.standard_normal((count, d)) * 0.3 / math.sqrt(d)
    groups, rho = np.arange(count), task.rho / _LLOYD_ROUNDS
    for step in range(_LLOYD_ROUNDS):
        plan = PassPlan(
            f"kmeans.{step}",
            label,
            centres,
            1.0 + float(np.linalg.norm(centres, axis=1).max()),
            (BlockPlan("count", groups, 0.1 * rho), BlockPlan("sum", groups, 0.9 * rho)),
            rule="nearest",
        )
        answer = task.ask(plan, Latent(d))
        counts = answer.block("count")
        mass = np.maximum(counts.values, max(counts.sigma, 1.0))
        centres = answer.centres + answer.block("sum").values / mass[:, None]
        length = np.linalg.norm(centres, axis=1, keepdims=True)
        centres = centres / np.maximum(length, 1.0)
    repeats = np.maximum(np.rint(counts.values), 1).astype(int)
    return np.repeat(centres, repeats, axis=0), np.repeat(label, repeats)


def _moments(task: Task) -> Centre:
    """Noisy label counts and means, and the pooled covariance, for the whole budget."""
    problem = Problem(task.X.shape[1], 1.0, task.rho, tuple(range(task.labels)), covariance="tied")
    return find_centre(
        problem, task.ask, None, {"moments.sum": 0.3 * task.rho, "moments.second": 0.7 * task.rho}
    )


def discriminant(task: Task) -> float:
    """Linear discriminant from noisy label means and the noisy pooled covariance."""
    centre = _moments(task)
    normal = np.linalg.solve(centre.pooled, centre.means.T)
    offset = np.log(centre.rows / centre.rows.sum())
    offset = offset - 0.5 * np.einsum("ld,dl->l", centre.means, normal)
    return _accuracy(task, task.test_X @ normal + offset)


def least_squares(task: Task) -> float:
    """Least squares on label indicators, from the same moments."""
    centre = _moments(task)
    share = centre.rows / centre.rows.sum()
    mean = share @ centre.means
    deviations = centre.means - mean
    total = centre.pooled + deviations.T @ (deviations * share[:, None])
    normal = np.linalg.solve(total, (deviations * share[:, None]).T)
    return _accuracy(task, (task.test_X - mean) @ normal + share)


def logistic(task: Task) -> float:
    """Logistic regression by noisy full gradients, clipped for each row; equal rho in each step."""
    ones = np.ones((len(task.X), 1), dtype=np.float64)
    rows = np.hstack([task.X.astype(np.float64), ones]) / math.sqrt(2)
    onehot = np.eye(task.labels)[task.y]
    rng = np.random.default_rng(task.seed)
    weights = np.zeros((rows.shape[1], task.labels))
    total = np.zeros_like(weights)
    # The gradient of a row is (p - y) times the row. Its norm, at most sqrt(2), is clipped to 1.
    sigma = 1.0 / math.sqrt(2 * task.rho / _STEPS)
    velocity = np.zeros_like(weights)
    for step in range(_STEPS):
        error = _softmax(rows @ weights) - onehot
        norm = np.linalg.norm(error, axis=1) * np.linalg.norm(rows, axis=1)
        error *= np.minimum(1.0, 1.0 / np.maximum(norm, 1e-12))[:, None]
        gradient = rows.T @ error + sigma * rng.standard_normal(weights.shape)
        velocity = 0.9 * velocity - _RATE * gradient / len(rows)
        weights = weights + velocity
        if step >= _STEPS // 2:
            total += weights
    test = np.hstack([task.test_X, np.ones((len(task.test_X), 1))]) / math.sqrt(2)
    return _accuracy(task, test @ total)


def perturbed(task: Task, allocation: str) -> Labelled:
    """Rows from a mixture that is fitted without privacy and gets noise on its parameters."""
    d = task.X.shape[1]
    rng = np.random.default_rng(task.seed)
    # The distance of a row to a mean within the unit ball is at most 2.
    sensitivities = [1.0, 2.0, 4.0]
    shares = split(task.rho, sensitivities, kl_curvatures(d), allocation)
    scales = [s / math.sqrt(2 * r) for s, r in zip(sensitivities, shares, strict=True)]
    parts: list[Labelled] = []
    for label, (weights, means, covariances, n) in enumerate(_fits(task.X, task.y)):
        counts = np.maximum(weights * n + scales[0] * rng.standard_normal(len(weights)), 1.0)
        for k, count in enumerate(counts):
            mean = means[k] + scales[1] / count * rng.standard_normal(d)
            mean /= max(1.0, float(np.linalg.norm(mean)))
            noise = rng.standard_normal((d, d)) * scales[2] / count / math.sqrt(2)
            noise = np.triu(noise) + np.triu(noise, 1).T + np.diag(np.diagonal(noise)) * 0.414
            covariance = floor_eigenvalues(covariances[k] + noise, 1e-6, 4.0)
            size = round(count)
            samples = rng.standard_normal((size, d)) @ np.linalg.cholesky(covariance).T
            parts.append((mean + samples, np.full(size, label)))
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def unperturbed(X: np.ndarray, y: np.ndarray) -> Labelled:
    """Rows from a mixture that is fitted without privacy and gets no noise."""
    rng = np.random.default_rng(0)
    parts: list[Labelled] = []
    for label, (weights, means, covariances, n) in enumerate(_fits(X, y)):
        for k, size in enumerate(rng.multinomial(n, weights / weights.sum())):
            factor = np.linalg.cholesky(covariances[k])
            samples = rng.standard_normal((size, X.shape[1])) @ factor.T
            parts.append((means[k] + samples, np.full(size, label)))
    return np.concatenate([x for x, _ in parts]), np.concatenate([label for _, label in parts])


_CACHE: dict[tuple[int, int], list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]] = {}


def _fits(X: np.ndarray, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]:
    """Mixtures with full covariances of each label by scikit-learn. Not private; fitted once."""
    from sklearn.mixture import GaussianMixture

    key = (id(X), len(X))
    if key not in _CACHE:
        _CACHE.clear()
        fits = []
        for label in range(int(y.max()) + 1):
            rows = X[y == label].astype(np.float64)
            model = GaussianMixture(COMPONENTS, reg_covar=1e-5, max_iter=30, random_state=label)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(rows)
            fits.append((model.weights_, model.means_, model.covariances_, len(rows)))
        _CACHE[key] = fits
    return _CACHE[key]


def _softmax(scores: np.ndarray) -> np.ndarray:
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def _accuracy(task: Task, scores: np.ndarray) -> float:
    return float(np.mean(scores.argmax(axis=1) == task.test_y))


PRIVATE: dict[str, Callable[[Task], float | Labelled]] = {
    "k-means centres": kmeans,
    "linear discriminant": discriminant,
    "least squares": least_squares,
    "logistic regression, noisy gradients": logistic,
    "perturbed parameters, KL split": lambda task: perturbed(task, "kl"),
    "perturbed parameters, even split": lambda task: perturbed(task, "even"),
}
