"""A mixture is corrected by what a pass about it measured, where the rows may be such a mixture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dpgmm_dist.model.fitting.em import Fit, log_components
from dpgmm_dist.model.fitting.fixed_point import Moments, correct_by_components, moments_of

P = 3
RADIUS = P**0.5 + 2
ROWS = 200_000
TRUTH = Fit(
    weights=np.array([0.4, 0.6]),
    means=np.array([[-0.8, 0.0, 0.0], [0.8, 0.0, 0.0]]),
    covariances=np.stack([np.diag([1.0, 0.5, 1.0]), np.diag([1.0, 1.5, 1.0])]),
    score=0.0,
)
ASKED = replace(TRUTH, means=0.7 * TRUTH.means, weights=np.array([0.5, 0.5]))


def em_step(asked: Fit) -> Moments:
    """The moments of rows of the truth by the responsibilities of another mixture."""
    rng = np.random.default_rng(3)
    of = rng.choice(2, ROWS, p=TRUTH.weights)
    deviations = np.sqrt(np.diagonal(TRUTH.covariances, axis1=1, axis2=2))
    rows = TRUTH.means[of] + rng.standard_normal((ROWS, P)) * deviations[of]
    joint = log_components(rows, asked.means, asked.covariances) + np.log(asked.weights)
    share = np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)) / ROWS
    second = np.einsum("nk,ni,nj->kij", share, rows, rows)
    return share.sum(axis=0), share.T @ rows, second


@pytest.fixture(scope="module")
def measured() -> Moments:
    return em_step(ASKED)


def matched(measured: Moments, stop: float, most: float) -> Fit:
    return correct_by_components(ASKED, measured, RADIUS, (stop, most), 40, 20_000, 1)


def from_truth(fit: Fit) -> float:
    return float(np.linalg.norm(fit.means - TRUTH.means))


def test_corrections_go_on_where_an_em_step_ends(measured: Moments) -> None:
    plain = matched(measured, np.inf, np.inf)
    np.testing.assert_allclose(moments_of(plain)[0], measured[0], rtol=1e-9)
    assert from_truth(matched(measured, 1e-7, np.inf)) < 0.5 * from_truth(plain)


def test_rows_far_from_any_such_mixture_keep_the_em_step(measured: Moments) -> None:
    plain = matched(measured, np.inf, np.inf)
    kept = matched(measured, 1e-5, 2e-5)
    np.testing.assert_array_equal(kept.means, plain.means)
    np.testing.assert_array_equal(kept.covariances, plain.covariances)
