"""The budget allocation of labelled releases in high dimension: fixed shares, then by noise.

Shares were chosen on validation slices (10-20% of the training rows) of fashion_scatter128,
fashion_effnet128 and spamassassin_minilm384 at epsilon 1, 3 and 10; those for two labels by
ten-fold cross-validation on the training rows of the last. Never on a test split.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.allocation import whitened_radius
from dpgmm_dist.model.problem import Problem

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SHARES = {
    "moments.sum": 0.04,
    "moments.second": 0.16,
    "moments.label": 0.33,
    "cells.1": 0.14,
    "components.1": 0.28,
    "subspace.1": 0.05,
    "components.2": 0.0,
}
WITH_CELL_COVARIANCES = {
    "moments.sum": 0.04,
    "moments.second": 0.10,
    "moments.label": 0.15,
    "cells.1": 0.12,
    "components.1": 0.25,
    "subspace.1": 0.04,
    "components.2": 0.30,
}
"""The shares where each of several components has rows enough for its own covariance."""
# Where noise dominates label second moments (`krylov_directions`).
KRYLOV = {
    "moments.sum": 0.04,
    "moments.second": 0.01,
    "moments.label": 0.0,
    "cells.1": 0.55,
    "components.1": 0.34,
    "subspace.1": 0.06,
    "components.2": 0.0,
}
KRYLOV_TWO_PRODUCTS = {**KRYLOV, "cells.1": 0.44, "components.1": 0.25, "components.2": 0.20}
"""The same with a second product with the covariance, where the first is not mostly noise."""
KRYLOV_TWO_LABELS = {
    **KRYLOV,
    "cells.1": 0.37,
    "components.1": 0.32,
    "subspace.1": 0.03,
    "components.2": 0.18,
    "subspace.2": 0.05,
}
"""Two labels: a product, then discriminant moments, each followed by moments along the
directions."""
_TWO_PRODUCTS = 20.0
_CELL_EDGE = 6.0
LEAST_CELLS = 6
MOST_SECONDS = 10_000_000
"""Most numbers in the second moments of one pass, for memory: 160 MB of exact integers."""
_LEAST_COMPONENTS = 2
_MOST_COMPONENTS = 20
_NOISE_PER_MEAN = 0.2
"""Largest norm of the noise on a cell's mean, over the root mean squared distance."""
_POOLED_EDGE = 20.0
_LABEL_EDGE = 25.0
_NOISY_LABELS = 2.0
"""Edge of a label's second moment, divided by the number of labels, from which it is not asked for.
Two labels differ along one direction, which sums find with the noise of one vector. More labels
differ along more directions."""
_LEAST_KEPT = 1e-4
"""Smallest share kept: with less, the noise scale would leave the range of the sampler."""
_TO_CELLS = 0.35
"""Share of the budget given up by second moments that goes to the cells pass."""


def adapted(problem: Problem, budget: dict[str, float], rows: Floats) -> dict[str, float]:
    """The budget of each pass once the noisy numbers of rows (L,) are known; the same total.

    A second moment that noise dominates gives up part of its share to the sums of later passes.
    What it keeps falls with the fourth power of its noise.
    """
    if "moments.label" not in budget:
        return budget
    if cells_with_covariance(problem, rows) >= LEAST_CELLS:
        return _shared_out(budget, WITH_CELL_COVARIANCES)
    if needs_krylov(problem, rows):
        shares = KRYLOV if label_edge(problem, rows) > _TWO_PRODUCTS else KRYLOV_TWO_PRODUCTS
        if problem.labels == 2:
            shares = KRYLOV_TWO_LABELS
        return _shared_out(budget, shares)
    p, total = problem.latent_dimension, max(float(rows.sum()), 1.0)
    radius = whitened_radius(p) ** 2
    # Features are not yet whitened in this pass: clipped near the mean, energy p is spread out.
    pooled = _edge(p, 1.6 * p, budget["moments.second"], total)
    label = _edge(p, radius, budget["moments.label"], total / problem.labels)
    out = dict(budget)
    out["moments.second"] *= np.clip((_POOLED_EDGE / pooled) ** 4, _LEAST_KEPT, 1.0)
    out["moments.label"] *= np.clip((_LABEL_EDGE / label) ** 4, _LEAST_KEPT, 1.0)
    freed = sum(budget.values()) - sum(out.values())
    out["cells.1"] += _TO_CELLS * freed
    out["components.1"] += (1 - _TO_CELLS) * freed
    return out


def _shared_out(budget: dict[str, float], shares: dict[str, float]) -> dict[str, float]:
    """The budget by other shares: the first pass is spent already, the others divide the rest."""
    scale = (sum(budget.values()) - budget["moments.sum"]) / (1 - shares["moments.sum"])
    later = {name: share * scale for name, share in shares.items()}
    return {**later, "moments.sum": budget["moments.sum"]}


def cells_with_covariance(problem: Problem, rows: Floats) -> float:
    """How many components of a label may each have a covariance of their own, by the noise."""
    p = problem.latent_dimension
    rho = WITH_CELL_COVARIANCES["components.2"] * problem.rho
    edge = _edge(p, whitened_radius(p) ** 2, rho, float(rows.sum()) / problem.labels)
    numbers = problem.labels * _MOST_COMPONENTS * p * (p + 1) // 2
    if problem.covariance == "tied" or numbers > MOST_SECONDS:
        return 0.0
    return _CELL_EDGE / edge


def components_per_label(problem: Problem, rows: Floats, p: int, rho: float) -> Ints:
    """How many components each label (L,) gets: as asked, or by the noise on their means.

    ``rho`` is the budget of the pass that releases the means, ``p`` its dimension.
    """
    if isinstance(problem.components, int):
        return np.full(problem.labels, problem.components, dtype=np.int64)
    # Norm of the noise on the mean of all of a label's rows, clipped at about their spread.
    noise = math.sqrt(p / (2 * rho)) / rows
    affordable = np.floor(_NOISE_PER_MEAN / noise)
    if problem.components == "auto":
        most = np.clip(rows / (2 * p), _LEAST_COMPONENTS, _MOST_COMPONENTS)
        several = cells_with_covariance(problem, rows)
        if several >= LEAST_CELLS:
            affordable = np.floor(several * rows / rows.mean())
            most = np.full(len(rows), _MOST_COMPONENTS)
        return np.asarray(np.clip(affordable, _LEAST_COMPONENTS, most), dtype=np.int64)
    wanted = np.sort(np.asarray(problem.components, dtype=np.int64))
    return wanted[np.maximum(np.searchsorted(wanted, affordable, side="right") - 1, 0)]


def needs_krylov(problem: Problem, rows: Floats) -> bool:
    """Whether noise dominates label second moments, so that sums over half-spaces replace them."""
    wanted = problem.components
    if wanted not in ("auto", 1) and not (isinstance(wanted, tuple) and 1 in wanted):
        return False
    return label_edge(problem, rows) > _NOISY_LABELS * problem.labels


def label_edge(problem: Problem, rows: Floats) -> float:
    """The edge of a label's second moment at its share of the budget."""
    label = SHARES["moments.label"] * problem.rho
    p = problem.latent_dimension
    return _edge(p, whitened_radius(p) ** 2, label, float(rows.sum()) / problem.labels)


def _edge(p: int, sensitivity: float, rho: float, rows: float) -> float:
    """The edge of a second moment: largest eigenvalue of its noise over its mean eigenvalue."""
    return sensitivity / math.sqrt(2 * rho) / rows * math.sqrt(2 * p)
