"""How near two sets of rows are: as distributions, and row by row. NOT PRIVATE where rows are real.

Rows are in feature units, in which a table's columns have comparable scales.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.errors import SpecError

Floats = NDArray[np.float64]
NEIGHBOURS = 5


def frechet_distance(first: Floats, second: Floats) -> float:
    """Squared Frechet distance between Gaussians with the moments of rows (n, d) and (m, d).

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), feature units squared; at least 0. Depends on the
    number of rows: compare it with that between two sets of real rows.
    """
    mean_1, mean_2 = first.mean(axis=0), second.mean(axis=0)
    cov_1, cov_2 = _covariance(first), _covariance(second)
    values, vectors = np.linalg.eigh(cov_1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    middle = np.linalg.eigvalsh(root @ cov_2 @ root)
    cross = np.sqrt(np.maximum(middle, 0)).sum()
    total = ((mean_1 - mean_2) ** 2).sum() + np.trace(cov_1) + np.trace(cov_2) - 2 * cross
    return max(float(total), 0.0)


def precision_and_recall(
    real: Floats, made: Floats, k: int = NEIGHBOURS
) -> tuple[float | None, float | None]:
    """Improved precision and recall (Kynkaanniemi et al. 2019) with k nearest neighbours.

    Precision: the share of made rows within the k-th neighbour distance of some real row; recall:
    the share of real rows so near to some made row. Use equally many rows of both, more than k;
    None where there are fewer.
    """
    return _covered(made, real, k), _covered(real, made, k)


def _covered(rows: Floats, by: Floats, k: int) -> float | None:
    if len(by) <= k:
        return None
    radius = nearest_distances(by, by, k + 1)[:, -1]  # the first is the row itself
    covered = 0
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        squared = _squared_distances(block, by)
        covered += int((squared <= radius**2).any(axis=1).sum())
    return covered / len(rows)


_BLOCK = 512


def nearest_distances(rows: Floats, among: Floats, k: int = 1) -> Floats:
    """Distances (n, k) from each of rows (n, d) to its k nearest among (m, d), in order."""
    return nearest(rows, among, k)[0]


def nearest(rows: Floats, among: Floats, k: int = 1) -> tuple[Floats, NDArray[np.int64]]:
    """`nearest_distances`, and the index among (m, d) of each neighbour (n, k)."""
    distance, index = np.empty((len(rows), k)), np.empty((len(rows), k), np.int64)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        squared = _squared_distances(block, among)
        near = np.argpartition(squared, k - 1, axis=1)[:, :k]
        # From the differences themselves: the squares above cancel where rows are equal.
        exact = np.stack(
            [np.linalg.norm(block - among[near[:, j]], axis=1) for j in range(k)], axis=1
        )
        order = np.argsort(exact, axis=1)
        distance[start : start + len(block)] = np.take_along_axis(exact, order, axis=1)
        index[start : start + len(block)] = np.take_along_axis(near, order, axis=1)
    return distance, index


def _squared_distances(rows: Floats, among: Floats) -> Floats:
    norms = np.einsum("ij,ij->i", among, among)
    own = np.einsum("ij,ij->i", rows, rows)
    return np.asarray(np.maximum(own[:, None] + norms - 2 * rows @ among.T, 0.0))


def memorisation(
    made: Floats, training: Floats, held_out: Floats, seed: int = 0
) -> tuple[dict[str, Any], Floats, Floats]:
    """Whether made rows are nearer to training rows than to rows that had no part in it.

    As many training rows as held-out rows are compared (the larger set is cut at random). A model
    that generalises is as often nearer to the one as to the other: a share of one half. Ties count
    half.

    Returns
    -------
    (summary, to_training, to_held_out)
        The distances (n,) of each made row to the nearest of either.
    """
    size = min(len(training), len(held_out))
    if size == 0:
        raise SpecError("the memorisation check needs training and held-out rows")
    rng = np.random.default_rng(seed)
    near, far = (
        rows[np.sort(rng.choice(len(rows), size, replace=False))] for rows in (training, held_out)
    )
    (to_training, own), (to_held_out, other) = nearest(made, near), nearest(made, far)
    to_training, to_held_out = to_training[:, 0], to_held_out[:, 0]
    closer = to_training < to_held_out
    share = float((closer + 0.5 * (to_training == to_held_out)).mean())
    # In high dimension a few real rows are the nearest of very many: what counts is how many
    # different ones there are. Under the null each is a training row with a chance of one half.
    hubs = np.bincount(np.where(closer, own[:, 0], size + other[:, 0]))
    error = 0.5 * float(np.sqrt((hubs.astype(np.float64) ** 2).sum())) / len(made)
    quantiles = {"1%": 0.01, "50%": 0.5}
    summary = {
        "share_nearer_to_training": share,
        "expected_share": 0.5,
        "standard_error": error,
        "exact_copies_of_training_rows": int((to_training == 0).sum()),
        "distance_to_training": {
            q: float(np.quantile(to_training, v)) for q, v in quantiles.items()
        },
        "distance_to_held_out": {
            q: float(np.quantile(to_held_out, v)) for q, v in quantiles.items()
        },
        "rows_compared": size,
    }
    return summary, to_training, to_held_out


def _covariance(rows: Floats) -> Floats:
    if len(rows) < 2:
        return np.zeros((rows.shape[1], rows.shape[1]))
    return np.asarray(np.cov(rows, rowvar=False)).reshape(rows.shape[1], rows.shape[1])
