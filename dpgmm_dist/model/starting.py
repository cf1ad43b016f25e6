"""The first mixture: fitted to draws from the cells, chosen by what the cells measured.

Expectation maximisation on draws ends in local optima, and draws from cells filled with Gaussians
blur which is best. So several different fits are each matched to the cells' own answers, and the
one that explains those answers best is kept. All of it is post-processing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model import cells
from dpgmm_dist.model.allocation import expected_kl, kl_curvatures, split, whitened_radius
from dpgmm_dist.model.em import Fit, fits_of_draws
from dpgmm_dist.model.matching import CellMeasure, match_cells, score_cells
from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.model.parallel import in_order
from dpgmm_dist.model.problem import Centre, Problem
from dpgmm_dist.model.shrinkage import whitener

Floats = npt.NDArray[np.float64]

_AUTO = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
_DRAWS = 20_000
_RESTARTS = 12
_PATIENCE = 2
_DIFFERENT = 4
"""Fits of each number of components that are matched and compared."""


def start_mixture(
    problem: Problem,
    centre: Centre,
    density: Mixture,
    measures: list[list[CellMeasure]],
    rho: float,
) -> Mixture:
    """The mixture that the components passes begin with.

    Parameters
    ----------
    density : cells as Gaussians, by label
    measures : what each cells pass measured of each label
    rho : budget of the last components pass, whose noise decides how many components pay
    """
    white = whitener(centre.pooled)

    def of_label(label: int) -> Fit:
        draws = cells.draw(density, label, max(4000, _DRAWS // problem.labels), 7) @ white
        own = [one[label] for one in measures]
        return _best(problem, draws, own, float(centre.rows[label]), rho, label)

    parts = in_order(of_label, range(problem.labels))
    back = np.linalg.inv(white)
    share = centre.rows / centre.rows.sum()
    counts = [len(fit.weights) for fit in parts]
    covariances = np.concatenate([back @ fit.covariances @ back for fit in parts])
    return Mixture(
        weights=np.concatenate([s * fit.weights for s, fit in zip(share, parts, strict=True)]),
        means=np.concatenate([fit.means @ back for fit in parts]),
        covariances=(covariances + covariances.transpose(0, 2, 1)) / 2,
        labels=np.repeat(np.arange(problem.labels), counts),
        label_values=problem.label_values,
    )


def _best(
    problem: Problem,
    draws: Floats,
    measures: list[CellMeasure],
    rows: float,
    rho: float,
    label: int,
) -> Fit:
    """The fit (whitened) of the best predicted likelihood: what explains the cells, less noise."""
    best, most, worse = None, -np.inf, 0
    candidates = _candidates(problem)
    effort = 1 / problem.labels / len(candidates)
    for components in candidates:
        cost = _noise_cost(problem, components, rows, draws.shape[1], rho)
        worse += 1

        def scored(fit: Fit) -> tuple[Fit, float]:
            matched = match_cells(fit, measures, _DRAWS, 13 + label, effort=effort)
            return matched, score_cells(matched, measures, _DRAWS, 13 + label)

        fits = fits_of_draws(draws, components, _RESTARTS, _DIFFERENT, 11 + label, effort)
        for matched, likelihood in in_order(scored, fits):
            score = likelihood - cost
            if best is None or score > most:
                best, most, worse = matched, score, 0
        if worse >= _PATIENCE:
            break  # more components only cost more noise
    if best is None:
        raise ValueError("model.components names no candidate")
    return best


def _candidates(problem: Problem) -> Sequence[int]:
    if isinstance(problem.components, int):
        return (problem.components,)
    if isinstance(problem.components, tuple):
        return tuple(sorted(problem.components))
    return _AUTO


def _noise_cost(problem: Problem, components: int, rows: float, p: int, rho: float) -> float:
    """Expected KL from the final pass's noise with this many equal components of one label."""
    radius = whitened_radius(p)
    sensitivities = [1.0, radius, radius**2]
    shares = split(rho, sensitivities, kl_curvatures(p), problem.allocation)
    variances = [d**2 / (2 * r) for d, r in zip(sensitivities, shares, strict=True)]
    weights = np.full(components, 1 / components)
    return sum(expected_kl(p, max(rows, 1.0), weights, variances))
