"""What one unit can change in each statistic, and what that costs: integers and fractions only.

Proofs are in docs/privacy.md under the names of these functions. For one row with coordinates
``v``, ``|v| <= t`` in whole lattice units, and responsibilities ``r_k >= 0`` with
``sum r_k <= w`` (``w = weight_unit``):

* count: ``sqrt(sum r_k^2) <= w``;
* sum: ``sqrt(sum |r_k v_k|^2) <= w t``;
* second moment in svec coordinates: ``sqrt(sum |r_k v_k v_k^T|_F^2) <= w t^2``;
* squared length: ``sqrt(sum (r_k min(|v_k|^2, t^2))^2) <= w t^2``;
* bins of c columns: one bin a column, ``sqrt(c sum r_k^2) <= w sqrt(c)``.

A block that sees some of the coordinates, or has a radius of its own, clips what it sees to its
own ``t``: the same holds for it.

A privacy unit is at most ``unit_rows`` such rows, or weighted rows with ``sum r_k <= w`` over all
of them together: by the triangle inequality it changes ``unit_rows`` times as much, or as much.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from dpgmm_dist.errors import SpecError
from dpgmm_dist.privacy.query import (
    CAPACITY,
    EXACT,
    FEATURE_RADIUS,
    LARGEST_SCORE,
    MOST_CODES,
    Block,
    IntMap,
    PassQuery,
)

_POWERS = {"count": 0, "sum": 1, "second": 2, "square": 2, "bins": 0}


def squared_sensitivity(query: PassQuery, block: Block) -> int:
    """Squared L2 sensitivity of one block to adding or removing one unit, in integer units."""
    of_column = (
        query.unit_rows
        * query.weight_unit
        * int(query.radius_of(block) ** _POWERS[block.statistic])
    )
    columns = len(query.edges) if block.statistic == "bins" else 1
    return columns * of_column**2


def sensitivity(query: PassQuery, block: Block) -> float:
    """L2 sensitivity of one block, as a float: the cost is computed from its exact square."""
    return math.sqrt(squared_sensitivity(query, block))


def block_cost(query: PassQuery, block: Block) -> Fraction:
    """zCDP cost rho of measuring one block, from the very scales that are drawn with.

    A second moment's upper triangle is noised entry by entry, so the cost is
    ``sum_i D_ii^2 / (2 s_d^2) + sum_{i<j} D_ij^2 / (2 s_o^2)``; with ``|D|_F^2 = sum_i D_ii^2 +
    2 sum_{i<j} D_ij^2 <= (w t^2)^2`` that is at most ``(w t^2)^2 max(1/(2 s_d^2), 1/(4 s_o^2))``.
    """
    squared = Fraction(squared_sensitivity(query, block))
    price = 1 / (2 * _exact(block.sigma) ** 2)
    if block.statistic == "second" and query.dimension_of(block) > 1:
        if block.sigma_off is None:
            raise SpecError(f"query {query.step}: second moments need an off-diagonal noise scale")
        price = max(price, 1 / (4 * _exact(block.sigma_off) ** 2))
    return squared * price


def query_cost(query: PassQuery) -> Fraction:
    """zCDP cost of one query for one unit: the sum over its blocks (one unit meets them all)."""
    return sum((block_cost(query, block) for block in query.blocks), Fraction(0))


def _exact(sigma: float) -> Fraction:
    if not (math.isfinite(sigma) and sigma > 0):
        raise SpecError(f"noise scale must be positive and finite, got {sigma!r}")
    return Fraction(sigma)


def sigma_for(squared: int, rho: float) -> float:
    """The noise scale, rounded up, at which a block of this squared sensitivity costs at most rho.

    Of integer statistics a scale below a quarter is refused: it would be no noise at all.
    """
    if not (math.isfinite(rho) and rho > 0):
        raise SpecError(f"rho of a block must be positive and finite, got {rho!r}")
    sigma = max(math.sqrt(squared) / math.sqrt(2 * rho), 0.25)
    while Fraction(squared) > 2 * Fraction(rho) * Fraction(sigma) ** 2:
        sigma = math.nextafter(sigma, math.inf)
    return sigma


def off_diagonal(sigma: float) -> float:
    """``sigma / sqrt 2`` rounded up: off-diagonal variance half the diagonal's."""
    off = sigma / math.sqrt(2)
    while 2 * Fraction(off) ** 2 < Fraction(sigma) ** 2:
        off = math.nextafter(off, math.inf)
    return off


