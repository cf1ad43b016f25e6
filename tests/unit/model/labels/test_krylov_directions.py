"""Labelled releases of few rows in high dimension: covariances where they tell labels apart."""

from __future__ import annotations

import numpy as np
import pytest

from dpgmm_dist.model.fitting.first_moments import find_centre
from dpgmm_dist.model.label_budget import KRYLOV, KRYLOV_TWO_LABELS, adapted, needs_krylov
from dpgmm_dist.model.labels import krylov_directions as krylov
from dpgmm_dist.model.problem import Fitted, Problem
from dpgmm_dist.model.schedule import CENTRE_SHARE
from dpgmm_dist.model.strategy import fit, joint_schedule

from .test_tied_covariances import ask_of

P = 80


def rows(n: int, labels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows, labels, means and the covariance they share, far from round where means differ."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.standard_normal((P, P)))
    variance = np.r_[0.01, 0.006, np.full(P - 2, 0.0008)]
    covariance = (basis * variance) @ basis.T
    means = (
        0.02 * rng.standard_normal((labels, P)) + 0.05 * basis[:, 0] * np.arange(labels)[:, None]
    )
    y = np.sort(rng.integers(0, labels, n))
    X = means[y] + rng.standard_normal((n, P)) @ np.linalg.cholesky(covariance).T
    return X, y, means, covariance


def released(n: int, labels: int, rho: float, with_tail: bool = True) -> tuple[Fitted, float]:
    """What this path makes of the rows, with shares of rho fixed, and what it cost."""
    X, y, _, _ = rows(n, labels)
    costs: list[float] = []
    ask = ask_of(X, y, costs)
    problem = Problem(P, 1.0, rho, tuple(range(labels)), components="auto")
    shares = KRYLOV_TWO_LABELS if labels == 2 and with_tail else KRYLOV
    budget = {name: share * rho for name, share in shares.items()}
    moments = {name: cost for name, cost in budget.items() if name != "moments.label"}
    centre = find_centre(problem, ask, None, moments)
    return krylov.fit(problem, ask, centre, budget), sum(costs)


def test_the_direction_that_tells_labels_apart_is_found() -> None:
    """Where noise is little: the discriminant of the mixture is that of the truth."""
    _, _, means, covariance = rows(20_000, 2)
    truth = np.linalg.solve(covariance, means[1] - means[0])

    def error(normal: np.ndarray) -> float:
        """Relative loss of separation (Fisher's ratio) by this normal in place of the best."""
        apart = means[1] - means[0]
        ratio = (normal @ apart) ** 2 / (normal @ covariance @ normal)
        return 1 - ratio / (apart @ truth)

    def error_of(fitted: Fitted) -> float:
        mixture = fitted.mixture
        pooled = np.einsum("k,kij->ij", mixture.weights, mixture.covariances)
        return error(np.linalg.solve(pooled, mixture.means[1] - mixture.means[0]))

    product_alone = error_of(released(20_000, 2, 1e3, with_tail=False)[0])
    assert product_alone < 0.1
    # Tails find what of it a product leaves.
    assert error_of(released(20_000, 2, 1e3)[0]) < min(0.5 * product_alone, 0.05)
    # It is the covariance that does it.
    assert error(means[1] - means[0]) > 0.3


@pytest.mark.parametrize("labels", [2, 3, 12])
def test_covariances_are_the_rows_own_in_the_directions(labels: int) -> None:
    X, y, _, _ = rows(20_000, labels)
    fitted, cost = released(20_000, labels, 1e3)
    assert cost <= 1e3
    mixture = fitted.mixture
    for label, covariance in enumerate(mixture.covariances):
        values, vectors = np.linalg.eigh(covariance)
        truth = np.cov(X[y == label].T)
        # The widest direction of the model is about as wide in the rows: clipping takes some.
        assert vectors[:, -1] @ truth @ vectors[:, -1] == pytest.approx(values[-1], rel=0.35)
        assert np.trace(covariance) == pytest.approx(np.trace(truth), rel=0.2)
        assert np.allclose(mixture.means[label], X[y == label].mean(axis=0), atol=2e-3)


def test_it_is_taken_where_second_moments_drown() -> None:
    X, y, _, _ = rows(500, 2)
    problem = Problem(P, 1.0, 0.02, (0, 1), components="auto")
    counts = np.array([250.0, 250.0])
    assert needs_krylov(problem, counts)
    budget = {name: share * problem.rho for name, share in joint_schedule(problem).items()}
    after = adapted(problem, budget, counts)
    assert sum(after.values()) == pytest.approx((1 - CENTRE_SHARE) * problem.rho)
    assert after["moments.sum"] == budget["moments.sum"]
    costs: list[float] = []
    fitted = fit(problem, ask_of(X, y, costs))
    assert sum(costs) <= problem.rho * (1 + 1e-9)
    assert fitted.notes["components_per_label"] == [1, 1]
    # More rows, more budget, or components that were asked for: the other path.
    assert not needs_krylov(problem, counts * 1e2)
    assert not needs_krylov(Problem(P, 1.0, 0.02, (0, 1), components=3), counts)


def test_labels_at_one_place() -> None:
    X = np.full((400, P), 0.9 / np.sqrt(P))
    y = np.repeat([0, 1], 200)
    problem = Problem(P, 1.0, 0.02, (0, 1, 2), components="auto")
    mixture = fit(problem, ask_of(X, y, [])).mixture
    assert np.linalg.eigvalsh(mixture.covariances).min() > 0
    assert np.isfinite(mixture.means).all()
