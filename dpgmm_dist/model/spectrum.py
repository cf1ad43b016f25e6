"""Cleaning the eigenvalues of a second moment that has symmetric noise.

Noise spreads the eigenvalues of a symmetric p x p matrix like a semicircle of radius ``2 v sqrt p``
(v the standard deviation of an off-diagonal entry), and turns its eigenvectors. The variance that
the rows have along a noisy eigenvector with eigenvalue y is about ``y - 2 p v^2 H(y)``, where H is
the Hilbert transform of the noisy spectrum (Bun, Allez, Bouchaud and Potters 2016). An unbiased
estimate of the log likelihood of the rows (Stein 1981), which costs no budget, chooses how far to
smooth H, where to put a floor, and how far to shrink all variances to their mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

Floats = npt.NDArray[np.float64]

_WIDTHS = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Widths that smooth the Hilbert transform, in half radii of the semicircle, ``v sqrt p``."""
_FLOORS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
"""Least variances, in mean variances."""
_PULLS = (1.0, 0.75, 0.5)
"""Share of its distance from the mean that a variance keeps."""
_DOUBT = 2.5
"""Standard errors that are subtracted from a candidate's gain. They take the candidate as fixed."""
_LOUD = 15.0
"""Half radius of the semicircle, in mean variances, above which more standard errors are
subtracted. The more noise there is, the less any candidate can gain, and the more a wrong one
loses."""
_LEAST_GAIN = 0.1
"""Full standard errors that a candidate has to gain over the sphere."""
_MOST_PROBES, _LEAST_PROBES, _PROBED = 32, 8, 1 << 14
"""Number of finite differences for p eigenvalues: ``_PROBED / p``, within bounds."""
_NUMBERS = 1 << 16
"""Gaps between eigenvalues of spectra that are cleaned at once: what caches hold."""
_STEP = 0.02
"""Step of a finite difference, in standard deviations of an off-diagonal entry."""
_SIMULATIONS, _WIDE = 3, 256
"""Simulations for an expected loss; a single one in more dimensions than the second value."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Variances along the eigenvectors of a noisy second moment."""

    axes: Floats
    """(p, p) orthonormal columns."""
    variances: Floats
    """(p,) positive, increasing."""
    gain: float
    """Estimated log likelihood of a row over that of the sphere of the same trace, in nats."""
    error: float
    """Standard error of the gain, from the noise."""


def clean(noisy: Floats, scale: float, trace: float, rows: float) -> Spectrum:
    """Axes and variances of a second moment a row, from a noisy one.

    Parameters
    ----------
    noisy : (p, p) symmetric, per row
    scale : standard deviation of the noise on a diagonal entry; off it, ``scale / sqrt 2``
    trace : sum of the variances, measured separately; positive
    rows : number of rows, for their sampling error
    """
    values, axes = np.linalg.eigh(noisy)
    p = len(values)
    scale = max(scale, 1e-12 * trace)
    edge = scale * np.sqrt(p / 2)
    [candidates] = _candidates(values[None], edge, trace)
    gain, fixed, error = _gains(values, candidates, edge, trace, scale, rows)
    doubt = _DOUBT * max(1.0, edge * p / trace / _LOUD)
    best = int((gain - doubt * fixed).argmax())
    if gain[best] - gain[0] < _LEAST_GAIN * error[best]:
        best = 0
    return Spectrum(axes, candidates[best], float(gain[best] - gain[0]), float(error[best]))


