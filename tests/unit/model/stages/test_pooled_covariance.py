"""The second moment that all labels share."""

from __future__ import annotations

import numpy as np
import pytest

from dpgmm_dist.model.problem import Problem
from dpgmm_dist.model.stages.centre import Location
from dpgmm_dist.model.stages.pooled_covariance import PooledCovariance, measure

from .asking import HOSTILE, Change, ask_of, rows

D = 8


def measured(
    labels: int, rho: float, noise: float = 1.0, seed: int = 0, change: Change | None = None
) -> tuple[PooledCovariance, np.ndarray]:
    """The stage about the true means, and the rows less these."""
    X, y = rows(4000, labels, D)
    problem = Problem(D, 1.0, 1.0, tuple(range(labels)) if labels > 1 else ())
    means = np.stack([X[y == label].mean(axis=0) for label in range(labels)])
    apart = X - means[y]
    spread = float((apart**2).sum(axis=1).mean())
    place = Location(float(len(X)), 1.0, X.mean(axis=0), 1e-3, spread)
    ask = ask_of(X, y, seed, noise, change)
    return measure(problem, ask, place, means, spread, rho), apart


@pytest.mark.parametrize("labels", [1, 3])
def test_without_noise_it_is_nearly_the_rows_own(labels: int) -> None:
    found, apart = measured(labels, 1.0, noise=0.0)
    truth = apart.T @ apart / len(apart)
    model = (found.axes * found.variances) @ found.axes.T
    assert np.trace(model) == pytest.approx(np.trace(truth), rel=0.1)
    # Clipping takes a little of the trace, and more of the widest direction.
    assert np.linalg.norm(model - truth) < 0.3 * np.linalg.norm(truth)
    assert np.allclose(found.shift, 0, atol=0.02)


def test_it_is_the_sphere_of_the_trace_where_noise_drowns() -> None:
    spheres = [measured(3, 1e-6, seed=seed)[0].variances for seed in range(10)]
    assert sum(np.ptp(each) < 1e-12 * each.max() for each in spheres) >= 8


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("rho", [1e-6, 1.0])
def test_any_answers_give_positive_variances_within_the_bound(
    labels: int, kind: str, rho: float
) -> None:
    found, _ = measured(labels, rho, change=HOSTILE[kind])
    assert found.variances.min() > 0
    assert found.variances.sum() <= 1 + 1e-9
    assert np.isfinite(found.shift).all()
    assert np.allclose(found.axes.T @ found.axes, np.eye(D))


def test_the_mean_of_one_label_is_looked_at_again() -> None:
    """Asked about a centre that is off, it finds most of the way back and no variance in it."""
    X, y = rows(4000, 1, D)
    off = 0.05 * np.eye(D)[3]
    spread = float(((X - X.mean(axis=0)) ** 2).sum(axis=1).mean())
    place = Location(4000.0, 1.0, X.mean(axis=0) + off, 0.05, spread)
    ask = ask_of(X, y, 1)
    found = measure(Problem(D, 1.0, 1.0), ask, place, place.centre[None], spread, 1.0)
    assert np.linalg.norm(found.shift + off) < 0.5 * np.linalg.norm(off)
    assert found.variances.sum() == pytest.approx(spread, rel=0.1)
