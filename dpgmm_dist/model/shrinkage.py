"""Shrinking noisy covariances by the amount the known noise calls for; always positive definite.

The noise on a released second moment is known exactly: independent, standard deviation s on the
diagonal and s/sqrt(2) off it, so its expected squared Frobenius norm is ``s^2 p (p + 1) / 2``.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

NEARLY_ALL = 0.95
"""Weight of its own measurement from which a covariance counts as not shrunk."""

_SIGNIFICANT = 3.0
"""Standard deviations of the energy of the noise above which there is signal."""


def noise_energy(p: int, scale: float) -> float:
    """Expected squared Frobenius norm of symmetric noise of scale ``scale`` in p dimensions."""
    return scale**2 * p * (p + 1) / 2


def toward(noisy: Floats, target: Floats, energy: float) -> tuple[Floats, float]:
    """Shrink a noisy symmetric matrix (p, p) toward a target; also the weight it keeps.

    ``weight = D / (D + energy)`` with ``D = max(|noisy - target|_F^2 - energy, 0)``, an estimate
    of the true squared distance: the linear combination of least expected squared error.
    """
    distance = max(float(((noisy - target) ** 2).sum()) - energy, 0.0)
    weight = distance / (distance + energy) if distance + energy > 0 else 1.0
    return target + weight * (noisy - target), weight


def isotropic(covariance: Floats) -> Floats:
    """The multiple of the identity with the same trace."""
    p = len(covariance)
    return np.eye(p) * max(float(np.trace(covariance)) / p, 0.0)


def structured(kind: str, covariance: Floats) -> Floats:
    """The covariance restricted to the kind asked for: its diagonal, a sphere, or all of it."""
    if kind == "diag":
        return np.diag(np.diagonal(covariance))
    return isotropic(covariance) if kind == "spherical" else covariance


def floor_eigenvalues(covariance: Floats, floor: float, ceiling: float = np.inf) -> Floats:
    """The symmetric part with eigenvalues held between floor and ceiling."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    held = np.clip(values, floor, ceiling)
    mended: Floats = (vectors * held) @ vectors.T
    return np.asarray((mended + mended.T) / 2)


def whitener(covariance: Floats) -> Floats:
    """The symmetric inverse square root (p, p): no eigenvector sign enters it."""
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors / np.sqrt(values)) @ vectors.T
    return np.asarray((root + root.T) / 2)


def rotation_invariant(noisy: Floats, scale: float) -> Floats:
    """The best estimate of a symmetric matrix (p, p) that keeps the noisy one's eigenvectors.

    Symmetric Gaussian noise of scale ``scale`` (off-diagonal variance ``v = scale^2 / 2``) pushes
    eigenvalues apart; in high dimension the least squared error has eigenvalues
    ``x_i = l_i - 2 v sum_j 1 / (l_i - l_j)`` (Bun, Allez, Bouchaud and Potters, "Rotational
    invariant estimator for general noisy matrices", 2016), the sum smoothed over the spacing that
    noise alone gives neighbours. Unlike linear shrinkage it keeps a few strong directions while
    it flattens the rest, and it asks for no target. A matrix no further from a sphere than noise
    alone may be becomes that sphere.
    """
    p, energy = len(noisy), noise_energy(len(noisy), scale)
    excess = float(((noisy - isotropic(noisy)) ** 2).sum()) - energy
    # The energy of noise in N = p (p + 1) / 2 numbers has relative deviation sqrt(2 / N).
    if excess < _SIGNIFICANT * energy * 2 / p:
        return isotropic(noisy)
    values, vectors = np.linalg.eigh((noisy + noisy.T) / 2)
    variance = scale**2 / 2
    gaps = values[:, None] - values
    repulsion = (gaps / (gaps**2 + variance + 1e-300)).sum(axis=1)
    # Sorted: the estimate of a larger eigenvalue is the larger one.
    held = np.sort(values - 2 * variance * repulsion)
    return np.asarray((vectors * held) @ vectors.T)


def kept_share(noisy: Floats, shrunk: Floats) -> float:
    """The share of a noisy matrix's departure from a sphere that a shrunk one keeps, 0 to 1."""
    before = float(((noisy - isotropic(noisy)) ** 2).sum())
    after = float(((shrunk - isotropic(shrunk)) ** 2).sum())
    return min(1.0, math.sqrt(after / before)) if before > 0 else 1.0


def kept_signal(values: Floats, noise: Floats) -> float:
    """Estimate of the prior variance of noisy zero-mean values (n, m) with noise (n,), at least 0.

    Rows with less noise have more weight. A value then keeps ``t / (t + noise^2)``, with this
    ``t``.
    """
    weight = 1.0 / (noise**2 + float((noise**2).mean()) + 1e-300)
    excess = (values**2).mean(axis=1) - noise**2
    return max(float((excess * weight).sum() / weight.sum()), 0.0)
