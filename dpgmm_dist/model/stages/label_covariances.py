"""Covariances of labels: how their second moments differ from the pooled covariance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.covariances import SharedCovariances, from_columns
from dpgmm_dist.model.pass_plan import Latent
from dpgmm_dist.model.spectrum import clean
from dpgmm_dist.model.stages.pooled_covariance import PooledCovariance
from dpgmm_dist.model.stages.second_look import SecondLook

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LEAST_KEPT = 0.2
"""Least share of the variance that clipping is assumed to leave."""
_SIZE_PRIOR = 0.3
"""Prior standard deviation of the labels' sizes (traces) about the average size."""
_SIZE_RANGE = (0.2, 3.0)
_MOST_GROWTH = 1.5
"""Largest factor by which whitening may have enlarged the noise."""


def covariances(
    first: PooledCovariance,
    pooled: PooledCovariance,
    weights: Floats,
    look: SecondLook,
    latent: Latent,
    in_full: bool,
) -> tuple[Floats | SharedCovariances, int]:
    """(L, p, p) latent: the pooled covariance, with each label's differences in the measured axes.

    Also the number of axes in which labels have covariances of their own: all measured ones, or 0.

    Parameters
    ----------
    first : the first measurement, by which the second one was whitened
    pooled : the covariance that all labels share
    in_full : whether to return a matrix for each label, or the axes that all labels share
    """
    d, q = len(first.axes), len(look.second_axes)
    order = np.concatenate([look.second_axes, np.setdiff1d(np.arange(d), look.second_axes)])
    factor = _whitened_factor(first, pooled, look.frame, order)
    columns = first.axes[:, order] * np.sqrt(look.frame[order]) @ factor
    if latent.basis is not None:
        columns = latent.basis.T @ columns
    changes = departures(weights, look, factor[:q, :q]) if q else None
    if changes is None:
        q, changes = 0, np.zeros((len(weights), 0, 0))
    if not in_full:
        return from_columns(columns, np.eye(q) + changes), q
    shared = columns @ columns.T
    out = np.repeat(((shared + shared.T) / 2)[None], len(weights), axis=0)
    for label, change in enumerate(changes if q else ()):
        moved = columns[:, :q] @ change @ columns[:, :q].T
        out[label] += (moved + moved.T) / 2
    return out, q


def _whitened_factor(
    first: PooledCovariance, pooled: PooledCovariance, frame: Floats, order: Ints
) -> Floats:
    """(d, d) Cholesky factor of the pooled covariance along the whitened axes, in that order.

    It is triangular. So changing its first q columns leaves the other coordinates as they are,
    given the first q.
    """
    unbasis = first.axes[:, order] / np.sqrt(frame[order])
    half = unbasis.T @ pooled.axes * np.sqrt(pooled.variances)
    return np.asarray(np.linalg.cholesky(half @ half.T))


def departures(weights: Floats, look: SecondLook, factor: Floats) -> Floats | None:
    """(L, q, q) differences of each label from the identity in whitened axes; None for none.

    Each label's second moment is cleaned as the pooled one was. What clipping removed is estimated
    from the labels' average. This average differs from the identity by the error of the pooled
    covariance, which all labels share. So the differences are used only where their estimated gain
    exceeds that of cleaning the average.

    Parameters
    ----------
    factor : (q, q) Cholesky factor of the pooled covariance in the axes of the second measurement
    """
    white, back = _whitening(factor)
    q = len(white)
    if not q:
        return None
    seconds = white @ look.seconds @ white.T
    average = np.einsum("l,lij->ij", weights, seconds)
    kept = max(float(np.trace(average)) / q, _LEAST_KEPT)
    noises = look.second_noise * float((white**2).sum()) / q
    average_noise = float(np.linalg.norm(weights * noises)) / kept
    alike = clean(average / kept, average_noise, q, float(look.counts.sum()))
    out, gain = np.empty_like(seconds), 0.0
    for label, second in enumerate(seconds / kept):
        noise = float(noises[label]) / kept
        # The size (trace) of a label beside the others, shrunk by its own noise.
        trust = _SIZE_PRIOR**2 / (_SIZE_PRIOR**2 + noise**2 / q)
        size = float(np.clip(1 + trust * (float(np.trace(second)) / q - 1), *_SIZE_RANGE))
        found = clean(second, noise, size * q, float(look.counts[label]))
        out[label] = (found.axes * found.variances) @ found.axes.T - np.eye(q)
        # The gain of a sphere of its size, and the further gain of its own variances.
        of_size = 0.5 * q * (size - 1 - float(np.log(size)))
        gain += float(weights[label]) * (of_size + found.gain)
    if gain <= alike.gain:
        return None
    return np.asarray(back @ out @ back.T)


def _whitening(factor: Floats) -> tuple[Floats, Floats]:
    """(k, q) the map to k whitened directions, and (q, k) the one back to all q of them.

    Directions along which the rows turned out to vary much less than the first measurement said are
    left out: whitened by the final covariance, they have more noise than the others.
    """
    axes, growth, others = np.linalg.svd(np.linalg.inv(factor))
    kept = growth <= _MOST_GROWTH
    return np.asarray(growth[kept, None] * others[kept]), axes[:, kept]
