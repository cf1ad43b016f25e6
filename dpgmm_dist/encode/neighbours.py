"""The nearest of many vectors: exact, or by cells where there are too many to compare with all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

EXACT_ITEMS = 200_000
"""Up to this many vectors, all are compared."""
_BLOCK = 512
"""Rows that are compared with all others at a time."""
_PROBES = 24
"""Cells that are searched for each row."""
_STEPS = 6
_ROWS_PER_CELL = 40
"""Number of vectors per cell that k-means uses."""


def nearest(rows: Floats, among: Floats, k: int = 1) -> tuple[Floats, Indices]:
    """Distances (n, k) from rows (n, d) to the k nearest of (m, d), and their indices (n, k).

    The nearest comes first. Every row is compared with all m.
    """
    distance, index = np.empty((len(rows), k)), np.empty((len(rows), k), np.int64)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        squared = squared_distances(block, among)
        near = np.argpartition(squared, k - 1, axis=1)[:, :k]
        # From the differences of rows: the squared distances suffer cancellation for equal rows.
        exact = np.stack(
            [np.linalg.norm(block - among[near[:, j]], axis=1) for j in range(k)], axis=1
        )
        order = np.argsort(exact, axis=1)
        distance[start : start + len(block)] = np.take_along_axis(exact, order, axis=1)
        index[start : start + len(block)] = np.take_along_axis(near, order, axis=1)
    return distance, index


def squared_distances(rows: NDArray[np.floating], among: NDArray[np.floating]) -> Floats:
    """Squared distances (n, m) between rows (n, d) and (m, d), at least 0."""
    among_squared = np.einsum("ij,ij->i", among, among)
    rows_squared = np.einsum("ij,ij->i", rows, rows)
    return np.asarray(np.maximum(rows_squared[:, None] + among_squared - 2 * rows @ among.T, 0.0))


class Search:
    """Finds the nearest of fixed vectors, approximately if there are more than `EXACT_ITEMS`.

    Many vectors are divided into cells around centres (k-means on some of them). A row is compared
    with those in the cells whose centres are nearest, so some true neighbours are missed.

    Parameters
    ----------
    items : (m, d) float32.
    exact : up to how many vectors all are compared.
    """

    def __init__(self, items: NDArray[np.float32], exact: int = EXACT_ITEMS) -> None:
        self.items = items
        self.centres: NDArray[np.float32] | None = None
        if len(items) > exact:
            self.centres = _centres(items, int(np.sqrt(len(items))))
            cell = _cells(items, self.centres)
            self._order = np.argsort(cell, kind="stable")
            self._ends = np.searchsorted(cell[self._order], np.arange(len(self.centres) + 1))

    def nearest(self, rows: NDArray[np.floating], k: int = 1) -> Indices:
        """Indices (n, k) of the k nearest items of rows (n, d), the nearest first; -1 for none."""
        rows = np.asarray(rows, np.float32)
        found = np.full((len(rows), k), -1, np.int64)
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            best = (
                self._among_all(block, k)
                if self.centres is None
                else self._in_cells(block, self.centres, k)
            )
            found[start : start + len(block), : best.shape[1]] = best
        return found

    def _among_all(self, rows: NDArray[np.float32], k: int) -> Indices:
        squared = squared_distances(rows, self.items)
        return _smallest(squared, np.broadcast_to(np.arange(len(self.items)), squared.shape), k)

    def _in_cells(self, rows: NDArray[np.float32], centres: NDArray[np.float32], k: int) -> Indices:
        probes = min(_PROBES, len(centres))
        cells = np.argpartition(squared_distances(rows, centres), probes - 1, axis=1)
        cells = cells[:, :probes]
        best = np.full((len(rows), 2 * k), np.inf)
        index = np.full((len(rows), 2 * k), -1, np.int64)
        for cell in np.unique(cells):
            members = self._order[self._ends[cell] : self._ends[cell + 1]]
            probing = np.flatnonzero((cells == cell).any(axis=1))
            squared = squared_distances(rows[probing], self.items[members])
            near = _smallest(squared, np.broadcast_to(np.arange(len(members)), squared.shape), k)
            width = near.shape[1]
            best[probing, k : k + width] = np.take_along_axis(squared, near, axis=1)
            index[probing, k : k + width] = members[near]
            order = np.argsort(best[probing], axis=1, kind="stable")[:, :k]
            index[probing, :k] = np.take_along_axis(index[probing], order, axis=1)
            best[probing, :k] = np.take_along_axis(best[probing], order, axis=1)
            best[probing, k:], index[probing, k:] = np.inf, -1
        return index[:, :k]


def assign(items: NDArray[np.float32], rows: NDArray[np.floating], repeat: int) -> Indices:
    """An item (n,) for each row, near it, where no item is given to more than ``repeat`` rows.

    Rows choose in their order. A row whose nearest items are all used up takes the nearest of
    those that are left.

    Parameters
    ----------
    items, rows : (m, d) and (n, d), n at most m ``repeat``.
    repeat : the most rows for an item.
    """
    chosen = np.full(len(rows), -1, np.int64)
    left = np.full(len(items), repeat)
    waiting = np.arange(len(rows))
    candidates = 8
    while len(waiting):
        available = np.flatnonzero(left > 0)
        near = Search(items[available]).nearest(rows[waiting], min(candidates, len(available)))
        for row, options in zip(waiting.tolist(), near, strict=True):
            for option in available[options[options >= 0]]:
                if left[option] > 0:
                    chosen[row] = option
                    left[option] -= 1
                    break
        waiting = waiting[chosen[waiting] < 0]
        candidates *= 4
    return chosen


def _smallest(values: Floats, index: Indices, k: int) -> Indices:
    """The indices (n, k) of the smallest values (n, m) of each row, in increasing order."""
    k = min(k, values.shape[1])
    near = np.argpartition(values, k - 1, axis=1)[:, :k] if k else np.empty((len(values), 0), int)
    order = np.argsort(np.take_along_axis(values, near, axis=1), axis=1, kind="stable")
    return np.asarray(np.take_along_axis(index, np.take_along_axis(near, order, axis=1), axis=1))


def _centres(items: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    sample = items[rng.choice(len(items), min(len(items), count * _ROWS_PER_CELL), replace=False)]
    centres = sample[rng.choice(len(sample), count, replace=False)]
    for _ in range(_STEPS):
        cell = _cells(sample, centres)
        order = np.argsort(cell, kind="stable")
        kept, starts = np.unique(cell[order], return_index=True)
        sums = np.add.reduceat(sample[order], starts, axis=0)
        centres[kept] = sums / np.bincount(cell, minlength=count)[kept, None]
    return centres


def _cells(items: NDArray[np.float32], centres: NDArray[np.float32]) -> Indices:
    cell = np.empty(len(items), np.int64)
    for start in range(0, len(items), _BLOCK * 8):
        block = items[start : start + _BLOCK * 8]
        cell[start : start + len(block)] = squared_distances(block, centres).argmin(axis=1)
    return cell
