"""Out of a wrong optimum: split the component to blame, and give up the one that is missed least.

A fit that ends wrong mostly has one component over two true ones, and somewhere another to spare:
two over a single true one, or one over nothing. No small step leads from there to the right place.
Answers are linear in the components, so both are told by the answers alone: the component whose
cells are explained worst, and what the fit would lose by each merger or omission. Only such a move
is tried whole, and kept if all answers are explained better. Post-processing; public seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.fitting.em import Fit, clustered_fits, log_components
from dpgmm_dist.model.fitting.measured_moments import Seen, squares, statistics
from dpgmm_dist.model.fitting.merging import divergence, merged, subset
from dpgmm_dist.model.shrinkage import whitener

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Explain = Callable[[Fit], tuple[Fit, float]]
"""A fit to all answers that begins at a mixture, and its squared residuals a number."""

RIGHT = 1.0
"""Squared residuals a number up to which a fit stays as it is. After as many steps as the first
fits take, right optima of known mixtures were at .88 to 1, wrong ones above 1.02."""
HOPELESS = 3.0
"""From here on the rows mostly are no such mixture, and moves in vain (flights have 7 and more):
only the most promising is tried. Where there is little noise wrong optima are as bad."""
_MOST = 5
"""Moves tried, at the most."""
_TRIED = 3
"""Moves tried from one fit before it is given up."""
_BLAMED = 3
"""Components that may be split, those most to blame."""
_NEAREST = 3
"""Pairs that may be merged for each component, the nearest."""
_DRAWS = 6_000
"""Of each Gaussian whose answers are wanted."""
_FEWEST = 8
"""Draws a number of each coordinate that a split begins with, at least."""
_LOSS = 0.25
"""What a loss counts: the fit then makes up for most of it."""


@dataclass(frozen=True)
class Move:
    """A component to split, and one to leave out or two to merge."""

    split: int
    spared: tuple[int, ...]


def escaped(
    fit: Fit, misfit: float, seen: Sequence[Seen], draws: Floats, seed: int, explain: Explain
) -> tuple[Fit, float]:
    """The best fit that moves from this one lead to, itself where none helps.

    Parameters
    ----------
    misfit : squared residuals a number of ``fit``
    seen : the answers it was fitted to
    draws : (n, p) of the density that the cells describe: where splits begin
    explain : fits a moved mixture to the answers
    """
    left = _MOST
    while left and RIGHT < misfit < np.inf and len(fit.weights) > 1:
        best = fit, misfit
        for move in promising(fit, seen, seed)[: left if misfit < HOPELESS else 1]:
            left -= 1
            moved = apply(fit, move, draws, seed)
            found = best if moved is None else explain(moved)
            best = min(best, found, key=lambda one: one[1])
            if best[1] <= RIGHT:
                break
        if not best[1] < misfit:
            break
        fit, misfit = best
    return fit, misfit


def promising(fit: Fit, seen: Sequence[Seen], seed: int) -> list[Move]:
    """The moves to try, the most promising first."""
    parts = Parts.of(fit, seen, seed)
    blame, losses = parts.blame(), parts.losses()
    order = sorted(losses, key=lambda spared: losses[spared])
    moves = [
        (blame[k] - _LOSS * losses[spared], Move(int(k), spared))
        for k in np.argsort(-blame, kind="stable")[:_BLAMED]
        for spared in [one for one in order if k not in one][:_TRIED]
    ]
    moves.sort(key=lambda one: -one[0])
    return [move for _, move in moves[:_TRIED]]


def apply(fit: Fit, move: Move, draws: Floats, seed: int) -> Fit | None:
    """The mixture after a move; None where no draws tell how to split."""
    joint = log_components(draws, fit.means, fit.covariances) + np.log(fit.weights)
    own = draws[joint.argmax(axis=1) == move.split]
    if len(own) < _FEWEST * draws.shape[1]:
        return None
    halves = clustered_fits(own, 2, 3, seed, steps=20)[0]
    weights = halves.weights / halves.weights.sum() * fit.weights[move.split]
    parts = [
        subset(fit, [k for k in range(len(fit.weights)) if k not in (move.split, *move.spared)]),
        replace(halves, weights=weights),
    ]
    if len(move.spared) == 2:
        parts.append(merged(fit, *move.spared))
    weights = np.concatenate([one.weights for one in parts])
    return Fit(
        weights / weights.sum(),
        np.concatenate([one.means for one in parts]),
        np.concatenate([one.covariances for one in parts]),
        fit.score,
    )


@dataclass(frozen=True, eq=False)
class Parts:
    """What each component of a fit contributes to all A answers, over all passes."""

    fit: Fit
    seen: Sequence[Seen]
    normal: Floats
    """(n, p) standard draws, common to all Gaussians."""
    own: Floats
    """(K, A)"""
    target: Floats
    """(A,) what was measured."""
    scale: Floats
    """(A,) standard deviation of noise and sampling."""

    @classmethod
    def of(cls, fit: Fit, seen: Sequence[Seen], seed: int) -> Parts:
        """Of a fit."""
        rng = np.random.Generator(np.random.Philox(seed))
        half = rng.standard_normal((_DRAWS // 2, fit.means.shape[1]))
        half = np.concatenate([half, -half])
        normal = half @ np.linalg.inv(np.linalg.cholesky(half.T @ half / len(half))).T
        total = len(normal) * len(fit.weights)
        own, variance = [], 0.0
        for k in range(len(fit.weights)):
            x = _points(fit, k, normal)
            own.append(fit.weights[k] * _answers(x, seen))
            variance = variance + fit.weights[k] * _squares(x, seen)
        rows = np.concatenate([np.full(one.values.size, max(one.rows, 1.0)) for one in seen])
        noise = np.concatenate([one.sigma.ravel() for one in seen])
        scale = np.sqrt(noise**2 + variance * (1 / rows + 1 / total))
        target = np.concatenate([one.values.ravel() for one in seen])
        return cls(fit, seen, normal, np.stack(own), target, scale)

    def blame(self) -> Floats:
        """(K,) squared residuals above one a number, of each cell by the components' shares."""
        excess = ((self.target - self.own.sum(axis=0)) / self.scale) ** 2 - 1
        width = np.concatenate([np.full(len(one.values), one.values.shape[1]) for one in self.seen])
        first = np.cumsum(width) - width
        share = np.maximum(self.own[:, first], 0.0)
        share /= np.maximum(share.sum(axis=0), 1e-300)
        return np.asarray(share @ np.add.reduceat(excess, first))

    def losses(self) -> dict[tuple[int, ...], float]:
        """What squared residuals grow by without a component, or with a pair as one Gaussian."""
        whole, weights = self.own.sum(axis=0), self.fit.weights
        before = self._misfit(whole)
        out: dict[tuple[int, ...], float] = {}
        for k in range(len(weights)):
            rest = weights.sum() / max(weights.sum() - weights[k], 1e-12)
            out[(k,)] = self._misfit(rest * (whole - self.own[k])) - before
        for i, j in self._near():
            pair = merged(self.fit, i, j)
            seen_as_one = pair.weights[0] * _answers(_points(pair, 0, self.normal), self.seen)
            out[(i, j)] = self._misfit(whole - self.own[[i, j]].sum(axis=0) + seen_as_one) - before
        return out

    def _misfit(self, answers: Floats) -> float:
        residual = (self.target - answers) / self.scale
        return float(residual @ residual)

    def _near(self) -> list[tuple[int, int]]:
        """The nearest pairs by the divergence of either from what they would be merged into."""
        pairs = combinations(range(len(self.fit.weights)), 2)
        apart = {pair: divergence(self.fit, *pair) for pair in pairs}
        near = sorted(apart, key=lambda pair: apart[pair])
        return near[: _NEAREST * len(self.fit.weights)]


def _points(fit: Fit, k: int, normal: Floats) -> Floats:
    """Draws (n, p) of one component."""
    return np.asarray(fit.means[k] + normal @ np.linalg.inv(whitener(fit.covariances[k])))


def _answers(x: Floats, seen: Sequence[Seen]) -> Floats:
    """(A,) what passes would measure of draws, as a share of them."""
    mass = np.full(len(x), 1 / len(x))
    return np.concatenate([statistics(one, x, mass).ravel() for one in seen])


def _squares(x: Floats, seen: Sequence[Seen]) -> Floats:
    """(A,) mean square of what a draw adds to each answer."""
    mass = np.full(len(x), 1 / len(x))
    return np.concatenate([squares(one, x, mass).ravel() for one in seen])
