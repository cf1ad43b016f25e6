"""Second moments of each label in the few directions along which cells differ.

In q dimensions a row's second moment has sensitivity about q in place of p, and labels and cells
differ mostly along these few directions. So a small share of the budget makes them precise. The
rest of each covariance follows by Gaussian regression.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.allocation import clipped_share
from dpgmm_dist.model.pass_plan import BlockPlan, Latent, PassPlan
from dpgmm_dist.model.problem import Ask, Centre
from dpgmm_dist.model.shrinkage import floor_eigenvalues, noise_energy, toward, whitener

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST_DIRECTIONS = 20
_LEAST_EIGENVALUE = 0.05


def directions(
    points: Floats, weights: Floats, noise: Floats, most: int = MOST_DIRECTIONS
) -> Floats:
    """Orthonormal directions (p, q) in which points (C, p) differ by more than noise explains.

    Parameters
    ----------
    points : (C, p)
    weights : (C,), summing to 1
    noise : (C,) standard deviation of the noise on each coordinate of a point
    most : largest q
    """
    apart = (points - weights @ points) * np.sqrt(weights)[:, None]
    _, lengths, axes = np.linalg.svd(apart, full_matrices=False)
    # The largest singular value of noise alone (Marchenko and Pastur).
    typical = math.sqrt(float((weights * noise**2).mean()))
    edge = max(typical * (math.sqrt(len(points)) + math.sqrt(points.shape[1])), 1e-6 * lengths[0])
    found = int(np.clip((lengths > edge).sum(), 1, min(most, max(len(points) - 1, 1))))
    chosen = axes[:found].T.copy()
    chosen *= np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(found)])
    return chosen


def remeasured(ask: Ask, centre: Centre, covariances: Floats, axes: Floats, rho: float) -> Floats:
    """Label covariances (L, p, p) with their part in the subspace of ``axes`` (p, q) measured."""
    before = axes.T @ covariances @ axes
    answer = ask(*_plan(centre, before, axes, rho))
    block = answer.block("second")
    q = axes.shape[1]
    kept = clipped_share(q, answer.radius)
    out = np.empty_like(covariances)
    for label, old in enumerate(before):
        count = float(centre.rows[label])
        noise = block.sigma / count / kept
        measured, _ = toward(block.values[label] / count / kept, np.eye(q), noise_energy(q, noise))
        floored = floor_eigenvalues(measured, _LEAST_EIGENVALUE, answer.radius**2)
        unwhiten = answer.unwhiten[label]
        change = unwhiten @ floored @ unwhiten.T - old
        # The regression of the other coordinates on these directions stays.
        gain = covariances[label] @ axes @ np.linalg.inv(old)
        new = covariances[label] + gain @ change @ gain.T
        out[label] = (new + new.T) / 2
    return out


def _plan(centre: Centre, before: Floats, axes: Floats, rho: float) -> tuple[PassPlan, Latent]:
    latent = centre.latent
    basis = axes if latent.basis is None else latent.basis @ axes
    labels = np.arange(len(before))
    plan = PassPlan(
        step="subspace.1",
        cell_label=labels,
        centres=centre.means @ axes,
        radius=1.5 * (math.sqrt(axes.shape[1]) + 2.0),
        blocks=(BlockPlan("second", labels, rho),),
        whiten=tuple(whitener(covariance) for covariance in before),
        cell_map=labels,
    )
    return plan, Latent(latent.width, basis, latent.offset)