def saturation(dimension: int) -> int:
    """Public limit on each mapped coordinate: p of them square and sum below 2**52 exactly."""
    return 1 << ((52 - math.ceil(math.log2(max(dimension, 2)))) // 2)


def block_rows(query: PassQuery) -> int:
    """The most rows whose block sums stay below 2**53 in every statistic of the query."""
    return EXACT // (query.weight_unit * max(query.widest_radius, 1) ** 2)


def check_fits(query: PassQuery) -> None:
    """Prove that every product and sum of the kernel is exact at the public capacity.

    Raises SpecError with the sizes otherwise. Bounds: Cauchy-Schwarz bounds ``sum |a||b|`` of
    each scalar product; totals are two limbs of 32 and 63 bits.
    """
    _check_sense(query)
    limit = saturation(query.dimension)
    problems: list[str] = []

    def need(what: str, size: float, bound: float) -> None:
        if not size < bound:
            problems.append(f"{what} is {size:.3g}, must be below {bound:.3g}")

    centre = _longest(query.centres)
    reach = FEATURE_RADIUS + centre
    need("a centred row", reach * reach, EXACT)
    for int_map in query.maps:
        need("a mapped row", _map_reach(int_map, reach), EXACT)
    need("the radius", max(query.radius, query.widest_radius), limit + 1)
    # Weights need bits: with them blocks may be short, which costs time alone.
    least = 127 if query.weighted else 1024
    need("rows in a block (reciprocal)", 1 / max(block_rows(query), 1), 1 / least)
    largest = 0 if query.offsets is None else int(np.abs(query.offsets).max())
    if query.rule == "nearest" and query.slopes is not None:
        need("a squared distance", FEATURE_RADIUS * _longest(query.slopes) + largest, EXACT)
    if query.rule == "full":
        need("a squared distance", query.dimension * limit**2 + largest, EXACT)
    if query.soft and query.table is not None:
        share = int(query.table.max()) * len(query.cell_label)
        need("a responsibility", share * query.weight_unit, 2.0**62)
    need("a total", CAPACITY * query.weight_unit * query.widest_radius**2, 2.0**94)
    for block in query.blocks:
        need("a noise scale", max(block.sigma, block.sigma_off or 0), 2.0**55)
    if problems:
        raise SpecError(f"query {query.step} does not fit exact arithmetic: " + "; ".join(problems))


def _check_sense(query: PassQuery) -> None:
    """Refuse what the proofs take for granted: cells partition rows, shares are not negative."""
    cells, p = len(query.cell_label), query.dimension
    steps = np.diff(query.cell_label, prepend=-1)
    maps = [-1] if query.cell_map is None else query.cell_map.tolist()
    table = query.table
    wrong = {
        "cell_label must count up from 0, at most 2**15 labels, each with a cell": not cells
        or steps[0] != 1
        or bool(((steps != 0) & (steps != 1)).any())
        or query.cell_label[-1] >= 1 << 15,
        "a label must have fewer than 2**15 cells": _most_of_one(query.cell_label) >= 1 << 15,
        "centres must be integers (C, d)": not _integers(query.centres, cells, query.width),
        "maps must be integers (p, d)": not all(
            _integers(int_map.matrix, p, query.width) for int_map in query.maps
        ),
        "cell_map must name a map for each cell, or none where p is d": (
            query.cell_map is not None and len(maps) != cells
        )
        or not -1 <= min(maps) <= max(maps) < len(query.maps)
        or (min(maps) < 0 and p != query.width),
        "rule 'nearest' needs slopes (C, d)": query.rule == "nearest"
        and not _integers(query.slopes, cells, query.width),
        "offsets must be integers (C,)": query.offsets is not None
        and not _integers(query.offsets, cells),
        "radius must be an integer and at least 1": not _is_integer(query.radius)
        or query.radius < 1,
        "unit_bits must not be negative": query.unit_bits < 0,
        "unit_rows must be at least 1": query.unit_rows < 1,
        "rows that are weighted count as one": query.weighted and query.unit_rows != 1,
        "table_shift must be 0 to 62": not 0 <= query.table_shift <= 62,
        "soft assignment needs rule 'full'": query.soft and query.rule != "full",
        "soft assignment needs a table of shares, none negative, the first positive": query.soft
        and (table is None or not table.size or table[0] < 1 or int(table.min()) < 0),
        "groups must number each cell's group from 0": not all(
            _integers(block.groups, cells) and block.groups.min() >= 0 for block in query.blocks
        ),
        "statistic must be count, sum, second, square or bins": not all(
            block.statistic in _POWERS for block in query.blocks
        ),
        "the radius of a block must be an integer and at least 1": not all(
            block.radius is None or (_is_integer(block.radius) and block.radius >= 1)
            for block in query.blocks
        ),
        "axes of a block must be some of the coordinates, from start to stop": not all(
            block.axes is None or _is_range(block.axes, p) for block in query.blocks
        ),
        **_wrong_codes(query),
    }
    if any(wrong.values()):
        found = "; ".join(text for text, is_wrong in wrong.items() if is_wrong)
        raise SpecError(f"query {query.step} makes no sense: {found}")


def _wrong_codes(query: PassQuery) -> dict[str, bool]:
    """What may be wrong with codes, bins and scores: a row must have one bin in each column."""
    codes = list(query.code_counts)
    counts = query.counts_bins
    return {
        "edges must be finite, increasing and fewer than 2**16, for each of the columns": bool(
            codes
        )
        and (len(codes) != query.width or not all(map(_are_edges, query.edges))),
        "codes must be counted in bins or have scores": bool(codes)
        and counts == bool(query.scores),
        "bins and scores need edges": not codes and (counts or bool(query.scores)),
        "bins stand alone, and each cell is a label": counts
        and (
            any(block.statistic != "bins" for block in query.blocks)
            or query.rule != "label"
            or bool(query.maps)
            or query.radius != 1
        ),
        "bins must number the bin of each code from 0, in each column": not all(
            (block.bins is not None) == (block.statistic == "bins") and _name_codes(block, codes)
            for block in query.blocks
        ),
        "scores must be integers of at most 2**18, for each code": bool(query.scores)
        and not (
            len(query.scores) == len(codes)
            and all(map(_integers, query.scores, codes))
            and all(int(np.abs(scores).max()) <= LARGEST_SCORE for scores in query.scores)
        ),
        "distances need one column, and a finite point that they are from": query.about is not None
        and (len(codes) != 1 or not counts or not np.isfinite(query.about).all()),
        "columns must number the features that codes are of": query.columns is not None
        and (
            not _integers(query.columns, query.width)
            or query.columns.min() < 0
            or (counts and len(set(query.columns.tolist())) != query.width)
            or query.about is not None
        ),
        "missing values need codes, and no distances": query.missing
        and (not codes or query.about is not None),
    }


def _are_edges(edges: np.ndarray) -> bool:
    finite = edges.ndim == 1 and edges.dtype == np.float64 and bool(np.isfinite(edges).all())
    return finite and len(edges) < MOST_CODES and bool((np.diff(edges) > 0).all())


def _name_codes(block: Block, codes: list[int]) -> bool:
    """Whether a block says of each code in which bin it is; true of other statistics."""
    if block.bins is None:
        return True
    fits = len(block.bins) == len(codes) and all(map(_integers, block.bins, codes))
    within = fits and all(0 <= bins.min() <= bins.max() < MOST_CODES for bins in block.bins)
    return within and block.radius is None and block.axes is None


def _most_of_one(cell_label: np.ndarray) -> int:
    return int(np.unique(cell_label, return_counts=True)[1].max(initial=0))


def _integers(array: np.ndarray | None, *shape: int) -> bool:
    return array is not None and array.shape == shape and array.dtype.kind == "i"


def _is_integer(value: object) -> bool:
    """Whether a number is a Python integer: those of numpy overflow when they are squared."""
    return isinstance(value, int)


def _is_range(axes: tuple[int, ...], p: int) -> bool:
    return len(axes) == 2 and all(map(_is_integer, axes)) and 0 <= axes[0] < axes[1] <= p


def _longest(vectors: np.ndarray) -> float:
    return float(np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1)).max(initial=0.0)) + 1.0


def _map_reach(int_map: IntMap, reach: float) -> float:
    return _longest(int_map.matrix) * reach
