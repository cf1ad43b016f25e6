"""The marginal distribution of each column of a table, from noisy counts: public numbers only.

A first count, in 64 bins of equal width, shows where the rows are. It also shows whether nearly all
values are multiples of a round number (`units`). The second count has more bins where there are
more rows, so a range ten times too wide costs little. It counts twice: coarse counts give the mass
of wide bins, fine counts its distribution within them. A fine bin whose count stands far out of the
noise is an atom and keeps its own mass. The other fine bins share the rest of their coarse bin
evenly, unless their counts differ significantly. Rows then become normal scores: a row's coordinate
is the mean of a standard normal variable over the share of the distribution that its fine bin has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from dpgmm_dist.model.pass_plan import BinsBlock, BinsPlan, ObservedBins
from dpgmm_dist.model.tables import units

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FIRST_STEP, STEP = "marginals.first", "marginals"
FIRST_SHARE, COARSE_SHARE, FINE_SHARE = 0.03, 0.07, 0.12
"""Of the budget."""
_UNITS = 1 / 3
"""Of the first count's budget, for units."""
_COARSE = 64
"""Coarse bins of a column in the first count, and about as many more in the second."""
_MOST_FINE, _LEAST_FINE, _ALL_FINE = 1 << 13, 1 << 8, 1 << 17
"""Fine bins of a column at the most, at the least, and of all columns together."""
_MORE_MULTIPLES = 2
"""Most bins of a column whose unit is found, as a multiple of the most fine bins of others: a range
that was found is often twice too wide."""
_LEAST_WITHIN = 8
"""Least number of fine bins that replace a bin of the first count."""
_ATOM = 3.5
"""Standard deviations of its noise that the count of an atom exceeds."""
_EMPTY, _EMPTY_BEYOND, _STANDS_OUT = 1.0, 3.0, 4.0
"""Standard deviations of its noise up to which half of a run of coarse bins counts as empty:
between the bins that stand out, and outside all of them, as bounds may be far too wide and a few
distant rows would change every correlation. The last value says which bins stand out."""
_DIFFERENT = 2.5
"""Standard deviations of its noise by which one half of a run of bins must exceed its share."""
_FLOOR, _FLOOR_ELSEWHERE = 1e-4, 1e-9
"""Mass that is spread over fine bins: none is empty, so that every map can be inverted. The first
is for coarse bins that hold rows. Elsewhere it would give columns with wide bounds outliers."""
_LARGEST = 4.3
"""Bound on scores: rows in bins that were found empty would be far out, and scaled down."""
_SMALLEST = 5e-324
_LEAST_AROUND_ZERO = 5
"""Units in a bin beside zero at the least, where zero has a bin of its own."""
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
    """(B,) whether a bin has room for one value alone: a multiple of the unit, or zero."""
    unit: float = 0.0
    """What all values are multiples of: 1 for whole numbers; 0 where there is no such number."""
    clock: bool = False
    """Whether values are seconds, and steps of bins whole minutes, hours or days."""
    coarse: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """(B,) the coarse bin of each fine one, not decreasing."""
    within: Ints | None = None
    """The bin of the first count that each coarse bin is a part of; None before that count."""

    def __post_init__(self) -> None:
        if not len(self.coarse):
            object.__setattr__(self, "coarse", _equal_groups(self.edges))

    @property
    def count(self) -> int:
        """Number of bins B."""
        return len(self.edges) + 1

    @property
    def rank(self) -> Ints:
        """(B,) the bin of each code: its own number, but for categories that were put in order."""
        return np.argsort(self.places, kind="stable")

    @classmethod
    def of(
        cls, low: float, high: float, unit: float, columns: int, clock: bool = False
    ) -> FineBins:
        """The bins of a column from ``low`` to ``high``, one of ``columns`` in the table.

        A multiple of its unit each, where the column has one and the range has few enough.
        Otherwise bins about the multiples of a round number, with zero in a bin of its own.
        """
        between = _bins_between(low, high, unit, clock, _most_fine(columns))
        return cls(low, high, *between, unit, clock)

    def units(self, columns: int) -> tuple[float, ...]:
        """The units, larger than that of its type, that the column may have."""
        most = _MORE_MULTIPLES * _most_fine(columns)
        return units.candidates(self.low, self.high, self.unit, self.clock, most)

    def with_unit(self, unit: float, columns: int) -> FineBins:
        """A bin for each multiple of one of `units`, in the coarse bins that they were in."""
        most = _MORE_MULTIPLES * _most_fine(columns) + 1
        edges, places, single = _bins_between(self.low, self.high, unit, self.clock, most)
        coarse = self.coarse[np.searchsorted(self.edges, places, "right")]
        return FineBins(self.low, self.high, edges, places, single, unit, self.clock, coarse)

    def refined(self, mass: Floats, columns: int) -> FineBins:
        """Bins for the same range, finer where there are more rows.

        Each coarse bin becomes as many coarse bins as its share of the rows calls for, and has that
        share of all fine bins.

        Parameters
        ----------
        mass : (G,) of the coarse bins, sums to 1
        columns : number of columns in the table
        """
        parts = np.maximum(np.rint(_COARSE * mass), 1.0).astype(np.int64)
        if self.single.all():
            return self._regrouped(parts)
        most = _most_fine(columns) * parts / parts.sum()
        cuts = self.edges[np.flatnonzero(np.diff(self.coarse))]
        if self.unit:
            cuts = (np.ceil(cuts / self.unit - 1e-9) - 0.5) * self.unit
        ends = [self.low, *cuts.tolist(), self.high]
        pieces = [
            _bins_between(low, high, self.unit, self.clock, max(int(fine), _LEAST_WITHIN))
            for low, high, fine in zip(ends, ends[1:], most, strict=False)
        ]
        edges = [
            part for piece, end in zip(pieces, ends[1:], strict=True) for part in (piece[0], [end])
        ]
        places, single = (np.concatenate([piece[k] for piece in pieces]) for k in (1, 2))
        group = np.repeat(np.arange(len(pieces)), [len(piece[1]) for piece in pieces])
        inner = np.concatenate(edges)[:-1]
        bins = FineBins(self.low, self.high, inner, places, single, self.unit, self.clock, group)
        return bins._regrouped(parts)

    def _regrouped(self, parts: Ints) -> FineBins:
        """The same fine bins, with this number of coarse ones (G,) in the place of each."""
        sizes = np.bincount(self.coarse, minlength=len(parts))
        parts = np.minimum(parts, sizes)
        position = np.arange(self.count) - np.searchsorted(self.coarse, self.coarse)
        before = np.concatenate([[0], np.cumsum(parts)[:-1]])
        part_of_bin = position * parts[self.coarse] // sizes[self.coarse]
        within = np.repeat(np.arange(len(parts)), parts)
        return replace(self, coarse=before[self.coarse] + part_of_bin, within=within)


