"""Over-seeding: k-means centres of draws from what is released so far, never of data."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_STEPS = 25


def kmeans_centres(draws: Floats, cells: int, seed: int) -> tuple[Floats, Ints]:
    """k-means centres (C, p) of draws (n, p), and the index (n,) of each draw's centre.

    Uses scipy's k-means from random draws (its k-means++ is quadratic in the number of centres).
    """
    from scipy.cluster.vq import kmeans2

    if cells == 1:
        return draws.mean(axis=0, keepdims=True), np.zeros(len(draws), dtype=np.int64)
    # A centre that lost its draws may stay where it is; to say so would be a line that other noise
    # does not cause. (Not catch_warnings: several threads run this at once.)
    warnings.filterwarnings("ignore", "One of the clusters is empty", UserWarning)
    rng = np.random.Generator(np.random.Philox(seed))
    centres, _ = kmeans2(draws, cells, iter=_STEPS, minit="points", missing="warn", rng=rng)
    return centres, nearest(draws, centres)


def nearest(points: Floats, centres: Floats) -> Ints:
    """Index (n,) of the nearest centre (C, p) of each point (n, p)."""
    distance = (centres**2).sum(axis=1) - 2 * points @ centres.T
    return np.asarray(distance.argmin(axis=1), dtype=np.int64)
