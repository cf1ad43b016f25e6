"""The second look at labels, and what covariances of their own it leaves them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dpgmm_dist.model.covariances import SharedCovariances
from dpgmm_dist.model.pass_plan import Latent, ObservedBlock, PassPlan
from dpgmm_dist.model.problem import Problem
from dpgmm_dist.model.spectrum import Spectrum
from dpgmm_dist.model.stages.centre import Location
from dpgmm_dist.model.stages.label_covariances import covariances, departures
from dpgmm_dist.model.stages.label_means import LabelMeans
from dpgmm_dist.model.stages.pooled_covariance import PooledCovariance, refined
from dpgmm_dist.model.stages.second_look import Budget, SecondLook, measure

from .asking import HOSTILE, Change, ask_of

D, LABELS = 6, 2
SCALE = np.linspace(0.05, 0.2, D)
"""Standard deviations of the rows along the axes, increasing."""


def look(
    rho: float,
    noise: float = 1.0,
    change: Change | None = None,
    axes: int = D,
    off: float = 0.02,
    again: float = 0.0,
    whitened: bool = True,
) -> tuple[SecondLook, PooledCovariance, np.ndarray, np.ndarray]:
    """A second look at two labels of which one is wider, from means that are off."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 3000)
    truth = np.array([[0.1] * D, [-0.1] * D])
    X = truth[y] + rng.standard_normal((6000, D)) * SCALE * np.where(y == 0, 1.2, 0.75)[:, None]
    place = Location(6000.0, 1.0, np.zeros(D), 1e-3, 0.1, 0.02)
    labels = LabelMeans(np.array([3000.0, 3000.0]), 1.0, truth + off, np.full(2, off), 1.0)
    spectrum = Spectrum(np.eye(D), SCALE**2, 10.0 * D, 0.0)
    pooled = PooledCovariance(spectrum, np.diag(SCALE**2), 0.002, 0.002, SCALE**2)
    problem = Problem(D, 1.0, 1.0, (0, 1))
    found = measure(
        problem, ask_of(X, y, 2, noise, change), place, labels, pooled, truth + off,
        np.full((2, D), off**2),
        Budget(again / 10, again, rho, rho if axes else 0.0, axes, whitened),
    )  # fmt: skip
    return found, pooled, truth, np.stack([np.cov(X[y == label].T) for label in (0, 1)])


def released(found: SecondLook, first: PooledCovariance, whitened: bool = True) -> np.ndarray:
    pooled = first
    if found.pooled is not None:
        moved = np.einsum("li,lj->ij", found.moved, found.moved) / LABELS
        pooled = refined(first, found.pooled, moved, 6000.0, whitened)
    weights = np.array([0.5, 0.5])
    full, axes = covariances(first, pooled, weights, found, Latent(D), in_full=True)
    shared, same = covariances(first, pooled, weights, found, Latent(D), in_full=False)
    assert isinstance(shared, SharedCovariances)
    assert axes == same == shared.blocks.shape[1]
    assert np.allclose(shared.full(), full, rtol=1e-9, atol=1e-12 * np.abs(full).max())
    return full


def test_without_noise_means_and_covariances_are_the_rows_own() -> None:
    found, pooled, truth, of_rows = look(1.0, noise=0.0)
    assert np.abs(found.means - truth).max() < 0.01 < 0.02  # they were off by that
    assert (found.variances < 0.02**2).all()
    sizes = [np.trace(covariance) for covariance in released(found, pooled)]
    ratio = np.trace(of_rows[0]) / np.trace(of_rows[1])
    # Clipping at about the pooled size takes more of the wider one; a part is released of the rest.
    assert 1 + 0.15 * (ratio - 1) < sizes[0] / sizes[1] < ratio


def test_noise_leaves_what_was_known_before() -> None:
    found, pooled, truth, _ = look(1e-11)
    assert np.allclose(found.means, truth + 0.02, atol=1e-3)
    assert np.allclose(found.variances, 0.02**2, rtol=0.05)
    shared = np.diag(pooled.variances)
    for covariance in released(found, pooled):
        # The size alone may differ, by as much as labels' sizes usually do.
        scale = np.trace(covariance) / np.trace(shared)
        assert 0.2 <= scale <= 3
        assert np.allclose(covariance, scale * shared, atol=0.2 * shared.max())


