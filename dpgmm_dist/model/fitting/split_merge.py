"""Split-and-merge moves, for a moment fit that ended in a wrong local optimum.

Such a fit mostly has one component over two true ones, and one too many elsewhere: two over a
single true one, or one over nothing. No small step leads from there to the right optimum. Answers
are linear in the components, so the answers alone tell both: the component whose cells have the
largest residuals is split, and the component or pair is removed or merged that adds least to
chi-squared. Only the best of these moves are fitted in full, and a move is kept if it lowers
chi-squared. All of it is post-processing, with public seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.fitting.em import Fit, clustered_fits, log_components
from dpgmm_dist.model.fitting.measured_moments import MeasuredMoments, squares, statistics
from dpgmm_dist.model.fitting.merging import divergence, merged, subset
from dpgmm_dist.model.shrinkage import whitener

Floats = npt.NDArray[np.float64]
FitMoments = Callable[[Fit], tuple[Fit, float]]
"""A fit to all answers that begins at a mixture, and its reduced chi-squared."""

GOOD_FIT = 1.0
"""Reduced chi-squared up to which a fit stays as it is. After as many steps as the first fits take,
right optima of known mixtures were at .88 to 1, wrong ones above 1.02."""
POOR_FIT = 3.0
"""Reduced chi-squared from which rows mostly do not follow the mixture and no move helps (flights
have 7 and more): only the best move is tried, since with little noise wrong optima are as bad."""
_MOST_MOVES = 5
"""Most moves that are tried."""
_MOVES_PER_FIT = 3
"""Moves tried from one fit before it is given up."""
_SPLITS = 3
"""Components that may be split, those of the largest excess of chi-squared."""
_NEAREST = 3
"""Pairs that may be merged for each component, the nearest."""
_DRAWS = 6_000
"""Draws of each Gaussian whose answers are computed."""
_FEWEST = 8
"""Least number of draws per coordinate that a split begins with."""
_REMOVAL_WEIGHT = 0.25
"""Share of a removal's chi-squared that counts: the fit that follows makes up for most of it."""


@dataclass(frozen=True)
class SplitMergeMove:
    """A component to split, and one to drop or two to merge."""

    split: int
    removed: tuple[int, ...]


def split_and_merge(
    fit: Fit,
    chi_squared: float,
    answers: Sequence[MeasuredMoments],
    draws: Floats,
    seed: int,
    fit_moments: FitMoments,
) -> tuple[Fit, float]:
    """The best fit that moves from this one lead to, and its reduced chi-squared.

    Both are those given where no move helps.

    Parameters
    ----------
    chi_squared : reduced chi-squared of ``fit``
    answers : what ``fit`` was fitted to
    draws : (n, p) of the density that the cells describe, where splits begin
    fit_moments : fits a moved mixture to the answers
    """
    moves_left = _MOST_MOVES
    while moves_left and GOOD_FIT < chi_squared < np.inf and len(fit.weights) > 1:
        best = fit, chi_squared
        for move in ranked_moves(fit, answers, seed)[: moves_left if chi_squared < POOR_FIT else 1]:
            moves_left -= 1
            moved = apply_move(fit, move, draws, seed)
            found = best if moved is None else fit_moments(moved)
            best = min(best, found, key=lambda candidate: candidate[1])
            if best[1] <= GOOD_FIT:
                break
        if not best[1] < chi_squared:
            break
        fit, chi_squared = best
    return fit, chi_squared


def ranked_moves(fit: Fit, answers: Sequence[MeasuredMoments], seed: int) -> list[SplitMergeMove]:
    """The moves to try, the most promising first."""
    contributions = Contributions.of(fit, answers, seed)
    excess, costs = contributions.excess_chi_squared(), contributions.removal_costs()
    cheapest_first = sorted(costs, key=lambda removed: costs[removed])
    moves = [
        (excess[k] - _REMOVAL_WEIGHT * costs[removed], SplitMergeMove(int(k), removed))
        for k in np.argsort(-excess, kind="stable")[:_SPLITS]
        for removed in [group for group in cheapest_first if k not in group][:_MOVES_PER_FIT]
    ]
    moves.sort(key=lambda scored: -scored[0])
    return [move for _, move in moves[:_MOVES_PER_FIT]]


def apply_move(fit: Fit, move: SplitMergeMove, draws: Floats, seed: int) -> Fit | None:
    """The mixture after a move; None where too few draws show how to split."""
    joint = log_components(draws, fit.means, fit.covariances) + np.log(fit.weights)
    members = draws[joint.argmax(axis=1) == move.split]
    if len(members) < _FEWEST * draws.shape[1]:
        return None
    halves = clustered_fits(members, 2, 3, seed, steps=20)[0]
    weights = halves.weights / halves.weights.sum() * fit.weights[move.split]
    parts = [
        subset(fit, [k for k in range(len(fit.weights)) if k not in (move.split, *move.removed)]),
        replace(halves, weights=weights),
    ]
    if len(move.removed) == 2:
        parts.append(merged(fit, *move.removed))
    weights = np.concatenate([part.weights for part in parts])
    return Fit(
        weights / weights.sum(),
        np.concatenate([part.means for part in parts]),
        np.concatenate([part.covariances for part in parts]),
        fit.score,
    )