def _candidates(y: Floats, edge: float, trace: float) -> Floats:
    """Variances (M, N, p) along the noisy axes of M spectra (M, p), the sphere first."""
    count, p = y.shape
    mean = trace / p
    least = min(0.05 * edge / mean, 0.4)
    smoothed = np.empty((count, len(_WIDTHS), p))
    together = max(_NUMBERS // p**2, 1)
    for start in range(0, count, together):
        part = y[start : start + together]
        gaps = part[:, :, None] - part[:, None, :]
        for i, width in enumerate(_WIDTHS):
            hilbert = (gaps / (gaps**2 + (width * edge) ** 2)).sum(axis=2) / p
            noisy = part - 2 * edge**2 * hilbert
            for x, values in zip(smoothed[start:, i], noisy, strict=False):
                x[:] = isotonic_regression(values).x
    smoothed += mean - smoothed.mean(axis=2, keepdims=True)
    kept = _with_trace(smoothed, trace, np.maximum(_FLOORS, least) * mean)
    pulled = mean + np.array(_PULLS)[:, None] * (kept - mean)[..., None, :]
    sphere = np.full((count, 1, p), mean)
    return np.concatenate([sphere, pulled.reshape(count, -1, p)], axis=1)


def _with_trace(x: Floats, trace: float, floors: Floats) -> Floats:
    """Rows of ``x`` (..., p) raised to each floor (F,), their excess scaled to the trace."""
    p = x.shape[-1]
    excess = np.maximum(x[..., None, :] - floors[:, None], 0.0)
    total = excess.sum(axis=-1, keepdims=True)
    scale = (trace - floors * p)[:, None] / np.where(total > 0, total, 1.0)
    return np.asarray(np.where(total > 0, floors[:, None] + excess * scale, trace / p))


def _gains(
    y: Floats, candidates: Floats, edge: float, trace: float, scale: float, rows: float
) -> tuple[Floats, Floats, Floats]:
    """Unbiased log likelihood (N,) a row of each candidate; two standard errors over the sphere.

    The first error takes the candidate as fixed. The second also counts how it changes with the
    noise. With f(S) the candidate and g = 1 / f, ``tr(g S)`` exceeds ``tr(g truth)`` by the
    covariance of g with the noise:
    ``scale^2 (sum_j dg_j/dy_j + sum_{i<j} (g_i - g_j) / (y_i - y_j))``. Sampling the rows has the
    covariance of a Wishart matrix in place of ``scale^2``.
    """
    gaps = y[:, None] - y[None, :]
    near = np.abs(gaps) <= 1e-9 * edge
    pulls = np.where(near, 0.0, 1.0 / np.where(near, 1.0, gaps)).sum(axis=1)
    slopes, inverse_slopes, moved = _slopes(y, candidates, edge, trace)
    inverse = 1 / candidates
    overlap = scale**2 * (inverse_slopes + inverse @ pulls)
    sampling = (slopes + candidates @ pulls) / max(rows, 1.0)
    fit = np.log(candidates).sum(axis=1) + inverse @ y - overlap
    fixed = np.sqrt(((inverse - inverse[0]) ** 2).sum(axis=1))
    error = 0.5 * scale * np.maximum(fixed, moved)
    return np.asarray(-0.5 * fit - sampling), np.asarray(0.5 * scale * fixed), error


def _slopes(
    y: Floats, candidates: Floats, edge: float, trace: float
) -> tuple[Floats, Floats, Floats]:
    """``sum_j df_j/dy_j`` and ``sum_j dg_j/dy_j`` (N,), by differences.

    Also (N,) the length of the gradient, by y, of ``sum_j log f_j + g_j y_j`` over the sphere's.
    Each of m steps moves every m-th eigenvalue, up or down by a fixed random sign. These are far
    from each other, so they hardly change each other's variances. Signs are independent of the
    noise.
    """
    p = len(y)
    step = _STEP * edge * np.sqrt(1 / p)
    signs = np.random.Generator(np.random.Philox(11)).choice((-1.0, 1.0), p)
    departures, rest = 1 / candidates - 1 / candidates[0], y - candidates
    direct, inverse, square = np.zeros((3, len(candidates)))
    probes = min(max(_PROBED // p, _LEAST_PROBES), _MOST_PROBES, p)
    together = max(_NUMBERS // (2 * p * p), 1)
    for start in range(0, probes, together):
        moves = np.zeros((min(together, probes - start), p))
        for move, first in zip(moves, range(start, probes), strict=False):
            move[first::probes] = signs[first::probes]
        spectra = np.concatenate([y + step * moves, y - step * moves])
        pairs = _candidates(spectra, edge, trace).reshape(2, len(moves), *candidates.shape)
        for moved, above, below in zip(moves, *pairs, strict=True):
            change = (1 / above - 1 / below) / (2 * step)
            direct += (above - below) @ moved / (2 * step)
            inverse += change @ moved
            square += (departures @ moved + (change * rest).sum(axis=1)) ** 2
    return direct, inverse, np.sqrt(square)


def expected_loss(variances: Floats, scale: float, rows: float) -> float:
    """The expected loss in nats a row from noise of this scale on these variances, by simulation.

    The mean divergence of the cleaned spectrum from the true one, over noise of fixed seeds.
    """
    p, trace = len(variances), float(variances.sum())
    losses = []
    for seed in range(_SIMULATIONS if p <= _WIDE else 1):
        draws = np.random.Generator(np.random.Philox(seed)).standard_normal((p, p))
        noise = (draws + draws.T) / 2
        found = clean(np.diag(variances) + scale * noise, scale, trace, rows)
        along = (found.axes**2).T @ variances
        logs = np.log(found.variances).sum() - np.log(variances).sum()
        losses.append(0.5 * float((along / found.variances).sum() - p + logs))
    return float(np.mean(losses))