def test_without_a_budget_for_second_moments_sums_alone_are_asked() -> None:
    asked: list[str] = []

    def heard(_: PassPlan, block: ObservedBlock) -> np.ndarray:
        asked.append(block.statistic)
        return block.values

    found, pooled, truth, _ = look(1e-11, axes=0, change=heard)
    assert asked == ["sum"]
    assert np.allclose(found.means, truth + 0.02, atol=1e-3)
    assert not found.seconds.size
    assert found.pooled is None
    assert np.allclose(released(found, pooled), np.diag(pooled.variances))


def test_axes_that_were_not_asked_about_stay_shared() -> None:
    found, pooled, _, _ = look(1.0, noise=0.0, axes=2)
    assert set(found.second_axes.tolist()) == {D - 2, D - 1}
    for covariance in released(found, pooled):
        assert np.allclose(np.diagonal(covariance)[: D - 2], pooled.variances[: D - 2])


@pytest.mark.parametrize("seed", range(5))
def test_what_all_labels_share_is_no_difference(seed: int) -> None:
    """Labels that depart from the pooled covariance alike keep the same one."""
    q, labels, noise = 20, 8, 0.1
    draws = np.random.default_rng(seed).standard_normal((labels, q, q)) * noise
    noisy = (draws + draws.transpose(0, 2, 1)) / 2
    spread = np.geomspace(0.3, 3, q)
    found, *_ = look(1.0, noise=0.0)
    alike = replace(
        found,
        seconds=np.diag(spread * q / spread.sum()) + noisy,
        second_noise=np.full(labels, noise),
        counts=np.full(labels, 3000.0),
    )
    weights = np.full(labels, 1 / labels)
    assert departures(weights, alike, np.eye(q)) is None
    turned = [np.diag(np.roll(spread, 5 * label) * q / spread.sum()) for label in range(labels)]
    apart = replace(alike, seconds=np.stack(turned) + noisy)
    assert departures(weights, apart, np.eye(q)) is not None


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("rho", [1e-6, 1.0])
@pytest.mark.parametrize("axes", [0, 2, D])
@pytest.mark.parametrize(("again", "whitened"), [(0.0, True), (1.0, True), (1.0, False)])
def test_any_answers_leave_valid_covariances(
    kind: str, rho: float, axes: int, again: float, whitened: bool
) -> None:
    change = HOSTILE[kind]
    found, pooled, _, _ = look(rho, 1.0, change, axes, again=again * rho, whitened=whitened)
    assert np.isfinite(found.means).all()
    assert (found.variances >= 0).all()
    for covariance in released(found, pooled, whitened):
        assert np.linalg.eigvalsh(covariance).min() > 0


def test_noise_on_a_direction_without_variance_is_no_difference() -> None:
    """Rows vary a twentieth as much along the last axis as when they were asked about."""
    deviations = np.array([1.0] * (D - 1) + [0.05])
    rng = np.random.default_rng(1)
    shape = (LABELS, D, D)
    noise = rng.standard_normal(shape) * 0.02
    wide = np.where(np.arange(LABELS) == 0, 1.4, 0.6)[:, None, None]
    seconds = wide * np.diag(deviations**2) + noise + np.transpose(noise, (0, 2, 1))
    found = SecondLook(
        np.ones(D), np.zeros((LABELS, D)), np.zeros((LABELS, D)), np.zeros((LABELS, D)),
        np.full(LABELS, 3000.0), None, np.arange(D), seconds, np.full(LABELS, 0.04),
    )  # fmt: skip
    changes = departures(np.full(LABELS, 0.5), found, np.diag(deviations))
    assert changes is not None
    assert np.allclose(changes[:, -1], 0.0) and np.allclose(changes[:, :, -1], 0.0)
    others = np.einsum("lii->li", changes)[:, :-1]
    assert (others[0] > 0.1).all() and (others[1] < -0.1).all()
