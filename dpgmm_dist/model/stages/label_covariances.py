"""Covariances of labels: what their second moments show beyond the one that all share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.plan import Latent
from dpgmm_dist.model.spectrum import clean
from dpgmm_dist.model.stages.pooled_covariance import PooledCovariance
from dpgmm_dist.model.stages.second_look import SecondLook

Floats = npt.NDArray[np.float64]

_LEAST_KEPT = 0.2
"""Least share of the variance that clipping is taken to leave."""
_SIZE_PRIOR = 0.3
"""Spread of the labels' sizes about that of all before they are measured."""
_SIZE_RANGE = (0.2, 3.0)


def covariances(
    pooled: PooledCovariance, weights: Floats, look: SecondLook, latent: Latent
) -> Floats:
    """(L, p, p) latent: the pooled covariance, with what differs in the axes asked about."""
    axes = pooled.axes if latent.basis is None else latent.basis.T @ pooled.axes
    shared = (axes * pooled.variances) @ axes.T
    out = np.repeat(((shared + shared.T) / 2)[None], len(weights), axis=0)
    if not look.seconds.size:
        return out
    basis = axes[:, look.second_axes] * np.sqrt(pooled.variances[look.second_axes])
    for label, change in enumerate(departures(weights, look)):
        moved = basis @ change @ basis.T
        out[label] += (moved + moved.T) / 2
    return out


def departures(weights: Floats, look: SecondLook) -> Floats:
    """(L, q, q) what to add to the identity for each label, in whitened axes.

    Each label's second moment is cleaned as the pooled one was; what clipping took is what it took
    of the labels' average.
    """
    q = look.seconds.shape[1]
    average = float(np.einsum("l,lii->", weights, look.seconds)) / q
    kept = max(average, _LEAST_KEPT)
    out = np.empty_like(look.seconds)
    for label, second in enumerate(look.seconds / kept):
        noise = float(look.second_noise[label]) / kept
        # The size of a label beside the others, shrunk by its own noise.
        trust = _SIZE_PRIOR**2 / (_SIZE_PRIOR**2 + noise**2 / q)
        size = float(np.clip(1 + trust * (float(np.trace(second)) / q - 1), *_SIZE_RANGE))
        found = clean(second, noise, size * q, float(look.counts[label]))
        out[label] = (found.axes * found.variances) @ found.axes.T - np.eye(q)
    return out
