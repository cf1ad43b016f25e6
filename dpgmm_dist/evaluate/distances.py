"""Distances between two sets of rows, as distributions and row by row. NOT PRIVATE on real rows.

Rows are in feature units, in which the columns of a table have comparable scales.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.encode.neighbours import nearest, squared_distances
from dpgmm_dist.errors import SpecError

Floats = NDArray[np.float64]
NEIGHBOURS = 5
_BLOCK = 512
"""Rows that are compared with all others at a time."""


def frechet_distance(first: Floats, second: Floats) -> float:
    """Squared Frechet distance between Gaussians with the moments of rows (n, d) and (m, d).

    This is |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), in squared feature units, at least 0. It
    depends on the number of rows: compare it with the distance between two sets of real rows.
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
    real: Floats, synthetic: Floats, k: int = NEIGHBOURS
) -> tuple[float | None, float | None]:
    """Improved precision and recall (Kynkaanniemi et al. 2019) with k nearest neighbours.

    A row covers the ball whose radius is the distance to its k-th nearest neighbour in its own
    set. Precision is the share of synthetic rows that some real row covers. Recall is the share of
    real rows that some synthetic row covers.

    Parameters
    ----------
    real, synthetic
        Rows (n, d) and (m, d), best with n equal to m.
    k
        Number of neighbours.

    Returns
    -------
    (precision, recall)
        From 0 to 1; None if the covering set has no more than k rows.
    """
    return _covered_share(synthetic, real, k), _covered_share(real, synthetic, k)


def _covered_share(rows: Floats, covering: Floats, k: int) -> float | None:
    if len(covering) <= k:
        return None
    # One neighbour more, because the nearest one is the row itself.
    radius = nearest_distances(covering, covering, k + 1)[:, -1]
    covered = 0
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        squared = squared_distances(block, covering)
        covered += int((squared <= radius**2).any(axis=1).sum())
    return covered / len(rows)


def nearest_distances(rows: Floats, among: Floats, k: int = 1) -> Floats:
    """Distances (n, k) from each of rows (n, d) to the k nearest of (m, d), in increasing order."""
    return nearest(rows, among, k)[0]


def memorisation(
    synthetic: Floats, training: Floats, held_out: Floats, seed: int = 0
) -> tuple[dict[str, Any], Floats, Floats]:
    """Whether synthetic rows are nearer to training rows than to held-out rows.

    The same number of training and held-out rows is compared; the larger set is cut at random. If
    a model generalises, half of its rows are nearer to a training row and half to a held-out row.
    Ties count half.

    Parameters
    ----------
    synthetic, training, held_out
        Rows (n, d), (m, d) and (l, d).
    seed
        Seed of the random cut.

    Returns
    -------
    (summary, to_training, to_held_out)
        Plain values, and the distances (n,) from each synthetic row to the nearest training and
        held-out row.

    Raises
    ------
    SpecError
        When there is no training row, or no held-out row.
    """
    size = min(len(training), len(held_out))
    if size == 0:
        raise SpecError("the memorisation check needs training and held-out rows")
    rng = np.random.default_rng(seed)
    training, held_out = (
        rows[np.sort(rng.choice(len(rows), size, replace=False))] for rows in (training, held_out)
    )
    training_distances, training_index = nearest(synthetic, training)
    held_out_distances, held_out_index = nearest(synthetic, held_out)
    to_training, to_held_out = training_distances[:, 0], held_out_distances[:, 0]
    closer = to_training < to_held_out
    share = float((closer + 0.5 * (to_training == to_held_out)).mean())
    # In high dimension a few real rows ("hubs") are the nearest to very many synthetic rows, so
    # the error depends on the number of different ones. Under the null hypothesis, each of them is
    # a training row with probability one half.
    hubs = np.bincount(np.where(closer, training_index[:, 0], size + held_out_index[:, 0]))
    error = 0.5 * float(np.sqrt((hubs.astype(np.float64) ** 2).sum())) / len(synthetic)
    quantiles = {"1%": 0.01, "50%": 0.5}
    summary = {
        "share_nearer_to_training": share,
        "expected_share": 0.5,
        "standard_error": error,
        "exact_copies_of_training_rows": int((to_training == 0).sum()),
        "distance_to_training": {
            name: float(np.quantile(to_training, q)) for name, q in quantiles.items()
        },
        "distance_to_held_out": {
            name: float(np.quantile(to_held_out, q)) for name, q in quantiles.items()
        },
        "rows_compared": size,
    }
    return summary, to_training, to_held_out


def _covariance(rows: Floats) -> Floats:
    if len(rows) < 2:
        return np.zeros((rows.shape[1], rows.shape[1]))
    return np.asarray(np.cov(rows, rowvar=False)).reshape(rows.shape[1], rows.shape[1])
