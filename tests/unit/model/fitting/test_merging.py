"""Parts of a component become one again, and what is merged keeps its moments."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from dpgmm_dist.model.fitting.em import Fit
from dpgmm_dist.model.fitting.merging import components_in_pass, divergence, merge_down_to
from dpgmm_dist.model.mixture import Mixture

P = 20
CUT = 0.6
"""Half the distance of the two parts of a component of unit variance."""


def parts_and_whole() -> tuple[Mixture, Mixture]:
    """Two small components that overlap, and a large one: in two parts, and whole."""
    rng = np.random.default_rng(4)
    axes = np.linalg.qr(rng.standard_normal((P, P)))[0]
    small = np.where(np.arange(P) < P // 2, 0.5, 1.6)
    covariances = np.stack([np.diag(small), (axes * small) @ axes.T, np.eye(P)])
    means = np.zeros((3, P))
    means[2, 0] = 4.0
    whole = Mixture(np.array([0.06, 0.06, 0.88]), means, covariances)
    cut = np.zeros(P)
    cut[1] = CUT
    part = np.eye(P) - np.outer(cut, cut)
    parts = Mixture(
        np.array([0.06, 0.06, 0.44, 0.44]),
        np.concatenate([means[:2], [means[2] - cut, means[2] + cut]]),
        np.concatenate([covariances[:2], [part, part]]),
    )
    return parts, whole


def moments(mixture: Mixture, label: int) -> tuple[npt.NDArray, npt.NDArray, npt.NDArray]:
    """Weight, sum and second moment of a label."""
    of_label = mixture.label_index == label
    weights, means = mixture.weights[of_label], mixture.means[of_label]
    second = (
        np.einsum("k,kij->ij", weights, mixture.covariances[of_label]) + (means.T * weights) @ means
    )
    return weights.sum(), weights @ means, second


def test_parts_of_a_component_are_merged_before_small_ones_that_differ() -> None:
    parts, whole = parts_and_whole()
    found = merge_down_to(parts, [3])
    # The bound that needs no draws would have merged the small ones.
    fit = Fit(parts.weights, parts.means, parts.covariances, 0.0)
    assert divergence(fit, 0, 1) < divergence(fit, 2, 3)
    np.testing.assert_allclose(found.weights, whole.weights)
    np.testing.assert_allclose(found.means, whole.means, atol=1e-12)
    np.testing.assert_allclose(found.covariances, whole.covariances, atol=1e-12)


def test_what_noise_has_left_of_a_component_is_dropped() -> None:
    """It lies far out, so a merger would widen another one: true components would go first."""
    _, whole = parts_and_whole()
    far = np.full((1, P), 40.0)
    weights = np.append(0.999 * whole.weights, 0.001)
    covariances = np.concatenate([whole.covariances, 0.05 * np.eye(P)[None]])
    found = merge_down_to(Mixture(weights, np.concatenate([whole.means, far]), covariances), [3])
    np.testing.assert_allclose(found.weights, whole.weights)
    np.testing.assert_array_equal(found.means, whole.means)
    np.testing.assert_array_equal(found.covariances, whole.covariances)


@pytest.mark.parametrize("numbers", [(1, 3), (4, 1), (2, 2)])
def test_each_label_keeps_its_moments_and_no_more_components_than_wanted(
    numbers: tuple[int, int],
) -> None:
    rng = np.random.default_rng(7)
    half = rng.standard_normal((9, 3, 3)) / 3
    mixture = Mixture(
        rng.dirichlet(np.full(9, 5.0)),
        rng.standard_normal((9, 3)),
        np.eye(3) + half @ half.transpose(0, 2, 1),
        np.repeat([0, 1], [4, 5]),
        ("a", "b"),
    )
    found = merge_down_to(mixture, numbers)
    assert tuple(np.bincount(found.label_index)) == numbers
    assert found.label_values == mixture.label_values
    for label in (0, 1):
        for merged, other in zip(moments(found, label), moments(mixture, label), strict=True):
            np.testing.assert_allclose(merged, other)


def test_few_enough_components_stay_as_they_are() -> None:
    parts, _ = parts_and_whole()
    assert merge_down_to(parts, [4]) is parts
    assert merge_down_to(parts, [9]) is parts


def test_a_merger_of_equals_costs_nothing() -> None:
    fit = Fit(np.full(2, 0.5), np.zeros((2, 3)), np.stack([np.eye(3)] * 2), 0.0)
    assert divergence(fit, 0, 1) == pytest.approx(0.0, abs=1e-12)
    apart = Fit(fit.weights, np.array([[-1.0, 0, 0], [1.0, 0, 0]]), fit.covariances, 0.0)
    assert divergence(apart, 0, 1) == pytest.approx(np.log(2.0))


def test_ever_fewer_are_asked_about_and_at_last_those_wanted() -> None:
    steps = [f"components.{index}" for index in range(1, 6)]
    numbers = [components_in_pass(step, [10, 1])[0] for step in steps]
    assert numbers == [30, 30, 20, 14, 10]
    assert components_in_pass("components.5", [10, 1]) == [10, 1]
