"""Bounds found privately, from noisy counts of signed-logarithmic bins: public numbers only.

The bins are the same for every column and data set: zero, and both signs from 1e-12 to 1e12. The
range of a column is where the noisy counts say that all but a public small share of rows lie,
rounded outward to edges of bins. From then on it is used as if it were public.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SHARE = 0.05
"""Of the budget, for all bounds that are found privately."""
_DECADES = 12
_BINS_A_DECADE = 8
_OUTSIDE = 0.001
"""Share of the rows that may lie outside the range, half of it on each side."""
_STANDS_OUT = 5.0
"""Standard deviations of its noise by which the count of a bin must stand out: of some hundred bins
in each of many columns, none does so by noise."""
_NEXT = 2.0
"""The same for the bins next to the range, added up: there are few such tests."""
_STEPS = (1, 2, 4, 8)
_STRETCHES = (1, 4, 16, 64)
_ZERO_ALONE = (0.0, 1.0)
"""The range of a column in which only the zero bin stands out."""
_NOWHERE = (-1.0, 1.0)
"""The range of a column whose counts are all noise."""


def log_edges() -> Floats:
    """Edges of the bins, increasing; bin i is from edge i - 1 to edge i, the middle bin is zero."""
    powers = np.arange(-_DECADES * _BINS_A_DECADE, _DECADES * _BINS_A_DECADE + 1)
    positive = 10.0 ** (powers / _BINS_A_DECADE)
    return np.concatenate([-positive[::-1], positive])


def range_of(counts: Floats, sigma: float, edges: Floats) -> tuple[float, float]:
    """The range (low, high) of a column, low < high, from noisy counts of its bins.

    Parameters
    ----------
    counts : (B,) noisy numbers of rows in each bin
    sigma : standard deviation of the noise on each
    edges : (B - 1,) increasing
    """
    found = _bins_with_rows(counts, sigma)
    return _NOWHERE if found is None else _outward(*found, edges)


def middle_of(counts: Floats, sigma: float, edges: Floats) -> float:
    """The middle of the bin that the median of a column is in."""
    found = _bins_with_rows(counts, sigma)
    if found is None:
        return sum(_NOWHERE) / 2
    first, last = found
    upto = np.cumsum(counts[first : last + 1])
    median = first + int(np.searchsorted(np.maximum.accumulate(upto), upto[-1] / 2))
    low, high = _outward(min(median, last), min(median, last), edges)
    return (low + high) / 2


def _outward(first: int, last: int, edges: Floats) -> tuple[float, float]:
    """The edges around bins ``first`` to ``last``; the outermost bins end at the outermost edges.

    What lies beyond those is clipped to them.
    """
    first, last = min(max(first, 1), len(edges) - 1), min(max(last, 1), len(edges) - 1)
    zero = len(edges) // 2
    if first == last == zero:
        return _ZERO_ALONE
    # The bin of zero is not wider than zero itself: columns that are not negative stay so.
    low = 0.0 if first == zero else float(edges[first - 1])
    return low, 0.0 if last == zero else float(edges[last])


def _bins_with_rows(counts: Floats, sigma: float) -> tuple[int, int] | None:
    """The first and the last of the bins that hold nearly all rows; None if no bin stands out.

    Where no single bin stands out, the shortest run of bins that does is taken.
    """
    for width in _STRETCHES:
        sums = np.convolve(counts, np.ones(width), "valid")
        standing_out = np.flatnonzero(sums > _STANDS_OUT * sigma * np.sqrt(width))
        if standing_out.size:
            break
    else:
        return None
    if width > 1:
        first, last = int(sums.argmax()), int(sums.argmax()) + width - 1
    else:
        # A few distant rows do not widen the range.
        held = sums[standing_out]
        most = _OUTSIDE / 2 * float(held.sum())
        first = int(standing_out[_negligible(held, most)])
        last = int(standing_out[::-1][_negligible(held[::-1], most)])
    return first - _beyond(counts[:first][::-1], sigma), last + _beyond(counts[last + 1 :], sigma)


def _beyond(counts: Floats, sigma: float) -> int:
    """How many of the bins next to a range, in order of distance, belong to it as well."""
    taken = 0
    while True:
        rest = counts[taken:]
        steps = [k for k in _STEPS if rest[:k].sum() > _NEXT * sigma * np.sqrt(k)]
        if not steps or not rest.size:
            return taken
        taken += min(steps[0], rest.size)


def _negligible(counts: Floats, most: float) -> int:
    """How many bins at an end hold at most ``most`` rows together; fewer than there are."""
    return min(int(np.searchsorted(np.cumsum(counts), most, "right")), len(counts) - 1)
