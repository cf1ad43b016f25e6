"""Over-seeding: k-means centres of draws from the density released so far, never of rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64] | npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

LLOYD_STEPS = 25
_CHUNK = 2048
"""Points compared at a time, so that what is compared stays in the processor's cache."""


def kmeans_centres(
    draws: Reals, cells: int, seed: int, steps: int = LLOYD_STEPS
) -> tuple[Reals, Ints]:
    """k-means centres (C, p) of draws (n, p), and the index (n,) of each draw's centre.

    In the precision of the draws.

    Lloyd's algorithm from random draws: each step is one product of matrices, where scipy's
    compares coordinate by coordinate (and takes a second to import). A centre that lost its draws
    stays where it is.
    """
    if cells == 1:
        return draws.mean(axis=0, keepdims=True), np.zeros(len(draws), dtype=np.int64)
    rng = np.random.Generator(np.random.Philox(seed))
    centres = draws[rng.choice(len(draws), cells, replace=False)]
    index = nearest(draws, centres)
    for _ in range(steps):
        order = np.argsort(index.astype(np.int16), kind="stable")  # 16 bits: in linear time
        counts = np.bincount(index, minlength=cells)
        occupied, first = counts.nonzero()[0], np.cumsum(counts) - counts
        # np.take gathers rows in less time than an index does.
        total = np.add.reduceat(np.take(draws, order, axis=0), first[occupied], axis=0)
        centres[occupied] = total / counts[occupied, None].astype(draws.dtype)
        before, index = index, nearest(draws, centres)
        if np.array_equal(before, index):
            break
    return centres, index


def nearest(points: Reals, centres: Reals) -> Ints:
    """Index (n,) of the nearest centre (C, p) of each point (n, p)."""
    half = (centres**2).sum(axis=1) / 2
    out = np.empty(len(points), dtype=np.int64)
    for first in range(0, len(points), _CHUNK):
        near = points[first : first + _CHUNK] @ centres.T
        near -= half
        out[first : first + _CHUNK] = near.argmax(axis=1)
    return out
