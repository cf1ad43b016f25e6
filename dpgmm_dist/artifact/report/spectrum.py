"""The variances along the principal axes within components, beside their noise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.artifact.load import Release
from dpgmm_dist.artifact.report.page import figure
from dpgmm_dist.artifact.report.views import (
    MOST_DIMENSIONS,
    leading_axes,
    mean_covariance,
    variance_errors,
)

Floats = NDArray[np.float64]

_WIDTH, _HEIGHT, _LEFT, _TOP, _FOOT = 440, 180, 56, 10, 26


def spectrum_figure(release: Release) -> str:
    """The chart with its caption; empty for one dimension, or for too many."""
    mixture = release.mixture
    if not 2 <= mixture.dimension <= MOST_DIMENSIONS:
        return ""
    matrix = mean_covariance(mixture)
    axes = leading_axes(matrix)
    variances = np.maximum(np.einsum("ij,ik,kj->j", axes, matrix, axes, optimize=True), 1e-300)
    noise = noise_along(release, axes)
    measured = None if np.isfinite(noise).all() else _measured_noise(release, variances)
    caption = (
        "Variance within components along each of their common principal axes, largest first, "
        "on a logarithmic scale. "
    )
    if measured is not None:
        noise = measured
        caption += (
            "The shaded height is one standard error of the covariance of all rows as it was "
            "measured. Variances were then shrunk together, by that known noise; what errors "
            "single variances have after it is not stated."
        )
    elif np.isfinite(noise).all():
        caption += (
            "The shaded height is one standard error of the noise: a variance inside it could not "
            "be told from noise, and is the estimate that the known noise calls for."
        )
    else:
        caption += (
            "The noise in single variances is not stated: they were shrunk together, by the known "
            "noise of the whole matrix, and have no error of their own."
        )
    residual = release.transform.residual_variance
    if residual > 0:
        caption += " The dashed line is the variance of each direction outside the projection."
    return figure(_chart(variances, noise, residual), caption)


def noise_along(release: Release, axes: Floats) -> Floats:
    """(p,) bound on the standard error of the mean variance along each axis, over components.

    Errors of components are added as if they were fully dependent, which those of a common
    covariance are.
    """
    weights = release.mixture.weights
    errors = variance_errors(release.standard_errors, axes)[weights > 0]
    return np.asarray(weights[weights > 0] @ errors)


def _measured_noise(release: Release, variances: Floats) -> Floats | None:
    """(p,) noise on the covariance of all rows, from the receipt; None if it has none."""
    recorded = release.receipt.get("plan", {}).get("variance_noise")
    if recorded is None or release.transform.columns:
        return None
    along = variances if recorded["relative"] else np.ones_like(variances)
    return float(recorded["scale"]) * along


def _chart(variances: Floats, noise: Floats, residual: float) -> str:
    shown = [float(v) for v in (*variances, *noise, residual) if 0 < v < math.inf]
    top, bottom = math.ceil(math.log10(max(shown))), math.floor(math.log10(min(shown)))
    bottom = max(min(bottom, top - 1), top - 12)

    def y(value: float) -> float:
        part = (top - math.log10(max(value, 10.0 ** (bottom - 1)))) / (top - bottom)
        return _TOP + _HEIGHT * min(max(part, 0.0), 1.0)

    pitch = (_WIDTH - _LEFT - 10) / len(variances)
    parts = [
        f'<svg role="img" aria-label="Variances along {len(variances)} principal axes, from '
        f'{variances.max():.3g} to {variances.min():.3g}" width="{_WIDTH}" '
        f'height="{_TOP + _HEIGHT + _FOOT}" viewBox="0 0 {_WIDTH} {_TOP + _HEIGHT + _FOOT}">'
    ]
    for power in range(bottom, top + 1, max(1, (top - bottom) // 5)):
        at = y(10.0**power)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="text" x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">'
            f"{10.0**power:g}</text>"
        )
    floor = _TOP + _HEIGHT
    for i, (variance, error) in enumerate(zip(variances, noise, strict=True)):
        x, width = _LEFT + pitch * i, max(pitch - 1, 0.6)
        parts.append(
            f'<rect class="bar" x="{x:.1f}" y="{y(variance):.1f}" width="{width:.1f}" '
            f'height="{floor - y(variance):.1f}"><title>{variance:.4g}</title></rect>'
        )
        if math.isfinite(error):
            parts.append(
                f'<rect class="noise" x="{x:.1f}" y="{y(error):.1f}" width="{pitch:.1f}" '
                f'height="{floor - y(error):.1f}"/>'
            )
    if residual > 0:
        parts.append(
            f'<line class="whisker" stroke-dasharray="5 4" x1="{_LEFT}" x2="{_WIDTH - 10}" '
            f'y1="{y(residual):.1f}" y2="{y(residual):.1f}"/>'
        )
    for index in sorted({0, len(variances) - 1}):
        parts.append(
            f'<text class="text" x="{_LEFT + pitch * (index + 0.5):.1f}" y="{floor + 18}" '
            f'text-anchor="middle">{index + 1}</text>'
        )
    return "".join([*parts, "</svg>"])
