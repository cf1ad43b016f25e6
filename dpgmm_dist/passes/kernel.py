"""The one kernel: assign rows to cells, map them to each cell's coordinates, clip, accumulate.

Arrays are float64 and hold integers below 2**53, or such integers times one power of two, so
every GEMM and every sum is exact in any order;
:func:`dpgmm_dist.privacy.sensitivity.check_fits` proves the bounds. What a row adds is a
function of that row and the query alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from dpgmm_dist.data.lattice import Reals
from dpgmm_dist.passes.rows import Rows, multiply, stable_order
from dpgmm_dist.privacy.exact import ExactStatistic
from dpgmm_dist.privacy.query import (
    EXACT,
    FEATURE_RADIUS,
    Block,
    IntMap,
    PassQuery,
    shrink_to_radius,
)
from dpgmm_dist.privacy.sensitivity import block_rows, saturation

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SLICE_BYTES = 1 << 19
"""Rows mapped at once: they stay in a core's own cache from one step to the next."""
_SLICE_ROWS = 1024
"""Least number of rows mapped at once: adding up second moments costs as much as some hundred
rows."""
_SORTED_BYTES = 4 << 20
"""Mapped rows sorted by their cells at once: many, so that even small cells get some."""


@dataclass(frozen=True, eq=False)
class _FloatMap:
    """An integer map ready for GEMM: ``v = rint(u @ matrix)``.

    The matrix holds integers times ``2**-shift``, and so do all products and partial sums, with
    integers below 2**53: they are exact, and only ``rint`` rounds.
    """

    matrix: Floats
    """(d, p)"""
    stretch: float
    """No row becomes longer by more than this factor (Frobenius norm)."""

    @classmethod
    def of(cls, int_map: IntMap) -> _FloatMap:
        columns = np.ascontiguousarray(int_map.matrix.T, dtype=np.float64)
        matrix = np.ldexp(columns, -int_map.shift)
        return cls(matrix, float(np.sqrt((matrix**2).sum())))


