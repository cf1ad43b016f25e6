"""EM by products of matrices does what its definition says; k-means ends where Lloyd's does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from dpgmm_dist.model.fitting.em import (
    Fit,
    Points,
    expectation_maximisation,
    fits_of_draws,
    log_components,
)
from dpgmm_dist.model.fitting.seeding import kmeans_centres, nearest

Floats = npt.NDArray[np.float64]


def mixture(p: int, components: int, rng: np.random.Generator) -> Fit:
    root = rng.standard_normal((components, p, p))
    covariances = root @ root.transpose(0, 2, 1) / p + 0.3 * np.eye(p)
    weights = rng.dirichlet(np.full(components, 5.0))
    return Fit(weights, 2 * rng.standard_normal((components, p)), covariances, -np.inf)


def draws(fit: Fit, n: int, rng: np.random.Generator) -> Floats:
    pick = rng.choice(len(fit.weights), n, p=fit.weights)
    factor = np.linalg.cholesky(fit.covariances)
    z = rng.standard_normal((n, fit.means.shape[1]))
    return np.asarray(fit.means[pick] + (factor[pick] @ z[:, :, None])[:, :, 0])


def plain_step(x: Floats, fit: Fit, ridge: Floats) -> Fit:
    """One step as textbooks have it (Bishop 2006, section 9.2.2), with a ridge."""
    joint = np.stack(
        [
            w * multivariate_normal(m, c).pdf(x)
            for w, m, c in zip(fit.weights, fit.means, fit.covariances, strict=True)
        ],
        axis=1,
    )
    share = joint / joint.sum(axis=1, keepdims=True)
    mass = share.sum(axis=0)
    means = share.T @ x / mass[:, None]
    covariances = np.stack(
        [((x - m) * s[:, None]).T @ (x - m) for m, s in zip(means, share.T, strict=True)]
    )
    score = float(np.log(joint.sum(axis=1)).mean())
    return Fit(mass / len(x), means, covariances / mass[:, None, None] + ridge, score)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(0, 999), st.booleans())
def test_a_step_of_several_restarts_is_each_ones_own(
    p: int, components: int, restarts: int, seed: int, far: bool
) -> None:
    rng = np.random.default_rng(seed)
    truth = mixture(p, components, rng)
    x = draws(truth, 400, rng) + (100.0 if far else 0.0)
    points = Points.of(x)
    starts = [mixture(p, components, rng) for _ in range(restarts)]
    found = expectation_maximisation(points, starts, 1)
    for start, fit in zip(starts, found, strict=True):
        expected = plain_step(x - x.mean(axis=0), start, points.ridge)
        assert fit.score == pytest.approx(expected.score, rel=1e-9)
        # The floor on weights acts only where a component has lost its draws.
        if expected.weights.min() > 1e-3:
            np.testing.assert_allclose(fit.weights, expected.weights, rtol=1e-7)
            np.testing.assert_allclose(fit.means, expected.means, rtol=1e-6, atol=1e-8)
            np.testing.assert_allclose(fit.covariances, expected.covariances, rtol=1e-6, atol=1e-8)


def test_restarts_together_end_where_each_ends_alone() -> None:
    rng = np.random.default_rng(4)
    points = Points.of(draws(mixture(3, 3, rng), 2000, rng))
    starts = [mixture(3, 3, rng) for _ in range(5)]
    for start, fit in zip(starts, expectation_maximisation(points, starts, 40), strict=True):
        (alone,) = expectation_maximisation(points, [start], 40)
        np.testing.assert_allclose(fit.means, alone.means, rtol=1e-6, atol=1e-6)
        assert fit.score == pytest.approx(alone.score, abs=1e-9)


def test_fits_are_in_the_draws_own_coordinates() -> None:
    rng = np.random.default_rng(1)
    truth = Fit(
        np.array([0.3, 0.7]), np.array([[40.0, 7], [50.0, 7]]), np.stack([np.eye(2)] * 2), 0
    )
    best = fits_of_draws(draws(truth, 4000, rng), 2, 6, 2, 1)[0]
    order = np.argsort(best.means[:, 0])
    np.testing.assert_allclose(best.means[order], truth.means, atol=0.2)
    np.testing.assert_allclose(best.weights[order], truth.weights, atol=0.05)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 999))
def test_log_density_is_scipys(p: int, components: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fit = mixture(p, components, rng)
    x = 3 * rng.standard_normal((50, p))
    expected = [
        multivariate_normal(m, c).logpdf(x) for m, c in zip(fit.means, fit.covariances, strict=True)
    ]
    found = log_components(x, fit.means, fit.covariances)
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 999), st.booleans())
def test_steps_in_float32_are_those_in_float64_to_three_digits(
    p: int, components: int, seed: int, far: bool
) -> None:
    rng = np.random.default_rng(seed)
    x = (draws(mixture(p, components, rng), 2000, rng) + (30.0 if far else 0.0)).astype(np.float32)
    start = mixture(p, components, rng)
    wide, narrow = (
        expectation_maximisation(Points.of(rows), [start], 5)[0]
        for rows in (x.astype(np.float64), x)
    )
    assert narrow.means.dtype == narrow.covariances.dtype == np.float64
    for name in ("weights", "means", "covariances", "score"):
        found, expected = getattr(narrow, name), getattr(wide, name)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4, err_msg=name)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.integers(2, 8), st.integers(0, 999))
def test_centres_of_k_means_are_the_means_of_their_draws(p: int, cells: int, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((300, p))
    centres, index = kmeans_centres(x, cells, seed)
    apart = ((x[:, None] - centres) ** 2).sum(axis=2)
    np.testing.assert_array_equal(index, apart.argmin(axis=1))
    np.testing.assert_array_equal(index, nearest(x, centres))
    within = apart[np.arange(len(x)), index].mean()
    assert within <= x.var(axis=0).sum()  # no worse than one centre


def test_k_means_finds_clusters_that_are_plain_to_see() -> None:
    rng = np.random.default_rng(0)
    middles = np.array([[0.0, 0], [10, 0], [0, 10]])
    x = np.repeat(middles, 100, axis=0) + 0.1 * rng.standard_normal((300, 2))
    found = min(
        (kmeans_centres(x, 3, seed)[0] for seed in range(10)),
        key=lambda c: float(((x - c[nearest(x, c)]) ** 2).sum()),
    )
    np.testing.assert_allclose(found[nearest(middles, found)], middles, atol=0.1)
    assert set(nearest(middles, found)) == {0, 1, 2}