def _most_fine(columns: int) -> int:
    return min(max(_ALL_FINE // columns, _LEAST_FINE), _MOST_FINE)


def _equal_groups(edges: Floats) -> Ints:
    """Consecutive bins, about equally many in each; that of zero is with its neighbours.

    A coarse bin of zero alone would have no width that can be divided.
    """
    count = len(edges) + 1
    groups = np.arange(count) * min(_COARSE, count) // count
    for edge in np.flatnonzero(np.abs(edges) <= _SMALLEST).tolist():
        groups[edge + 1] = groups[edge]
    return np.unique(groups, return_inverse=True)[1]


def _bins_between(
    low: float, high: float, unit: float, clock: bool, most: int
) -> tuple[Floats, Floats, Bools]:
    """Inner edges, places and whether bins have one value, of at most ``most`` bins (or a few)."""
    if unit and math.ceil(low / unit) <= math.floor(high / unit) < math.ceil(low / unit) + most:
        values = units.multiples(math.ceil(low / unit), math.floor(high / unit), unit)
        return values[1:] - unit / 2, values, np.ones(len(values), dtype=np.bool_)
    step = _round_step((high - low) / max(most - 4, 1), unit, clock)
    first, last = math.floor(low / step + 0.5), math.floor(high / step + 0.5)
    places: Floats = units.multiples(first, last, step)
    edges: Floats = places[:-1] + step / 2
    inside = (edges > low) & (edges < high) & (np.diff(edges, prepend=-math.inf) > 0)
    edges, places = edges[inside], np.append(places[:1], places[1:][inside])
    if low <= 0 <= high and step >= _LEAST_AROUND_ZERO * unit:
        return _with_zero(edges, places, low, high)
    return edges, np.clip(places, low, high), np.zeros(len(places), dtype=np.bool_)


def _round_step(width: float, unit: float, clock: bool) -> float:
    """The least of 1, 2 and 5 times a power of ten that is at least ``width``, or time of a clock.

    Multiples of the unit, where the column has one.
    """
    if clock and units.CLOCK_STEPS[0] < width <= units.CLOCK_STEPS[-1]:
        steps = list(units.CLOCK_STEPS)
    else:
        base = units.CLOCK[0] if clock and width > units.CLOCK[0] else unit or 1.0
        power = math.floor(math.log10(width / base))
        steps = [float(f"{times}e{power}") * base for times in (1, 2, 5, 10)]
    return max(next(step for step in steps if step >= width * (1 - 1e-9)), unit)


def _with_zero(
    edges: Floats, places: Floats, low: float, high: float
) -> tuple[Floats, Floats, Bools]:
    """The same bins, and one that holds zero alone: many columns are mostly zero."""
    cut = int(np.searchsorted(edges, 0.0))
    after_zero = int(np.searchsorted(edges, _SMALLEST, "right"))
    below, above = edges[:cut], edges[after_zero:]
    left = np.append(low, below)[-1] / 2
    right = np.append(above, high)[0] / 2
    values = [*places[:cut], left, 0.0, right, *places[after_zero + 1 :]]
    inner = [*below, 0.0, _SMALLEST, *above]
    # Where zero is a bound, there is nothing on its other side, and all edges are within the range.
    if high == 0:
        inner[cut] = -_SMALLEST
    start, stop = int(low == 0), len(values) - int(high == 0)
    at = np.clip(np.array(values[start:stop]), low, high)
    return np.array(inner[start : stop - 1]), at, at == 0


def first_plan(
    columns: tuple[FineBins, ...],
    rho: float,
    features: Ints | None = None,
    missing: bool = False,
) -> BinsPlan:
    """The first count to ask for: where the rows are. For the parameters see `marginals_plan`."""
    edges = first_edges(columns)
    # Units are told apart by more edges than the coarse bins have.
    inside = [
        np.searchsorted(column.edges, np.append(column.low, inner), "right")
        for column, inner in zip(columns, edges, strict=True)
    ]
    coarse = [column.coarse[index] for column, index in zip(columns, inside, strict=True)]
    tried_units = [column.units(len(columns)) for column in columns]
    of_units = [
        units.codes_of_units(column.low, column.high, inner, candidates)
        for column, inner, candidates in zip(columns, edges, tried_units, strict=True)
    ]
    share = FIRST_SHARE * _UNITS if any(tried_units) else 0.0
    blocks = [BinsBlock(rho * (FIRST_SHARE - share), _with_missing_code(coarse, missing))]
    if any(tried_units):
        blocks.append(BinsBlock(rho * share, _with_missing_code(of_units, missing)))
    return BinsPlan(FIRST_STEP, edges, tuple(blocks), features, missing=missing)


def first_edges(columns: tuple[FineBins, ...]) -> tuple[Floats, ...]:
    """The edges of the first count: those of the bins, and those around multiples of units."""
    return tuple(
        np.union1d(
            column.edges, units.edges_around(column.low, column.high, column.units(len(columns)))
        )
        for column in columns
    )


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
    return BinsPlan(
        STEP,
        tuple(column.edges for column in columns),
        (
            BinsBlock(
                rho * COARSE_SHARE,
                _with_missing_code([column.coarse for column in columns], missing),
            ),
            BinsBlock(rho * FINE_SHARE),
        ),
        features,
        missing=missing,
    )


def _with_missing_code(codes: list[Ints], missing: bool) -> tuple[Ints, ...]:
    """For each column the bin of each code, with one more for missing values if those are asked."""
    return tuple(
        np.append(column_codes, column_codes.max() + 1) if missing else column_codes
        for column_codes in codes
    )


def refine(
    columns: tuple[FineBins, ...], first: ObservedBins, of_units: ObservedBins | None = None
) -> tuple[FineBins, ...]:
    """The bins to count in, for what the first count found."""
    refined = []
    for j, bins in enumerate(columns):
        counts = first.counts[j][: int(bins.coarse[-1]) + 1]
        mass = _without_noise(counts, np.full(len(counts), first.sigma))
        tried = bins.units(len(columns))
        if of_units is not None and tried:
            unit = units.unit_from(of_units.counts[j], of_units.sigma, tried)
            bins = bins.with_unit(unit, len(columns)) if unit else bins
        refined.append(bins.refined(mass / mass.sum(), len(columns)))
    return tuple(refined)


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


@dataclass(frozen=True, eq=False)
class _Counts:
    """The noisy counts of one column, with the variances of their noise."""

    first: tuple[Floats, float]
    coarse: tuple[Floats, float]
    fine: tuple[Floats, float]

    @classmethod
    def of(cls, column: int, *observed: ObservedBins) -> _Counts:
        return cls(*((answer.counts[column], answer.sigma**2) for answer in observed))

    def without_last(self) -> _Counts:
        """The counts of values alone."""
        return _Counts(*((counts[:-1], variance) for counts, variance in self._three))

    def last(self) -> tuple[float, float]:
        """The number of rows without a value, from all three, and the variance of its noise."""
        precision = sum(1 / variance for _, variance in self._three)
        total = sum(counts[-1] / variance for counts, variance in self._three)
        return float(total / precision), 1 / precision

    @property
    def _three(self) -> tuple[tuple[Floats, float], ...]:
        return self.first, self.coarse, self.fine


def estimate(
    columns: tuple[FineBins, ...], first: ObservedBins, coarse: ObservedBins, fine: ObservedBins
) -> tuple[Marginal, ...]:
    """The distribution of each column from its noisy counts.

    Counts that have one bin more than a column tell how many rows have no value in it.
    """
    return tuple(
        _with_missing(bins, _Counts.of(j, first, coarse, fine)) for j, bins in enumerate(columns)
    )


def _with_missing(bins: FineBins, counts: _Counts) -> Marginal:
    if len(counts.fine[0]) == bins.count:
        return _marginal(bins, counts)
    empty, variance = counts.last()
    present = counts.without_last()
    # Fine and coarse counts would add up their noise over many more bins.
    total = float(present.first[0].sum())
    missing = share_missing(empty, total, math.sqrt(variance))
    return replace(_marginal(bins, present), missing=missing)


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


def _coarse_masses(bins: FineBins, counts: _Counts) -> tuple[Floats, Floats]:
    """The noisy mass of each coarse bin from all three counts, and the variance of its noise."""
    (rough, rough_noise), (exact, exact_noise) = counts.coarse, counts.fine
    # Both tell the mass of a coarse bin, each with its own precision.
    rough_precision, exact_precision = 1 / rough_noise, 1 / (np.bincount(bins.coarse) * exact_noise)
    precision = rough_precision + exact_precision
    weighted = rough_precision * rough + exact_precision * np.bincount(bins.coarse, exact)
    mass, variance = weighted / precision, 1 / precision
    if bins.within is None:
        return mass, variance
    # The first count tells their sum within each of its bins.
    first_counts, noise = counts.first
    total = np.bincount(bins.within, variance, len(first_counts))
    gain = variance / (total + noise)[bins.within]
    missing = first_counts - np.bincount(bins.within, mass, len(first_counts))
    mass = mass + gain * missing[bins.within]
    return mass, variance - gain * variance


def _marginal(bins: FineBins, counts: _Counts) -> Marginal:
    group = bins.coarse
    exact, exact_sigma = counts.fine[0], math.sqrt(counts.fine[1])
    mass, variance = _coarse_masses(bins, counts)
    mass = _without_noise(mass, np.sqrt(variance))
    heavy = exact > _ATOM * exact_sigma
    held = np.where(heavy, exact, 0.0)
    total = np.bincount(group, held)
    # No atom is heavier than the coarse bin that it is in.
    held *= np.minimum(1.0, mass / np.maximum(total, 1e-300))[group]
    remaining = np.maximum(mass - np.bincount(group, held), 0.0)
    light = np.bincount(group, ~heavy)
    spread = _within(exact, ~heavy, group, remaining, exact_sigma)
    # Where every bin is an atom, they share what is left by their own masses.
    only_atoms = (light == 0) & (total > 0)
    factor = np.where(only_atoms, mass / np.maximum(np.bincount(group, held), 1e-300), 1.0)
    share = held * factor[group] + spread
    held_rows = (mass > 0)[group]
    floor = np.where(held_rows, _FLOOR / held_rows.sum(), _FLOOR_ELSEWHERE / bins.count)
    share = share / share.sum() * (1 - _FLOOR) + floor
    return Marginal(bins, share / share.sum(), heavy | bins.single)


def _without_noise(mass: Floats, sigma: Floats) -> Floats:
    """Masses of coarse bins without what their noise explains; not negative, the same sum.

    From the whole to single bins: each half of a run of bins gets its share of the mass of the run,
    and none where its own mass is within one standard deviation of the noise. If empty bins were
    cut off one by one, they would keep the positive half of their noise, which adds up in long
    tails.
    """
    padding = (1 << (len(mass) - 1).bit_length()) - len(mass)
    sums, variances = [np.pad(mass, (0, padding))], [np.pad(sigma**2, (0, padding))]
    least = [np.pad(_least_deviations(mass, sigma), (0, padding), constant_values=_EMPTY_BEYOND)]
    while len(sums[-1]) > 1:
        sums.append(sums[-1].reshape(-1, 2).sum(axis=1))
        variances.append(variances[-1].reshape(-1, 2).sum(axis=1))
        least.append(least[-1].reshape(-1, 2).min(axis=1))
    share = np.maximum(sums.pop(), sigma.min())
    variances.pop(), least.pop()
    while sums:
        half, variance = sums.pop().reshape(-1, 2), variances.pop().reshape(-1, 2)
        noise = variance / np.maximum(variance.sum(axis=1, keepdims=True), 1e-300)
        half = half + noise * (share - half.sum(axis=1))[:, None]
        limit = least.pop().reshape(-1, 2)
        half = np.where(half > limit * np.sqrt(variance), half, 0.0)
        neither_shows = half.sum(axis=1, keepdims=True) <= 0
        # Mass that neither half shows is divided between both, or given to the one near the rows.
        near = np.where(limit == limit.min(axis=1, keepdims=True), np.maximum(noise, 1e-300), 0.0)
        half = np.where(neither_shows, near, half)
        share = (half * (share / np.maximum(half.sum(axis=1), 1e-300))[:, None]).reshape(-1)
    return np.asarray(share[: len(mass)])


def _least_deviations(mass: Floats, sigma: Floats) -> Floats:
    """By how many standard deviations of its noise the mass (G,) of each bin has to stand out."""
    held = np.flatnonzero(mass > _STANDS_OUT * sigma)
    least = np.full(len(mass), _EMPTY_BEYOND)
    if held.size:
        least[max(int(held[0]) - 1, 0) : int(held[-1]) + 2] = _EMPTY
    return least


def _within(counts: Floats, light: Bools, group: Ints, remaining: Floats, sigma: float) -> Floats:
    """Mass (B,) of the light fine bins: the rest of each coarse bin, spread over those in it.

    From the coarse bin to single fine ones: the halves of a run get equal shares per bin, unless
    their counts differ by more than their noise explains.
    """
    position = np.arange(len(group)) - np.searchsorted(group, group)
    width = 1 << int(position.max()).bit_length()
    sums, light_bins = np.zeros((2, len(remaining), width))
    sums[group, position] = np.where(light, counts, 0.0)
    light_bins[group, position] = light
    levels = []
    while sums.shape[1] > 1:
        pairs = (len(remaining), -1, 2)
        levels.append((sums.reshape(pairs), light_bins.reshape(pairs)))
        sums, light_bins = (part.reshape(pairs).sum(axis=2) for part in (sums, light_bins))
    share = np.where(light_bins > 0, remaining[:, None], 0.0)
    for halves, bins in reversed(levels):
        total = np.maximum(bins.sum(axis=2, keepdims=True), 1e-300)
        even = share[:, :, None] * bins / total
        split = halves + (share - halves.sum(axis=2))[:, :, None] * bins / total
        noise = sigma * np.sqrt(bins.prod(axis=2, keepdims=True) / total)
        split = np.clip(split, 0.0, share[:, :, None])
        differ = np.abs(split - even) > _DIFFERENT * noise
        share = np.where(differ & (bins > 0), split, even).reshape(len(remaining), -1)
    return np.asarray(share[group, position])


def norm_of_scores(columns: int) -> float:
    """The norm bound of rows of normal scores: few rows are longer."""
    return math.sqrt(columns) + 2.2
