"""The second moment that all labels share."""

from __future__ import annotations

import numpy as np
import pytest

from dpgmm_dist.model.problem import Problem
from dpgmm_dist.model.spectrum import Spectrum
from dpgmm_dist.model.stages.centre import Location
from dpgmm_dist.model.stages.pooled_covariance import PooledCovariance, PooledLook, measure, refined

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
    place = Location(float(len(X)), 1.0, X.mean(axis=0), 1e-3, spread, 0.02)
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


def test_it_is_the_sphere_of_the_trace_where_noise_drowns() -> None:
    spheres = [measured(3, 1e-6, seed=seed)[0].variances for seed in range(10)]
    assert sum(np.ptp(variances) < 1e-12 * variances.max() for variances in spheres) >= 8


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("rho", [1e-6, 1.0])
def test_any_answers_give_positive_variances_within_the_bound(
    labels: int, kind: str, rho: float
) -> None:
    found, _ = measured(labels, rho, change=HOSTILE[kind])
    assert found.variances.min() > 0
    assert found.variances.sum() <= 1 + 1e-9
    assert np.isfinite(found.noisy).all()
    assert np.allclose(found.axes.T @ found.axes, np.eye(D))


def known(variances: np.ndarray, gain: float, scale: float = 0.01) -> PooledCovariance:
    """A first look with these variances, along axes that are turned at random."""
    d = len(variances)
    axes, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((d, d)))
    noisy = (axes * variances) @ axes.T
    return PooledCovariance(Spectrum(axes, variances, gain, 0.0), noisy, scale, 0.02, variances)


def second_moment(seed: int) -> np.ndarray:
    half = np.random.default_rng(seed).standard_normal((D, 3 * D)) / np.sqrt(3 * D)
    return half @ half.T


def test_without_noise_a_whitened_look_is_the_steep_covariance() -> None:
    first = known(np.geomspace(1e-4, 0.3, D), gain=10.0 * D)
    # What the first look was off by, in its own axes and units.
    second = second_moment(5)
    moved = 0.05 * np.outer(np.ones(D), np.ones(D))
    look = PooledLook(float(np.trace(second + moved)), 1e-9, second + moved, 0.0)
    found = refined(first, look, moved, 1e12, whitened=True)
    root = first.axes * np.sqrt(first.variances)
    truth = root @ second @ root.T
    model = (found.axes * found.variances) @ found.axes.T
    unroot = np.linalg.inv(root)
    assert np.allclose(unroot @ model @ unroot.T, second, atol=1e-6)
    assert np.allclose(found.noisy, truth)
    assert np.allclose(found.axes.T @ found.axes, np.eye(D))
    assert (np.diff(found.variances) >= 0).all()
    # What is left to lose is the noise in the whitened frame.
    assert np.allclose(found.measured_variances, np.linalg.eigvalsh(second), atol=1e-6)


@pytest.mark.parametrize("scale", [0.002, 0.02, 0.5])
def test_a_round_look_is_averaged_with_the_first_by_precision(scale: float) -> None:
    first = known(np.linspace(0.5, 1.5, D) * 0.1, gain=0.0, scale=0.002)
    second = second_moment(6)
    second *= D / np.trace(second)
    look = PooledLook(float(D), 0.3, second, scale)
    found = refined(first, look, np.zeros((D, D)), 1e12, whitened=False)
    unit, left = float(first.variances.mean()), 1.0
    if scale == 0.5:  # its own trace is too noisy: what clipping leaves is by its radius
        left = 0.9**2
    known_by = np.array([first.scale**-2, (unit * scale / left) ** -2])
    again = first.axes @ (unit * second / left) @ first.axes.T
    expected = (known_by[0] * first.noisy + known_by[1] * again) / known_by.sum()
    assert np.allclose(found.noisy, expected)
    assert found.scale == pytest.approx(known_by.sum() ** -0.5)
    traces = np.array([first.trace_noise, unit * look.trace_noise]) ** -2.0
    total = np.array([first.variances.sum(), unit * D])
    assert found.variances.sum() == pytest.approx(float(traces @ total / traces.sum()))
    assert found.trace_noise == pytest.approx(traces.sum() ** -0.5)
    assert np.array_equal(found.measured_variances, found.variances)


@pytest.mark.parametrize("noise", [1e-9, 0.25 * D, 1e9])
def test_a_mean_squared_length_alone_changes_the_size_by_what_its_noise_leaves(
    noise: float,
) -> None:
    first = known(np.geomspace(1e-4, 0.3, D), gain=10.0 * D)
    moved = 0.05 * np.eye(D)
    look = PooledLook(1.25 * D, noise, None, 0.0)
    found = refined(first, look, moved, 1e12, whitened=True)
    grown = found.variances / first.variances
    known_before = (0.25**2 + (0.02 / first.variances.sum()) ** 2) ** 0.5
    kept = known_before**2 / (known_before**2 + (noise / D) ** 2)
    assert np.allclose(grown, 1 + 0.2 * kept)
    assert np.allclose(found.noisy, grown[0] * first.noisy)
    assert np.array_equal(found.axes, first.axes)
    assert found.scale == pytest.approx(grown[0] * first.scale)


def test_the_size_of_a_sphere_is_known_by_its_trace() -> None:
    first = known(np.full(D, 0.1), gain=0.0)
    look = PooledLook(2.0 * D, 0.25 * D, None, 0.0)
    found = refined(first, look, np.zeros((D, D)), 1e12, whitened=True)
    assert found.variances.sum() == pytest.approx(first.variances.sum(), rel=0.02)


@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize("scale", [1e-6, 0.1, 1e3])
@pytest.mark.parametrize("size", [-1e6, 0.0, 1e6])
def test_any_second_look_leaves_positive_variances(
    whitened: bool, scale: float, size: float
) -> None:
    first = known(np.geomspace(1e-4, 0.3, D), gain=10.0 * D)
    noise = np.random.default_rng(1).standard_normal((D, D)) * scale
    for second in (size * np.eye(D) + noise + noise.T, None):
        look = PooledLook(size, scale, second, scale)
        found = refined(first, look, 0.1 * np.eye(D), 100.0, whitened)
        assert np.isfinite(found.variances).all()
        assert found.variances.min() > 0
        assert np.allclose(found.axes.T @ found.axes, np.eye(D))
