"""Covariances of labels: what their second moments show beyond the one that all share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.covariances import SharedCovariances, from_columns
from dpgmm_dist.model.plan import Latent
from dpgmm_dist.model.spectrum import clean
from dpgmm_dist.model.stages.pooled_covariance import PooledCovariance
from dpgmm_dist.model.stages.second_look import SecondLook

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LEAST_KEPT = 0.2
"""Least share of the variance that clipping is taken to leave."""
_SIZE_PRIOR = 0.3
"""Spread of the labels' sizes about that of all before they are measured."""
_SIZE_RANGE = (0.2, 3.0)


def covariances(
    first: PooledCovariance,
    pooled: PooledCovariance,
    weights: Floats,
    look: SecondLook,
    latent: Latent,
    in_full: bool,
) -> Floats | SharedCovariances:
    """(L, p, p) latent: the pooled covariance, with what differs in the axes asked about.

    Parameters
    ----------
    first : by which the second look was whitened
    pooled : the covariance that all labels share
    in_full : whether to return a matrix for each label, or the axes that all labels share
    """
    d, q = len(first.axes), len(look.second_axes)
    order = np.concatenate([look.second_axes, np.setdiff1d(np.arange(d), look.second_axes)])
    factor = _whitened_factor(first, pooled, look.frame, order)
    columns = first.axes[:, order] * np.sqrt(look.frame[order]) @ factor
    if latent.basis is not None:
        columns = latent.basis.T @ columns
    changes = np.zeros((len(weights), q, q))
    if q:
        changes = departures(weights, look, factor[:q, :q])
    if not in_full:
        return from_columns(columns, np.eye(q) + changes)
    shared = columns @ columns.T
    out = np.repeat(((shared + shared.T) / 2)[None], len(weights), axis=0)
    for label, change in enumerate(changes if q else ()):
        moved = columns[:, :q] @ change @ columns[:, :q].T
        out[label] += (moved + moved.T) / 2
    return out


def _whitened_factor(
    first: PooledCovariance, pooled: PooledCovariance, frame: Floats, order: Ints
) -> Floats:
    """(d, d) Cholesky factor of the pooled covariance along the whitened axes, in that order.

    It is triangular: changing the first q of its columns changes nothing of the rest given those.
    """
    unbasis = first.axes[:, order] / np.sqrt(frame[order])
    half = unbasis.T @ pooled.axes * np.sqrt(pooled.variances)
    return np.asarray(np.linalg.cholesky(half @ half.T))


def departures(weights: Floats, look: SecondLook, factor: Floats) -> Floats:
    """(L, q, q) what to add to the identity for each label, in whitened axes.

    Each label's second moment is cleaned as the pooled one was; what clipping took is what it took
    of the labels' average.

    Parameters
    ----------
    factor : (q, q) Cholesky factor of the pooled covariance in the axes of the second look
    """
    q = look.seconds.shape[1]
    white = np.linalg.inv(factor)
    seconds = white @ look.seconds @ white.T
    average = float(np.einsum("l,lii->", weights, seconds)) / q
    kept = max(average, _LEAST_KEPT)
    noises = look.second_noise * float((white**2).sum()) / q
    out = np.empty_like(seconds)
    for label, second in enumerate(seconds / kept):
        noise = float(noises[label]) / kept
        # The size of a label beside the others, shrunk by its own noise.
        trust = _SIZE_PRIOR**2 / (_SIZE_PRIOR**2 + noise**2 / q)
        size = float(np.clip(1 + trust * (float(np.trace(second)) / q - 1), *_SIZE_RANGE))
        found = clean(second, noise, size * q, float(look.counts[label]))
        out[label] = (found.axes * found.variances) @ found.axes.T - np.eye(q)
    return out
