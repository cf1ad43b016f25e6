"""The marginal distribution of each column of a table, from two noisy counts: public numbers only.

The values of a column are divided into fine bins, and these are grouped into coarse ones. Coarse
counts tell how much of the mass lies where, fine ones what lies within. A fine bin whose count
stands far out of the noise is an atom and keeps its own mass. All others in a coarse bin share what
is left of it: evenly, as far as their counts do not tell otherwise. Rows then become normal scores:
a row's coordinate is the mean of a standard normal variable over the share of the distribution that
its fine bin has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from dpgmm_dist.model.plan import BinsBlock, BinsPlan, ObservedBins

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

STEP = "marginals"
COARSE_SHARE = 0.10
FINE_SHARE = 0.12
"""Of the budget."""
_COARSE = 64
"""Coarse bins of a column."""
_MOST_FINE, _LEAST_FINE, _ALL_FINE = 1 << 13, 1 << 8, 1 << 17
"""Fine bins of a column at the most, at the least, and of all columns together."""
_ATOM = 3.5
"""Standard deviations of its noise that the count of an atom exceeds."""
_DIFFERENT = 2.5
"""Standard deviations of its noise by which one half of a stretch of bins exceeds its share."""
_FLOOR = 1e-4
"""Mass that is spread over all fine bins: none is empty, so that every map can be inverted."""
_LARGEST = 4.3
"""Bound on scores: rows in bins that were found empty would be far out, and scaled down."""
_SMALLEST = 5e-324
_MOST_MISSING = 0.999
"""Some rows have a value in each column, so that its map can be inverted."""


@dataclass(frozen=True, eq=False)
class FineBins:
    """The fine bins of one column: bin i is from edge i - 1 to edge i, in input units."""

    low: float
    high: float
    """The range of the column: values beyond it count as in the outermost bins."""
    edges: Floats
    """(B - 1,) inner edges, increasing."""
    places: Floats
    """(B,) the value that stands for a bin where all of its rows are taken to have one value."""
    single: Bools
    """(B,) whether a bin has room for one value alone: a whole number, or zero."""

    @property
    def count(self) -> int:
        """Number of bins B."""
        return len(self.edges) + 1

    @property
    def rank(self) -> Ints:
        """(B,) the bin of each code: its own number, but for categories that were put in order."""
        return np.argsort(self.places, kind="stable")

    @property
    def coarse(self) -> Ints:
        """(B,) the coarse bin of each fine one: consecutive, about equally many in each."""
        return np.arange(self.count) * min(_COARSE, self.count) // self.count

    @classmethod
    def of(cls, low: float, high: float, whole: bool, columns: int) -> FineBins:
        """The bins of a column from ``low`` to ``high``, one of ``columns`` in the table.

        A whole number each, where the column holds whole numbers and the range has few enough.
        Otherwise bins about the multiples of a round number, with zero in a bin of its own.
        """
        most = min(max(_ALL_FINE // columns, _LEAST_FINE), _MOST_FINE)
        if whole and math.ceil(low) <= math.floor(high) < math.ceil(low) + most:
            values = np.arange(math.ceil(low), math.floor(high) + 1, dtype=np.float64)
            return cls(low, high, values[1:] - 0.5, values, np.ones(len(values), dtype=np.bool_))
        step = _round_step((high - low) / (most - 4), whole)
        first, last = math.floor(low / step + 0.5), math.floor(high / step + 0.5)
        places: Floats = np.arange(first, last + 1, dtype=np.float64) * step
        edges: Floats = (np.arange(first, last, dtype=np.float64) + 0.5) * step
        inside = (edges > low) & (edges < high) & (np.diff(edges, prepend=-math.inf) > 0)
        edges, places = edges[inside], np.append(places[:1], places[1:][inside])
        if low < 0 < high and not whole:
            edges, places = _with_zero(edges, places)
        single = np.concatenate([[False], np.diff(edges) == _SMALLEST, [False]])[: len(places)]
        return cls(low, high, edges, np.clip(places, low, high), single)


def _round_step(width: float, whole: bool) -> float:
    """The least of 1, 2 and 5 times a power of ten that is at least ``width``."""
    power = math.floor(math.log10(width))
    step = next(m for m in (1.0, 2.0, 5.0, 10.0) if m * 10.0**power >= width * (1 - 1e-9))
    return max(step * 10.0**power, 1.0) if whole else step * 10.0**power


def _with_zero(edges: Floats, places: Floats) -> tuple[Floats, Floats]:
    """The same bins, and one that holds zero alone: many columns are mostly zero."""
    cut = int(np.searchsorted(edges, 0.0))
    if cut < len(edges) and edges[cut] in (0.0, _SMALLEST):
        return edges, places
    edges = np.concatenate([edges[:cut], [0.0, _SMALLEST], edges[cut:]])
    left = np.append(edges[:cut][-1:], places[0])[0] / 2
    right = np.append(edges[cut + 2 :][:1], places[-1])[0] / 2
    middle = [min(left, -_SMALLEST), 0.0, max(right, _SMALLEST)]
    return edges, np.concatenate([places[:cut], middle, places[cut + 1 :]])


def marginals_plan(
    columns: tuple[FineBins, ...],
    rho: float,
    features: Ints | None = None,
    missing: bool = False,
) -> BinsPlan:
    """The counts to ask for.

    Parameters
    ----------
    columns : the bins of each column
    rho : the budget of the whole release
    features : which features the columns are; None for all of them
    missing : whether values that are missing are counted, in a last bin of each column
    """
    coarse = [column.coarse for column in columns]
    if missing:
        coarse = [np.append(group, group[-1] + 1) for group in coarse]
    return BinsPlan(
        STEP,
        tuple(column.edges for column in columns),
        (BinsBlock(rho * COARSE_SHARE, tuple(coarse)), BinsBlock(rho * FINE_SHARE)),
        features,
        missing=missing,
    )


@dataclass(frozen=True, eq=False)
class Marginal:
    """The distribution of one column over its fine bins."""

    bins: FineBins
    mass: Floats
    """(B,) positive, sums to 1."""
    atoms: Bools
    """(B,) whether the rows of a bin are taken to have one value."""
    missing: float = 0.0
    """Share of the rows that have no value in the column; 0 where noise may explain all of it."""

    @property
    def upto(self) -> Floats:
        """(B + 1,) the distribution function at the edges of the bins, from 0 to 1."""
        upto = np.concatenate([[0.0], np.cumsum(self.mass)])
        return np.asarray(upto / upto[-1])

    @property
    def scores(self) -> Floats:
        """(B,) the mean of a standard normal variable over the share of each bin."""
        ends = ndtri(self.upto)
        density = np.exp(-0.5 * ends**2) / math.sqrt(2 * math.pi)
        mean = np.clip(-np.diff(density) / self.mass, ends[:-1], ends[1:])
        return np.asarray(np.clip(mean, -_LARGEST, _LARGEST))


def estimate(
    columns: tuple[FineBins, ...], coarse: ObservedBins, fine: ObservedBins
) -> tuple[Marginal, ...]:
    """The distribution of each column from its two noisy counts.

    Counts that have one bin more than a column tell how many rows have no value in it.
    """
    return tuple(
        _with_missing(bins, rough, exact, coarse.sigma, fine.sigma)
        for bins, rough, exact in zip(columns, coarse.counts, fine.counts, strict=True)
    )


def _with_missing(
    bins: FineBins, rough: Floats, exact: Floats, rough_sigma: float, exact_sigma: float
) -> Marginal:
    values = exact[: bins.count]
    marginal = _marginal(bins, rough[: int(bins.coarse[-1]) + 1], values, rough_sigma, exact_sigma)
    if len(exact) == bins.count:
        return marginal
    first, second = rough_sigma**-2, exact_sigma**-2
    empty = (first * rough[-1] + second * exact[-1]) / (first + second)
    present = float(rough[:-1].sum())  # fine counts would add up their noise over many more bins
    return replace(marginal, missing=share_missing(float(empty), present, (first + second) ** -0.5))


def share_missing(empty: float, present: float, sigma: float) -> float:
    """The share of rows without a value; 0 where the noise of their count may explain all of it.

    Parameters
    ----------
    empty, present : noisy numbers of rows without and with a value
    sigma : standard deviation of the noise on ``empty``
    """
    if empty <= _ATOM * sigma:
        return 0.0
    return min(empty / (empty + max(present, sigma)), _MOST_MISSING)


def _marginal(
    bins: FineBins, rough: Floats, exact: Floats, rough_sigma: float, exact_sigma: float
) -> Marginal:
    group = bins.coarse
    within = np.bincount(group).astype(np.float64)
    # Both tell the mass of a coarse bin, each with its own precision.
    first, second = rough_sigma**-2, (within * exact_sigma**2) ** -1
    mass = (first * rough + second * np.bincount(group, exact)) / (first + second)
    mass = _without_noise(mass, (first + second) ** -0.5)
    heavy = exact > _ATOM * exact_sigma
    held = np.where(heavy, exact, 0.0)
    total = np.bincount(group, held)
    # No atom is heavier than the coarse bin that it is in.
    held *= np.minimum(1.0, mass / np.maximum(total, 1e-300))[group]
    rest = np.maximum(mass - np.bincount(group, held), 0.0)
    light = np.bincount(group, ~heavy)
    spread = _within(exact, ~heavy, group, rest, exact_sigma)
    # Where every bin is an atom, they share what is left by their own masses.
    alone = (light == 0) & (total > 0)
    factor = np.where(alone, mass / np.maximum(np.bincount(group, held), 1e-300), 1.0)
    share = held * factor[group] + spread
    share = share / share.sum() * (1 - _FLOOR) + _FLOOR / bins.count
    return Marginal(bins, share / share.sum(), heavy | bins.single)


def _without_noise(mass: Floats, sigma: Floats) -> Floats:
    """Masses of coarse bins without what their noise explains; not negative, the same sum.

    From the whole to single bins: each half of a stretch of bins gets its share of the stretch's
    mass, and none where its own is within one standard deviation of the noise. Empty bins that are
    cut off one by one would keep the positive half of their noise, and that adds up in long tails.
    """
    padding = (1 << (len(mass) - 1).bit_length()) - len(mass)
    sums, variances = [np.pad(mass, (0, padding))], [np.pad(sigma**2, (0, padding))]
    while len(sums[-1]) > 1:
        sums.append(sums[-1].reshape(-1, 2).sum(axis=1))
        variances.append(variances[-1].reshape(-1, 2).sum(axis=1))
    share = np.maximum(sums.pop(), sigma.min())
    variances.pop()
    while sums:
        half, variance = sums.pop().reshape(-1, 2), variances.pop().reshape(-1, 2)
        noise = variance / np.maximum(variance.sum(axis=1, keepdims=True), 1e-300)
        half = half + noise * (share - half.sum(axis=1))[:, None]
        half = np.where(half > np.sqrt(variance), half, 0.0)
        nothing = half.sum(axis=1, keepdims=True) <= 0
        half = np.where(nothing, noise, half)
        share = (half * (share / np.maximum(half.sum(axis=1), 1e-300))[:, None]).reshape(-1)
    return np.asarray(share[: len(mass)])


def _within(counts: Floats, light: Bools, group: Ints, rest: Floats, sigma: float) -> Floats:
    """Mass (B,) of the light fine bins: the rest of each coarse bin, spread over those in it.

    From the coarse bin to single fine ones: the halves of a stretch get equal shares a bin, unless
    their counts differ by more than their noise explains.
    """
    position = np.arange(len(group)) - np.searchsorted(group, group)
    width = 1 << int(position.max()).bit_length()
    seen, number = np.zeros((2, len(rest), width))
    seen[group, position] = np.where(light, counts, 0.0)
    number[group, position] = light
    levels = []
    while seen.shape[1] > 1:
        pairs = (len(rest), -1, 2)
        levels.append((seen.reshape(pairs), number.reshape(pairs)))
        seen, number = (part.reshape(pairs).sum(axis=2) for part in (seen, number))
    share = np.where(number > 0, rest[:, None], 0.0)
    for halves, bins in reversed(levels):
        total = np.maximum(bins.sum(axis=2, keepdims=True), 1e-300)
        even = share[:, :, None] * bins / total
        there = halves + (share - halves.sum(axis=2))[:, :, None] * bins / total
        noise = sigma * np.sqrt(bins.prod(axis=2, keepdims=True) / total)
        there = np.clip(there, 0.0, share[:, :, None])
        differ = np.abs(there - even) > _DIFFERENT * noise
        share = np.where(differ & (bins > 0), there, even).reshape(len(rest), -1)
    return np.asarray(share[group, position])


def norm_of_scores(columns: int) -> float:
    """The norm bound of rows of normal scores: few rows are longer."""
    return math.sqrt(columns) + 2.2
