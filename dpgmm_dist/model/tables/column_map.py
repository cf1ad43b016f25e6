"""Maps between the values of single columns and the coordinates of a mixture of normal scores.

A map is monotone and piecewise linear. A bin of the column, from one edge to the next, has its
interval of scores. An atom's rows all have one value: every score in its interval stands for it.
Intervals are chosen such that values drawn from the mixture have the measured marginal distribution
exactly. A category has an interval as an atom does; its values may be in another order than that of
the scores. Where a column lacks values, a coordinate of its own says in which rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp, ndtr

from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.model.tables.marginals import Marginal
from dpgmm_dist.model.tables.presence import Presence

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_GRID = 20_001
"""Points at which the distribution of a coordinate is computed to invert it."""
_DEVIATIONS = 8.0
_ROOT_TWO_PI = float(np.sqrt(2 * np.pi))
_LEAST = 1e-9
"""Mass of the mixture that is left out at either end of a column."""


@dataclass(frozen=True, eq=False)
class ColumnMap:
    """The map of one column with B bins.

    Raises
    ------
    ValueError
        When lengths disagree, a number is not finite, or edges or scores decrease.
    """

    edges: Floats
    """(B + 1,) in input units, not decreasing; the outermost are the bounds of the column."""
    scores: Floats
    """(B + 1,) strictly increasing: bin i has the scores from i to i + 1."""
    places: Floats
    """(B,) the value of an atom; NaN where a bin is not an atom."""
    absent_below: float | None = None
    """Where the column lacks values: the score of its presence below which a row has none."""

    def __post_init__(self) -> None:
        count = len(self.places)
        if count < 1 or self.edges.shape != (count + 1,) or self.scores.shape != (count + 1,):
            raise ValueError("a column needs one more edge, and one more score, than it has bins")
        if not (np.isfinite(self.edges).all() and np.isfinite(self.scores).all()):
            raise ValueError("edges and scores of a column must be finite")
        if (np.diff(self.scores) <= 0).any() or (np.diff(self.edges) < 0).any():
            raise ValueError("scores of a column must increase, and edges must not decrease")
        for array in (self.edges, self.scores, self.places):
            array.setflags(write=False)

    @property
    def atoms(self) -> npt.NDArray[np.bool_]:
        """(B,) whether all rows of a bin have one value."""
        return np.asarray(~np.isnan(self.places) | (np.diff(self.edges) == 0))

    @cached_property
    def rank(self) -> Ints | None:
        """(B,) the bin between each two edges; None where it is the one of that number.

        Values of categories are in the order of their scores.
        """
        if np.isnan(self.places).any():
            return None
        return np.argsort(self.places, kind="stable")

    def bins_of(self, values: Floats) -> Ints:
        """The bin (n,) of values (n,) in input units; the outermost ones beyond the bounds."""
        between = np.searchsorted(self.edges[1:-1], values, "right")
        return np.asarray(between if self.rank is None else self.rank[between])

    def shares(self, means: Floats, spreads: Floats) -> Floats:
        """The probability (C, B) of each bin under components with these moments (C,) each."""
        ends = (self.scores[1:-1] - means[:, None]) / spreads[:, None]
        upto = np.pad(ndtr(ends), [(0, 0), (1, 1)], constant_values=(0.0, 1.0))
        return np.asarray(np.diff(upto, axis=1))

    def to_scores(self, values: Floats) -> Floats:
        """Scores (n,) of values (n,); the middle of its interval for an atom.

        The map goes on straight beyond the bounds.
        """
        index = self.bins_of(values)
        low, width = self.scores[index], np.diff(self.scores)[index]
        span = np.diff(self.edges)[index]
        part = (values - self.edges[index]) / np.where(span > 0, span, 1.0)
        return np.asarray(low + width * np.where(self.atoms[index], 0.5, part))

    def to_values(self, scores: Floats) -> Floats:
        """Values (n,) in input units of scores (n,), within the bounds of the column."""
        index = np.asarray(np.searchsorted(self.scores[1:-1], scores, "right"))
        part = (scores - self.scores[index]) / np.diff(self.scores)[index]
        value = self.edges[index] + np.clip(part, 0.0, 1.0) * np.diff(self.edges)[index]
        place = self.places[index]
        return np.asarray(np.where(np.isnan(place), value, place))

    def log_slopes(self, values: Floats) -> Floats:
        """Log of how many scores an input unit has (n,), at values (n,); 0 in atoms."""
        index = self.bins_of(values)
        span = np.where(self.atoms[index], 1.0, np.diff(self.edges)[index])
        width = np.where(self.atoms[index], 1.0, np.diff(self.scores)[index])
        return np.asarray(np.log(width) - np.log(span))


def maps_of(
    marginals: tuple[Marginal, ...],
    weights: Floats,
    means: Floats,
    variances: Floats,
    presences: tuple[Presence, ...] = (),
) -> tuple[ColumnMap, ...]:
    """The maps that give a mixture the measured marginals.

    Parameters
    ----------
    marginals : d distributions
    weights : (C,)
    means, variances : (C, p) of the components along each coordinate
    presences : of which columns values may be missing
    """
    spreads = np.sqrt(variances)
    maps = [
        _map_of(marginal, weights, means[:, j], spreads[:, j])
        for j, marginal in enumerate(marginals)
    ]
    for presence in presences:
        mean, spread = means[:, presence.coordinate], spreads[:, presence.coordinate]
        below = float(_map_of(presence.marginal, weights, mean, spread).scores[1])
        # The values are those of the rows that have one: components weigh by how many do.
        present = weights * ndtr((mean - below) / spread)
        j = presence.column
        given = _map_of(marginals[j], present / present.sum(), means[:, j], spreads[:, j])
        maps[j] = replace(given, absent_below=below)
    return tuple(maps)


def _map_of(marginal: Marginal, weights: Floats, means: Floats, spreads: Floats) -> ColumnMap:
    bins = marginal.bins
    upto = np.clip(marginal.upto, _LEAST, 1 - _LEAST)
    grid = np.linspace(
        (means - _DEVIATIONS * spreads).min(), (means + _DEVIATIONS * spreads).max(), _GRID
    )
    below = np.zeros(_GRID)
    for weight, mean, spread in zip(weights, means, spreads, strict=True):
        below += weight * ndtr((grid - mean) / spread)
    scores = _increasing(np.interp(upto, np.maximum.accumulate(below), grid))
    places = np.where(marginal.atoms, bins.places, np.nan)
    edges = np.concatenate([[bins.low], np.clip(bins.edges, bins.low, bins.high), [bins.high]])
    return ColumnMap(edges, scores, places)


def _increasing(scores: Floats) -> Floats:
    """Scores, moved by as little as makes each larger than the one before."""
    step = 1e-12 * max(float(np.abs(scores).max()), 1.0)
    return np.asarray(np.maximum.accumulate(scores) + step * np.arange(len(scores)))


@dataclass(frozen=True, eq=False)
class _RowIntervals:
    """Rows (n, d) as intervals of scores, and as points in them."""

    low: Floats
    high: Floats
    point: Floats
    atom: npt.NDArray[np.bool_]


def log_prob(mixture: Mixture, maps: tuple[ColumnMap, ...], rows: Floats) -> Floats:
    """Natural log density (n,) of rows (n, d) in input units under a mixture of their scores.

    The density is with respect to counting in atoms, and to length elsewhere. An atom has the
    probability of its interval of scores, given the columns before it. Of a row in several atoms
    each is taken to be at its mean when the next is looked at, which is exact for one atom a row.
    A value that is missing (NaN) is an atom that holds all scores, and so is whether there is one.
    """
    parts = [_interval(column, rows[:, j]) for j, column in enumerate(maps)]
    parts += [
        _presence_interval(column.absent_below, ~np.isnan(rows[:, j]))
        for j, column in enumerate(maps)
        if column.absent_below is not None
    ]
    intervals = _RowIntervals(*(np.stack(part, axis=1) for part in zip(*parts, strict=True)))
    slopes = sum(
        np.where(np.isnan(rows[:, j]), 0.0, column.log_slopes(rows[:, j]))
        for j, column in enumerate(maps)
    )
    with np.errstate(divide="ignore"):
        weights = np.log(mixture.weights)
    logs = np.stack(
        [
            weights[k] + _log_prob_of_component(mixture.means[k], mixture.cholesky[k], intervals)
            for k in range(mixture.n_components)
        ]
    )
    return np.asarray(slopes + logsumexp(logs, axis=0))


_Interval = tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]
"""Of one coordinate: the intervals, the points in them, and whether they are atoms, each (n,)."""


def _interval(column: ColumnMap, values: Floats) -> _Interval:
    missing, index = np.isnan(values), column.bins_of(values)
    low = np.where(missing, -np.inf, column.scores[index])
    high = np.where(missing, np.inf, column.scores[index + 1])
    points = np.where(missing, 0.0, column.to_scores(values))
    return low, high, points, missing | column.atoms[index]


def _presence_interval(below: float, present: npt.NDArray[np.bool_]) -> _Interval:
    low, high = np.where(present, below, -np.inf), np.where(present, np.inf, below)
    return low, high, np.full(len(present), below), np.ones(len(present), dtype=np.bool_)


def _log_prob_of_component(mean: Floats, factor: Floats, intervals: _RowIntervals) -> Floats:
    """Log of the density or probability (n,) of rows under one Gaussian with a Cholesky factor."""
    white = np.zeros(intervals.point.shape)
    total = np.zeros(len(white))
    for j in range(len(mean)):
        centre, spread = mean[j] + white[:, :j] @ factor[j, :j], factor[j, j]
        z = (intervals.point[:, j] - centre) / spread
        low = (intervals.low[:, j] - centre) / spread
        high = (intervals.high[:, j] - centre) / spread
        # On the side of zero where the difference of two tails does not cancel.
        with np.errstate(invalid="ignore"):  # of an atom that holds all scores
            sign = np.where(low + high > 0, -1.0, 1.0)
        low, high = np.minimum(sign * low, sign * high), np.maximum(sign * low, sign * high)
        mass = np.maximum(ndtr(high) - ndtr(low), 1e-300)
        middle = (np.exp(-0.5 * low**2) - np.exp(-0.5 * high**2)) / (_ROOT_TWO_PI * mass)
        atom = intervals.atom[:, j]
        total += np.where(atom, np.log(mass), -0.5 * z**2 - np.log(spread * _ROOT_TWO_PI))
        white[:, j] = np.where(atom, sign * np.clip(middle, low, high), z)
    return total
