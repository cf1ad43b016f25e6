"""The unit of a column: the round number that all of its values are multiples of, if there is one.

Whole numbers are often stored as floats (a column that lacks values, in pandas), days as timestamps
at midnight, and salaries in whole thousands. The first count of marginals also counts, for each
column, how many rows lie at multiples of each of a few public units. Zero is left out: columns that
are mostly zero say nothing by it about their other values.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CLOCK = (86_400.0, 3600.0, 60.0, 1.0)
"""A day, an hour, a minute and a second: units of columns that count seconds."""
CLOCK_STEPS = tuple(
    n * seconds
    for seconds, times in ((1.0, (1, 2, 5, 10, 15, 30)), (60.0, (1, 2, 5, 10, 15, 30)))
    for n in times
) + tuple(3600.0 * n for n in (1, 2, 3, 6, 12, 24))
"""Steps of bins of such columns, in seconds, where whole days would be too wide."""
_LEAST_MULTIPLES = 2
"""Multiples of a unit within the range at the least."""
_TOLERANCE = 0.01
"""In units, the smallest of those that are tried: a value so near to a multiple is one. Floats of
32 bits hold no cent exactly."""
_MOST_OTHERS = 0.01
"""Share of the rows that need not be multiples."""
_MOST_NOISE = 0.1
"""Standard deviation of the noise, as a share of the rows, beyond which the counts say nothing."""


def candidates(low: float, high: float, unit: float, clock: bool, most: int) -> tuple[float, ...]:
    """Units that values from ``low`` to ``high`` may be multiples of, from the largest on.

    Parameters
    ----------
    unit : the unit that the type of the column has, 0 for none; candidates are larger
    clock : whether the values are seconds
    most : number of multiples within the range at the most
    """
    span = high - low
    powers = range(math.floor(math.log10(span)), math.floor(math.log10(span / most)) - 1, -1)
    units = CLOCK if clock else tuple(float(f"1e{power}") for power in powers)
    # A float has no digits left for multiples that are small beside the values.
    exact = 1e-9 * max(abs(low), abs(high))
    return tuple(
        candidate
        for candidate in units
        if candidate > max(unit, exact)
        and span / candidate <= most
        and math.floor(high / candidate) - math.ceil(low / candidate) >= _LEAST_MULTIPLES - 1
    )


def multiples(first: int, last: int, unit: float) -> Floats:
    """The multiples of a unit from ``first`` to ``last`` times it; those of .01 as 0.57 is read."""
    times = np.arange(first, last + 1, dtype=np.float64)
    part = round(1 / unit) if unit < 1 else 0
    return times / part if part and abs(unit * part - 1) < 1e-9 else times * unit


def edges_around(low: float, high: float, units: tuple[float, ...]) -> Floats:
    """Edges (2 m,) that put the multiples of the smallest unit into bins of their own."""
    if not units:
        return np.empty(0)
    at = multiples(math.ceil(low / units[-1]), math.floor(high / units[-1]), units[-1])
    reach = _TOLERANCE * units[-1]
    edges = np.concatenate([at - reach, at + reach])
    return np.unique(edges[(edges > low) & (edges < high)])


def codes_of_units(low: float, high: float, edges: Floats, units: tuple[float, ...]) -> Ints:
    """For each bin between edges (B - 1,) which unit it holds multiples of.

    0 is zero, i the multiples of unit i that are none of a larger unit, and the last all others.
    """
    if not units:
        return np.zeros(len(edges) + 1, dtype=np.int64)
    ends = np.concatenate([[low], edges, [high]])
    middle = (ends[1:] + ends[:-1]) / 2
    codes = np.full(len(middle), len(units) + 1)
    times = np.rint(middle / units[-1])
    near = np.abs(middle - times * units[-1]) <= 1.5 * _TOLERANCE * units[-1]
    for i in range(len(units), 0, -1):
        codes[near & (np.mod(times, round(units[i - 1] / units[-1])) == 0)] = i
    codes[near & (times == 0)] = 0
    return codes


def unit_from(counts: Floats, sigma: float, units: tuple[float, ...]) -> float:
    """The largest unit that nearly all rows are multiples of; 0 where there is none.

    Parameters
    ----------
    counts : noisy numbers of rows by `codes_of_units`
    sigma : standard deviation of the noise on each
    """
    rows = float(counts[1 : len(units) + 2].sum())
    for i, unit in enumerate(units, start=1):
        others = float(counts[i + 1 : len(units) + 2].sum())
        noise = sigma * math.sqrt(len(units) + 1 - i)
        if noise <= _MOST_NOISE * rows and others <= _MOST_OTHERS * rows + 2 * noise:
            return unit
    return 0.0