@dataclass(frozen=True, eq=False)
class Contributions:
    """What each component of a fit contributes to all A answers, over all passes."""

    fit: Fit
    answers: Sequence[MeasuredMoments]
    normal: Floats
    """(n, p) standard draws, common to all Gaussians."""
    of_components: Floats
    """(K, A)"""
    target: Floats
    """(A,) what was measured."""
    scale: Floats
    """(A,) standard deviation of noise and sampling."""

    @classmethod
    def of(cls, fit: Fit, answers: Sequence[MeasuredMoments], seed: int) -> Contributions:
        """Of a fit."""
        rng = np.random.Generator(np.random.Philox(seed))
        half = rng.standard_normal((_DRAWS // 2, fit.means.shape[1]))
        half = np.concatenate([half, -half])
        normal = half @ np.linalg.inv(np.linalg.cholesky(half.T @ half / len(half))).T
        total = len(normal) * len(fit.weights)
        contributions, variance = [], 0.0
        for k in range(len(fit.weights)):
            x = _points(fit, k, normal)
            contributions.append(fit.weights[k] * _answers(x, answers))
            variance = variance + fit.weights[k] * _squares(x, answers)
        rows = np.concatenate([np.full(part.values.size, max(part.rows, 1.0)) for part in answers])
        noise = np.concatenate([part.sigma.ravel() for part in answers])
        scale = np.sqrt(noise**2 + variance * (1 / rows + 1 / total))
        target = np.concatenate([part.values.ravel() for part in answers])
        return cls(fit, answers, normal, np.stack(contributions), target, scale)

    def excess_chi_squared(self) -> Floats:
        """(K,) chi-squared above one for each answer, shared out by the components' cells."""
        predicted = self.of_components.sum(axis=0)
        excess = ((self.target - predicted) / self.scale) ** 2 - 1
        width = np.concatenate(
            [np.full(len(part.values), part.values.shape[1]) for part in self.answers]
        )
        first = np.cumsum(width) - width
        share = np.maximum(self.of_components[:, first], 0.0)
        share /= np.maximum(share.sum(axis=0), 1e-300)
        return np.asarray(share @ np.add.reduceat(excess, first))

    def removal_costs(self) -> dict[tuple[int, ...], float]:
        """What chi-squared grows by without a component, or with a pair as one Gaussian."""
        whole, weights = self.of_components.sum(axis=0), self.fit.weights
        before = self._chi_squared(whole)
        out: dict[tuple[int, ...], float] = {}
        for k in range(len(weights)):
            rest = weights.sum() / max(weights.sum() - weights[k], 1e-12)
            out[(k,)] = self._chi_squared(rest * (whole - self.of_components[k])) - before
        for i, j in self._nearest_pairs():
            pair = merged(self.fit, i, j)
            as_one = pair.weights[0] * _answers(_points(pair, 0, self.normal), self.answers)
            without = whole - self.of_components[[i, j]].sum(axis=0)
            out[(i, j)] = self._chi_squared(without + as_one) - before
        return out

    def _chi_squared(self, predicted: Floats) -> float:
        residual = (self.target - predicted) / self.scale
        return float(residual @ residual)

    def _nearest_pairs(self) -> list[tuple[int, int]]:
        """The nearest pairs by the divergence of either from what they would be merged into."""
        pairs = combinations(range(len(self.fit.weights)), 2)
        apart = {pair: divergence(self.fit, *pair) for pair in pairs}
        nearest_first = sorted(apart, key=lambda pair: apart[pair])
        return nearest_first[: _NEAREST * len(self.fit.weights)]


def _points(fit: Fit, k: int, normal: Floats) -> Floats:
    """Draws (n, p) of one component."""
    return np.asarray(fit.means[k] + normal @ np.linalg.inv(whitener(fit.covariances[k])))


def _answers(x: Floats, answers: Sequence[MeasuredMoments]) -> Floats:
    """(A,) what passes would measure of draws, as a share of them."""
    mass = np.full(len(x), 1 / len(x))
    return np.concatenate([statistics(part, x, mass).ravel() for part in answers])


def _squares(x: Floats, answers: Sequence[MeasuredMoments]) -> Floats:
    """(A,) mean square of what a draw adds to each answer."""
    mass = np.full(len(x), 1 / len(x))
    return np.concatenate([squares(part, x, mass).ravel() for part in answers])
