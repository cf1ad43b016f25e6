"""Split-and-merge moves lead out of an optimum with one component over two true ones."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dpgmm_dist.model.fitting import initialisation, split_merge
from dpgmm_dist.model.fitting.em import Fit
from dpgmm_dist.model.fitting.fixed_point import CellMeasure
from dpgmm_dist.model.fitting.measured_moments import MeasuredMoments, statistics
from dpgmm_dist.model.fitting.merging import merged
from dpgmm_dist.model.fitting.moment_fit import fit_moments
from dpgmm_dist.model.fitting.search_budget import SearchBudget
from dpgmm_dist.model.fitting.seeding import kmeans_centres
from dpgmm_dist.model.fitting.split_merge import (
    Contributions,
    SplitMergeMove,
    apply_move,
    ranked_moves,
    split_and_merge,
)

Floats = npt.NDArray[np.float64]

P, ROWS = 3, 60_000
SEARCH_BUDGET = SearchBudget(steps=4, draws=40_000, slope_draws=20_000)


@cache
def truth() -> Fit:
    rng = np.random.default_rng(8)
    means = np.array([[-4.0, 0, 0], [0, 4.0, 0], [3.0, -2.0, 1.2], [3.0, -2.0, -1.2]])
    half = rng.standard_normal((4, P, P)) / 3
    covariances = np.eye(P) / 3 + half @ half.transpose(0, 2, 1)
    return Fit(np.array([0.3, 0.2, 0.3, 0.2]), means, covariances, 0.0)


def wrong() -> Fit:
    """The last two as one, the first cut in two."""
    right = truth()
    pair, axis = merged(right, 2, 3), np.array([0.0, 0.4, 0.0])
    return Fit(
        np.array([0.15, 0.15, 0.2, 0.5]),
        np.stack([right.means[0] - axis, right.means[0] + axis, right.means[1], pair.means[0]]),
        np.stack([*right.covariances[[0, 0, 1]], pair.covariances[0]]),
        0.0,
    )


@cache
def rows() -> Floats:
    rng = np.random.default_rng(1)
    right = truth()
    pick = rng.choice(4, ROWS, p=right.weights)
    roots = np.linalg.cholesky(right.covariances)
    return right.means[pick] + (roots[pick] @ rng.standard_normal((ROWS, P, 1)))[:, :, 0]


@cache
def cells_pass(sigma: float = 3e-3) -> MeasuredMoments:
    """What 24 cells measure of the rows, second moments too, with noise on every number."""
    centres, _ = kmeans_centres(rows()[:5_000], 24, 3)
    empty = np.zeros((24, 1 + P + P * (P + 1) // 2))
    maps = np.broadcast_to(np.eye(P), (24, P, P))
    measured = MeasuredMoments(centres, maps, 4.0, empty, empty + sigma, ROWS)
    exact = statistics(measured, rows(), np.full(ROWS, 1 / ROWS))
    noise = np.random.default_rng(2).standard_normal(exact.shape)
    return replace(measured, values=exact + sigma * noise)


def fitted_to_cells(fit: Fit, sigma: float = 3e-3) -> tuple[Fit, float]:
    found = fit_moments(fit, [cells_pass(sigma)], 5, SEARCH_BUDGET, errors=False)
    return found.fit, found.reduced_chi_squared


def apart(fit: Fit) -> float:
    """How far the nearest component is from each true mean, at the most."""
    return float(np.linalg.norm(truth().means[:, None] - fit.means, axis=2).min(axis=1).max())


@pytest.mark.parametrize("sigma", [1e-3, 3e-3])
def test_moves_leave_a_wrong_optimum_where_the_fit_alone_does_not(sigma: float) -> None:
    def moved() -> tuple[Fit, float]:
        def fit_again(fit: Fit) -> tuple[Fit, float]:
            return fitted_to_cells(fit, sigma)

        answers, draws = [cells_pass(sigma)], rows()[:10_000]
        return split_and_merge(stuck, chi_squared, answers, draws, 5, fit_again)

    stuck, chi_squared = fitted_to_cells(wrong(), sigma)
    assert apart(stuck) > 1.0 and chi_squared > split_merge.GOOD_FIT
    fit, least = moved()
    assert apart(fit) < 0.1 and least < split_merge.GOOD_FIT
    assert np.array_equal(moved()[0].means, fit.means)  # seeds are public and fixed


def test_the_initial_mixture_is_found_by_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initialisation, "fits_of_draws", lambda *_: [wrong()])
    monkeypatch.setattr(initialisation, "clustered_fits", lambda *_, **__: [])

    assert apart(first_fit(True)[0]) < 0.1
    stuck, _, chi_squared = first_fit(False)
    assert apart(stuck) > 1.0
    assert np.isinf(chi_squared)  # it seemed no mixture of four


def test_another_fit_is_tried_even_where_the_likeliest_agrees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []

    def counted(fit: Fit, *rest: Any, **named: Any) -> Any:
        tried.append(fit)
        return fit_moments(fit, *rest, **named)

    monkeypatch.setattr(initialisation, "fit_moments", counted)
    candidates = [replace(truth(), score=2.0), replace(truth(), score=1.0)]
    monkeypatch.setattr(initialisation, "fits_of_draws", lambda *_: [])
    monkeypatch.setattr(initialisation, "clustered_fits", lambda *_, **__: candidates)
    fit, _, chi_squared = first_fit(False)
    assert apart(fit) < 0.1 and chi_squared < split_merge.GOOD_FIT
    assert len(tried) == 2


def first_fit(with_moves: bool) -> tuple[Fit, float, float]:
    measured = cells_pass()
    rest = np.full(len(measured.centres), 0.01), measured.values[:, 0] * ROWS
    measure = CellMeasure(measured.centres, measured.values[:, 0], measured.centres, *rest)
    return initialisation._fits(rows()[:10_000], 4, [measure], [measured], 0, 1.0, with_moves)[0]


def test_the_merged_component_is_split_and_the_halves_are_merged() -> None:
    parts = Contributions.of(wrong(), [cells_pass()], 5)
    costs = parts.removal_costs()
    assert parts.excess_chi_squared().argmax() == 3
    assert min(costs, key=lambda removed: costs[removed]) == (0, 1)
    assert ranked_moves(wrong(), [cells_pass()], 5)[0] == SplitMergeMove(3, (0, 1))


def test_what_parts_contribute_adds_up_to_the_answers() -> None:
    parts = Contributions.of(truth(), [cells_pass()], 5)
    off = (parts.of_components.sum(axis=0) - parts.target) / parts.scale
    assert 0.8 < float((off**2).mean()) < 1.2


def test_a_second_pass_and_one_without_second_moments_count_too() -> None:
    measured = cells_pass()
    plain = replace(measured, values=measured.values[:, : 1 + P], sigma=measured.sigma[:, : 1 + P])
    together = Contributions.of(wrong(), [plain, measured], 5)
    alone = Contributions.of(wrong(), [measured], 5).excess_chi_squared()
    excess = together.excess_chi_squared()
    assert together.of_components.shape == (4, plain.values.size + measured.values.size)
    assert excess.argmax() == 3 and excess[3] > alone[3]


@pytest.mark.parametrize("chi_squared", [0.9, np.inf, np.nan])
def test_right_fits_and_those_without_a_number_stay_as_they_are(chi_squared: float) -> None:
    def never(fit: Fit) -> tuple[Fit, float]:
        raise AssertionError("nothing was to be tried")

    fit, same = split_and_merge(wrong(), chi_squared, [cells_pass()], rows()[:10_000], 5, never)
    assert np.array_equal(fit.means, wrong().means)
    assert same is chi_squared


def test_a_move_that_fits_no_better_is_not_kept() -> None:
    tried = []

    def worse(fit: Fit) -> tuple[Fit, float]:
        tried.append(fit)
        return fit, 1.5

    start = wrong()
    fit, chi_squared = split_and_merge(start, 1.2, [cells_pass()], rows()[:10_000], 5, worse)
    assert fit is start and chi_squared == 1.2
    assert 1 <= len(tried) <= 5


def test_where_the_rows_seem_no_mixture_only_one_move_is_tried() -> None:
    tried = []

    def worse(fit: Fit) -> tuple[Fit, float]:
        tried.append(fit)
        return fit, 9.0

    split_and_merge(wrong(), split_merge.POOR_FIT, [cells_pass()], rows()[:10_000], 5, worse)
    assert len(tried) == 1


def test_moves_keep_the_number_of_components_and_the_total_weight() -> None:
    for move in (SplitMergeMove(3, (0, 1)), SplitMergeMove(3, (0,)), SplitMergeMove(0, (1, 2))):
        fit = apply_move(wrong(), move, rows()[:10_000], 5)
        assert fit is not None
        assert fit.means.shape == (4, P)
        assert fit.weights.sum() == pytest.approx(1.0)
        assert np.linalg.eigvalsh(fit.covariances).min() > 0
    assert apply_move(wrong(), SplitMergeMove(3, (0,)), rows()[:20], 5) is None


def test_a_merged_component_has_the_moments_of_both() -> None:
    right = truth()
    pair = merged(right, 0, 2)
    share = right.weights[[0, 2]] / right.weights[[0, 2]].sum()
    raw = right.covariances + right.means[:, :, None] * right.means[:, None, :]
    mean = share @ right.means[[0, 2]]
    assert pair.weights == pytest.approx(right.weights[[0, 2]].sum())
    assert np.allclose(pair.means[0], mean)
    expected = np.einsum("k,kij->ij", share, raw[[0, 2]]) - np.outer(mean, mean)
    assert np.allclose(pair.covariances[0], expected)
