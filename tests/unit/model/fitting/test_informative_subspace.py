"""Directions are kept in which rows are not one Gaussian; along the others nothing is lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from dpgmm_dist.model.fitting.informative_subspace import FEWEST, MOST, informative_subspace
from dpgmm_dist.model.fitting.measured_moments import MeasuredMoments, statistics
from dpgmm_dist.model.fitting.seeding import kmeans_centres
from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.model.pass_plan import Latent
from dpgmm_dist.model.problem import Centre
from dpgmm_dist.model.shrinkage import whitener

Floats = npt.NDArray[np.float64]
P, ROWS = 20, 40_000


def scale() -> Floats:
    """A covariance that is not the identity, so that forgetting to whiten would show."""
    root = np.random.default_rng(8).standard_normal((P, P))
    return np.asarray(np.eye(P) + 0.3 * root @ root.T / P)


def rows_of(apart: float, seed: int) -> tuple[Floats, Floats]:
    """Rows of three equal components whose means differ along two directions; those directions."""
    rng = np.random.default_rng(seed)
    ways = np.linalg.qr(rng.standard_normal((P, 2)))[0]
    corners = apart * np.array([[1.0, 0], [-0.5, 0.87], [-0.5, -0.87]])
    x = rng.standard_normal((ROWS, P)) @ np.linalg.cholesky(scale()).T
    return x + (corners @ ways.T)[rng.integers(3, size=ROWS)], ways


def centre_of(x: Floats) -> Centre:
    mean, covariance = x.mean(axis=0)[None], np.cov(x, rowvar=False)
    rows = np.array([float(len(x))])
    return Centre(Latent(P), rows, 1.0, mean, covariance[None], covariance, 0.0)


def cells_pass(x: Floats, centre: Centre, sigma: float) -> MeasuredMoments:
    """A cells pass over whitened rows, seeded from draws of the one Gaussian."""
    white = whitener(centre.pooled)
    rng = np.random.default_rng(3)
    centres, _ = kmeans_centres(rng.standard_normal((5000, P)) + centre.means @ white, 40, 1)
    width = np.zeros((len(centres), 1 + P))
    maps = np.repeat(np.eye(P)[None], len(centres), axis=0)
    measured = MeasuredMoments(centres, maps, 7.0, width, width + sigma, float(len(x)))
    exact = statistics(measured, x @ white, np.full(len(x), 1 / len(x)))
    return replace(measured, values=exact + sigma * rng.standard_normal(width.shape))


def inside(ways: Floats, basis: Floats) -> float:
    """Smallest cosine between the plane of ``ways`` and the kept directions."""
    return float(np.linalg.svd(ways.T @ basis, compute_uv=False).min())


def test_the_plane_in_which_means_differ_is_kept() -> None:
    x, ways = rows_of(5.0, 0)
    centre = centre_of(x)
    subspace = informative_subspace(centre, [cells_pass(x, centre, 1e-4)], 8)
    q = subspace.basis.shape[1]
    assert FEWEST <= q <= 8
    np.testing.assert_allclose(subspace.basis.T @ subspace.basis, np.eye(q), atol=1e-12)
    # Compared where the noise is alike in all directions: in whitened coordinates.
    white = whitener(centre.pooled)
    found = np.linalg.qr(np.linalg.solve(white, subspace.basis))[0]
    assert inside(np.linalg.qr(white @ ways)[0], found) > 0.95


def test_of_one_gaussian_only_the_fewest_are_kept() -> None:
    x, _ = rows_of(0.0, 1)
    centre = centre_of(x)
    assert informative_subspace(centre, [cells_pass(x, centre, 1e-4)], 8).basis.shape[1] == FEWEST


def test_no_more_are_kept_than_the_means_of_so_many_components_explain() -> None:
    rng = np.random.default_rng(6)
    means = 4 * np.linalg.qr(rng.standard_normal((P, 10)))[0].T
    x = rng.standard_normal((ROWS, P)) + means[rng.integers(10, size=ROWS)]
    centre = centre_of(x)
    measured = cells_pass(x, centre, 1e-4)

    def kept(components: int, labels: int = 1) -> int:
        labelled = replace(
            centre, means=np.repeat(centre.means, labels, axis=0),
            covariances=np.repeat(centre.covariances, labels, axis=0),
        )  # fmt: skip
        return informative_subspace(labelled, [measured] * labels, components).basis.shape[1]

    assert 9 <= kept(20) <= MOST
    assert kept(5) == 4 + 2  # as many as means differ along, and two to spare
    assert kept(3) == FEWEST
    assert kept(3, labels=2) == 2 * 2 + 2


def test_noise_does_not_pass_for_structure() -> None:
    x, _ = rows_of(3.5, 2)
    centre = centre_of(x)
    assert informative_subspace(centre, [cells_pass(x, centre, 1.0)], 8).basis.shape[1] == FEWEST


def test_one_cell_is_enough() -> None:
    x, _ = rows_of(3.5, 0)
    centre = centre_of(x)
    measured = cells_pass(x, centre, 1.0)
    single = replace(
        measured, centres=measured.centres[:1], maps=measured.maps[:1], values=measured.values[:1],
        sigma=measured.sigma[:1],
    )  # fmt: skip
    basis = informative_subspace(centre, [single], 8).basis
    np.testing.assert_allclose(basis.T @ basis, np.eye(FEWEST), atol=1e-12)


def test_lifting_keeps_the_marginal_and_the_regression_on_it() -> None:
    x, _ = rows_of(3.5, 0)
    centre = centre_of(x)
    subspace = informative_subspace(centre, [cells_pass(x, centre, 1e-4)], 8)
    q = subspace.basis.shape[1]
    rng = np.random.default_rng(5)
    small = Mixture(
        np.array([0.4, 0.6]),
        subspace.centre.means + rng.standard_normal((2, q)),
        np.stack([0.5 * subspace.centre.pooled, 0.8 * subspace.centre.pooled]),
        np.zeros(2, dtype=np.int64),
        (),
    )
    whole = subspace.lift(small)
    back = subspace.project(whole)
    np.testing.assert_allclose(back.means, small.means, atol=1e-9)
    np.testing.assert_allclose(back.covariances, small.covariances, atol=1e-9)
    assert np.linalg.eigvalsh(whole.covariances).min() > 0
    # Given the kept coordinates the others vary as the one Gaussian says.
    b = subspace.basis
    for covariance in whole.covariances:
        gain = covariance @ b @ np.linalg.inv(b.T @ covariance @ b)
        expected = centre.pooled @ b @ np.linalg.inv(b.T @ centre.pooled @ b)
        np.testing.assert_allclose(gain, expected, atol=1e-8)
    assert whole.means @ b == pytest.approx(small.means)