class Kernel:
    """A query made ready to run; ``accumulate`` is called a block of rows at a time.

    It keeps buffers between calls: each thread has a kernel of its own.
    """

    def __init__(self, query: PassQuery) -> None:
        self.query = query
        self.radius = query.radius
        self.saturation = saturation(query.dimension)
        cells = len(query.cell_label)
        labels = range(int(query.cell_label[-1]) + 1)
        starts = np.searchsorted(query.cell_label, labels, "left").tolist()
        self.cells_of_label = list(zip(starts, [*starts[1:], cells], strict=True))
        self.maps = [_FloatMap.of(int_map) for int_map in query.maps]
        self.scores = [scores.astype(np.float64) for scores in query.scores]
        self.cell_map = [-1] * cells if query.cell_map is None else query.cell_map.tolist()
        centres = query.centres.astype(np.float64)
        self.shifted = np.stack(
            [
                centres[k] if m < 0 else centres[k] @ self.maps[m].matrix
                for k, m in enumerate(self.cell_map)
            ]
        )
        longest = FEATURE_RADIUS + float(np.sqrt((centres**2).sum(axis=1)).max())
        stretch = max([1.0, *(float_map.stretch for float_map in self.maps)])
        self._some_are_far = stretch * longest + query.dimension > self.saturation
        self.offsets = np.zeros(cells)
        if query.offsets is not None:
            self.offsets += query.offsets
        if query.slopes is not None:
            falls = -query.slopes.astype(np.float64)
            self.falls = [np.ascontiguousarray(falls[a:b].T) for a, b in self.cells_of_label]
        self._allocate()

    def _allocate(self) -> None:
        """Buffers for one slice of rows: new memory would cost more than the work done in it."""
        d, p = self.query.width, self.query.dimension
        rows = max(_SLICE_ROWS, _SLICE_BYTES // (8 * max(d, p)))
        rows = max(1, min(rows, block_rows(self.query)))
        self._is_pooled = _is_pooled(self.query)
        self._has_one_view = _has_one_view(self.query)
        self._gathered = np.empty((rows, d))
        self._image = np.empty((rows, p))
        self._mapped = np.empty((rows, p))
        sorted_rows = max(1, min(_SORTED_BYTES // (8 * p), block_rows(self.query)))
        self._unsorted, self._sorted = np.empty((2, sorted_rows, p))

    def start(self) -> Accumulator:
        """An accumulator of zeros for this query."""
        return Accumulator(self.query)

    def accumulate(
        self, total: Accumulator, u: Reals, labels: Ints, kept: Ints | None = None
    ) -> None:
        """Add rows on the feature lattice (n, d) with label indices (n,); -1 adds nothing.

        ``kept`` (n,), where rows are weighted: how many rows of the row's privacy unit there are.
        """
        weight = self._weights(kept)
        if self.query.counts_bins:
            valid = np.flatnonzero(labels >= 0)
            total.add_codes(u[valid], labels[valid], None if weight is None else weight[valid])
            return
        if self.query.scores:
            u = self._scored(u)
        if self._is_pooled:
            self._add_pooled(total, Rows(u, None, weight), labels)
            return
        counts = np.bincount(labels + 1, minlength=len(self.cells_of_label) + 1)
        rows = Rows(u, None, weight)
        if counts.max() < len(labels):
            rows = Rows(u, stable_order(labels.astype(np.int16)), weight)
        stop = int(counts[0])
        for label, count in enumerate(counts[1:].tolist()):
            start, stop = stop, stop + count
            if count:
                self._one_label(total, rows.between(start, stop), label)

    def _scored(self, codes: Reals) -> Floats:
        """Rows on the lattice (n, d) from their codes (n, d), within the feature radius."""
        u = np.empty(codes.shape)
        for column, scores in enumerate(self.scores):
            u[:, column] = scores[codes[:, column].astype(np.intp)]
        return shrink_to_radius(u, FEATURE_RADIUS)

    def _weights(self, kept: Ints | None) -> Ints | None:
        """What each row weighs (n,): all rows of a unit together at most ``weight_unit``."""
        if not self.query.weighted:
            return None
        if kept is None:
            raise ValueError(f"query {self.query.step}: weights need the rows kept of each unit")
        return self.query.weight_unit // kept

    def _one_label(self, total: Accumulator, rows: Rows, label: int) -> None:
        first, last = self.cells_of_label[label]
        if self.query.soft:
            shares = self._responsibilities(self._distances(rows, first, last), rows.weights())
            for k, share in enumerate(shares, start=first):
                members = share.nonzero()[0]
                self._add(total, k, rows.at(members), share[members].astype(np.float64))
        elif self.query.rule == "label" or last - first == 1:
            self._add_whole(total, first, rows)
        elif self.query.rule == "nearest" and len(set(self.cell_map[first:last])) == 1:
            self._add_nearest(total, rows, label)
        else:
            if self.query.rule == "nearest":
                parts = rows.parts(self._gathered)
                cell = np.concatenate([self._nearest(u, label) for u in parts])
            else:
                cell = self._distances(rows, first, last).argmin(axis=0).astype(np.int16)
            rows = rows.at(stable_order(cell))
            stop = 0
            for k, count in enumerate(np.bincount(cell).tolist(), start=first):
                start, stop = stop, stop + count
                self._add_whole(total, k, rows.between(start, stop))

    def _add_pooled(self, total: Accumulator, rows: Rows, labels: Ints) -> None:
        """Add rows about the centre of their label, of all labels at once, sorted by label."""
        order = stable_order(labels.astype(np.int16))
        order = order[int((labels < 0).sum()) :]
        rows, labels = rows.at(order), labels[order]
        weights = rows.weights()
        stop = 0
        for u in rows.parts(self._gathered):
            start, stop = stop, stop + len(u)
            v = self._mapped[: len(u)]
            np.take(self.shifted, labels[start:stop], axis=0, out=v, mode="clip")
            v = self._clipped(self._rounded(self._images(u, self.cell_map[0]), v, 0, v))
            weight = None if weights is None else weights[start:stop].astype(np.float64)
            total.add_sorted(labels[start:stop], v, weight)

    def _add_whole(self, total: Accumulator, cell: int, rows: Rows) -> None:
        """Add rows that are in one cell alone."""
        weight = rows.weights()
        self._add(total, cell, rows, None if weight is None else weight.astype(np.float64))

    def _add(self, total: Accumulator, cell: int, rows: Rows, weight: Floats | None = None) -> None:
        """Map rows to the coordinates of their cell, clip them there, and add them up."""
        stop = 0
        for u in rows.parts(self._gathered):
            start, stop = stop, stop + len(u)
            v = self._clipped(self._coordinates(self._images(u, self.cell_map[cell]), cell))
            if weight is None:
                total.add_rows(cell, v)
            else:
                total.add_weighted(cell, v, weight[start:stop])

    def _add_nearest(self, total: Accumulator, rows: Rows, label: int) -> None:
        """Add rows to their nearest cells, which all see them under the same map.

        Rows are mapped as they come and sorted afterwards: they mostly have fewer coordinates
        then, and many cells get few rows each.
        """
        first, last = self.cells_of_label[label]
        for start in range(0, len(rows), len(self._unsorted)):
            piece = rows.between(start, min(start + len(self._unsorted), len(rows)))
            weights = piece.weights()
            cell, v, stop = np.empty(len(piece), np.int16), self._unsorted[: len(piece)], 0
            for u in piece.parts(self._gathered):
                part = slice(stop, stop := stop + len(u))
                cell[part] = self._nearest(u, label)
                np.take(self.shifted[first:last], cell[part], axis=0, out=v[part], mode="clip")
                image = self._images(u, self.cell_map[first])
                self._clipped(self._rounded(image, v[part], first, v[part]))
            order = stable_order(cell)
            v = np.take(v, order, axis=0, out=self._sorted[: len(piece)], mode="clip")
            end = 0
            for k, count in enumerate(np.bincount(cell).tolist(), start=first):
                begin, end = end, end + count
                if weights is None:
                    total.add_rows(k, v[begin:end])
                else:
                    mass = weights[order[begin:end]].astype(np.float64)
                    total.add_weighted(k, v[begin:end], mass)

    def _nearest(self, u: Floats, label: int) -> npt.NDArray[np.int16]:
        """Which of the label's cells is at the least exact distance; ties go to the lowest."""
        first, last = self.cells_of_label[label]
        distance = multiply(u, self.falls[label], np.empty((len(u), last - first)))
        distance += self.offsets[first:last]
        return np.asarray(distance.argmin(axis=1), dtype=np.int16)

    def _distances(self, rows: Rows, first: int, last: int) -> Floats:
        """Exact ``|v|^2 + offset`` (cells, n) of rows in each cell's own coordinates."""
        distance = np.empty((last - first, len(rows)))
        stop = 0
        for u in rows.parts(self._gathered):
            start, stop = stop, stop + len(u)
            image, under = u, -1
            for index, k in enumerate(range(first, last)):
                if self.cell_map[k] != under:
                    under = self.cell_map[k]
                    image = self._images(u, under)
                v = self._coordinates(image, k)
                if self._some_are_far:
                    np.clip(v, -self.saturation, self.saturation, out=v)
                np.vecdot(v, v, out=distance[index, start:stop])
        distance += self.offsets[first:last, None]
        return distance

    def _images(self, u: Floats, index: int) -> Floats:
        """Rows under a map, exact and not yet rounded; under none, the rows themselves."""
        if index < 0:
            return u
        return multiply(u, self.maps[index].matrix, self._image[: len(u)])

    def _coordinates(self, image: Floats, cell: int) -> Floats:
        """Integer coordinates of rows in a cell, not yet saturated or clipped."""
        return self._rounded(image, self.shifted[cell], cell, self._mapped[: len(image)])

    def _rounded(self, image: Floats, shifted: Floats, cell: int, out: Floats) -> Floats:
        """Images less shifted centres, all under the map of one cell, as integers into ``out``."""
        np.subtract(image, shifted, out=out)
        return out if self.cell_map[cell] < 0 else np.rint(out, out=out)

    def _clipped(self, v: Floats) -> Floats:
        """Rows clipped, in place, where all blocks see the same of them."""
        return clip_rows(v, self.radius, self.saturation) if self._has_one_view else v

    def _responsibilities(self, distance: Floats, weight: Ints | None) -> Ints:
        """Shares (cells, n) of each row on the grid of 2**-unit_bits that sum to at most a weight.

        Integer arithmetic only: excess distance indexes the driver's table of exponentials, and
        floor division normalises.
        """
        table = self.query.table
        if table is None:
            raise ValueError(f"query {self.query.step}: soft assignment needs a table")
        excess = (distance - distance.min(axis=0)).astype(np.int64)
        excess >>= self.query.table_shift
        np.minimum(excess, len(table) - 1, out=excess)
        share = table[excess]
        whole = share.sum(axis=0)
        if weight is None:
            share <<= self.query.unit_bits
        else:
            share *= weight
        share //= whole
        return np.asarray(share)


def clip_rows(v: Floats, radius: int, limit: int) -> Floats:
    """Rows saturated at ``limit`` and scaled down to the radius, in place.

    Up to the radius a squared norm is a sum of small exact integers, and a larger one cannot
    round down past it: the comparison is exact although far rows' sums are not.
    """
    long = (np.vecdot(v, v) > float(radius) ** 2).nonzero()[0]
    if long.size:
        v[long] = shrink_to_radius(np.clip(v[long], -limit, limit), radius)
    return v


def _has_one_view(query: PassQuery) -> bool:
    """Whether all blocks sum the same clipped rows, so that these are clipped once, by the kernel.

    Squares are of the rows before they are scaled down.
    """
    return all(
        query.radius_of(block) == query.radius
        and query.axes_of(block) == (0, query.dimension)
        and block.statistic != "square"
        for block in query.blocks
    )


def _is_pooled(query: PassQuery) -> bool:
    """Whether all labels have one cell each, one map, and some sum in common."""
    return (
        query.rule == "label"
        and len(query.cell_label) == int(query.cell_label[-1]) + 1 > 1
        and (query.cell_map is None or not query.cell_map.any())
        and any(block.group_count == 1 for block in query.blocks)
    )


class Accumulator:
    """Sums of slices for one query; ``finish`` gives the :class:`ExactStatistic`.

    Slices are added up in float64. A row of weight w adds at most ``w * radius**2`` to any number,
    so sums stay exact for ``EXACT / radius**2`` of weight; then they move on to the integers.
    """

    def __init__(self, query: PassQuery) -> None:
        self._query = query
        self._limit = saturation(query.dimension)
        self._has_one_view = _has_one_view(query)
        self._pending = [np.zeros(_shape(query, block)) for block in query.blocks]
        self._total = ExactStatistic.zeros(query.step, statistic_sizes(query))
        self._most = EXACT // max(query.widest_radius, 1) ** 2
        self._weight = 0

    def add_rows(self, cell: int, v: Floats) -> None:
        """Add whole rows (n, p) of one cell, n at most ``block_rows(query)``.

        Rows are within the query's radius where all blocks see them alike. Otherwise they are not
        clipped yet, and every block clips what it sees by itself.
        """
        self._add([(cell, 0, len(v))], v, None)

    def add_weighted(self, cell: int, v: Floats, weight: Floats) -> None:
        """Add rows (n, p) of one cell with integer weights (n,)."""
        self._add([(cell, 0, len(v))], v, weight)

    def add_sorted(self, cells: Ints, v: Floats, weight: Floats | None) -> None:
        """Add rows (n, p) of several cells (n,), in their order; weights (n,) or None."""
        edges = [0, *(np.flatnonzero(np.diff(cells)) + 1).tolist(), len(cells)]
        parts = [(int(cells[a]), a, b) for a, b in pairwise(edges) if a < b]
        self._add(parts, v, weight)

    def add_codes(self, codes: Reals, cells: Ints, weight: Ints | None) -> None:
        """Count rows in the bins of their codes (n, c), by the groups of their cells (n,)."""
        mass = len(codes) if weight is None else int(weight.sum())
        if self._weight + mass > self._most:
            self._flush()
        self._weight += mass
        for block, pending in zip(self._query.blocks, self._pending, strict=True):
            groups, start = block.groups[cells], 0
            for column, (bins, count) in enumerate(
                zip(block.bins or (), block.bin_counts, strict=True)
            ):
                bin_ = groups * count + bins[codes[:, column].astype(np.intp)]
                found = np.bincount(bin_, weight, minlength=len(pending) * count)
                pending[:, start : start + count] += found.reshape(-1, count)
                start += count

    def _add(self, parts: list[tuple[int, int, int]], v: Floats, weight: Floats | None) -> None:
        """Add rows, of which each cell has those from start to stop."""
        if len(v) == 0:
            return
        mass = len(v) if weight is None else int(weight.sum())
        if self._weight + mass > self._most:
            self._flush()
        self._weight += mass
        done: dict[tuple[object, ...], Floats | float] = {}
        for block, pending in zip(self._query.blocks, self._pending, strict=True):
            shared = [(parts[0][0], 0, len(v))] if block.group_count == 1 else parts
            view = (block.statistic, block.radius, block.axes)
            viewed = self._view(block, v)
            for cell, start, stop in shared:
                # Blocks that differ in their groups alone share one product.
                key = (*view, start, stop)
                if key not in done:
                    weights = None if weight is None else weight[start:stop]
                    done[key] = _moment(block, viewed[start:stop], weights)
                pending[int(block.groups[cell])] += done[key]

    def _view(self, block: Block, v: Floats) -> Floats:
        """Rows (n, q) along a block's axes, clipped; their squared lengths (n,) for a square."""
        radius = self._query.radius_of(block)
        if block.axes is not None:
            v = v[:, block.axes[0] : block.axes[1]]
        if block.statistic == "square":
            return np.asarray(np.minimum(np.vecdot(v, v), float(radius) ** 2))
        if block.statistic == "count" or self._has_one_view:
            return v
        # A copy: the next block clips the same rows in another way.
        return clip_rows(np.array(v, order="C"), radius, self._limit)

    def _flush(self) -> None:
        for index, (block, pending) in enumerate(
            zip(self._query.blocks, self._pending, strict=True)
        ):
            values = pending
            if block.statistic == "second":
                rows, columns = np.triu_indices(self._query.dimension_of(block))
                values = pending[:, rows, columns]
            self._total.add_integers(index, values.astype(np.int64).reshape(-1))
            pending[...] = 0
        self._weight = 0

    def finish(self) -> ExactStatistic:
        """The exact sums so far."""
        self._flush()
        return self._total


def _moment(block: Block, viewed: Floats, weight: Floats | None) -> Floats | float:
    """What rows add to a block: a number, (q,) or (q, q)."""
    if block.statistic == "count":
        return len(viewed) if weight is None else float(weight.sum())
    if block.statistic == "square":
        return float(viewed.sum() if weight is None else weight @ viewed)
    if block.statistic == "sum":
        return np.asarray((np.ones(len(viewed)) if weight is None else weight) @ viewed)
    return np.asarray((viewed if weight is None else viewed * weight[:, None]).T @ viewed)


def _shape(query: PassQuery, block: Block) -> tuple[int, ...]:
    """The shape of a block's sums: (G,), (G, q), (G, q, q), or (G, B) for B bins in all."""
    q = query.dimension_of(block)
    counted = sum(block.bin_counts)
    inner = {"count": (), "square": (), "sum": (q,), "second": (q, q), "bins": (counted,)}
    return (block.group_count, *inner[block.statistic])


def statistic_sizes(query: PassQuery) -> tuple[int, ...]:
    """Length of each block's vector of integers: second moments are upper triangles."""
    sizes = []
    for block in query.blocks:
        q = query.dimension_of(block)
        width = {"sum": q, "second": q * (q + 1) // 2, "bins": sum(block.bin_counts)}
        sizes.append(block.group_count * width.get(block.statistic, 1))
    return tuple(sizes)
