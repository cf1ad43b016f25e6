"""Drawings of a view: an ellipse for each component, with its standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.artifact.report.frame import Frame
from dpgmm_dist.artifact.report.page import COLOURS
from dpgmm_dist.artifact.report.views import View

Floats = NDArray[np.float64]

_POINTS = 48
_MOST_NAMES = 30
_LINE = 14.0
"""Pixels from one line of text to the next."""
_LETTER = 7.5
"""Pixels of a letter, about."""
_SMALL = 248
_LARGE = 460


def overview(view: View, groups: Sequence[int], names: Sequence[str]) -> str:
    """All components in one drawing, coloured by group, with the names of the groups."""
    frame = _frame_of(view, _LARGE)
    parts = [frame.open(f"{view.title}: {len(view.means)} components"), frame.axes()]
    for k, group in enumerate(groups):
        parts.append(_component(view, k, frame, f"s{group % COLOURS}", names[group]))
    if 1 < len(names) <= _MOST_NAMES:
        middles = {group: frame.place(view.means[k]) for k, group in enumerate(groups)}
        parts += _names(frame, {names[group][:16]: place for group, place in middles.items()})
    return "".join([*parts, "</svg>"])


def _names(frame: Frame, places: dict[str, tuple[float, float]]) -> list[str]:
    """Names beside places, moved down where they would cover one another."""
    parts: list[str] = []
    taken: list[tuple[float, float, float]] = []
    for name, (x, y) in sorted(places.items(), key=lambda item: (item[1][1], item[0])):
        width = _LETTER * len(name)
        left = x + 5 if x < 0.75 * frame.size else x - 5 - width
        y -= 5
        while any(left < b and a < left + width and abs(y - c) < _LINE for a, b, c in taken):
            y += 1
        taken.append((left, left + width, y))
        anchor, at = ("start", left) if x < 0.75 * frame.size else ("end", left + width)
        parts.append(
            f'<text class="ink" x="{at:.1f}" y="{y:.1f}" '
            f'text-anchor="{anchor}">{escape(name)}</text>'
        )
    return parts


def single(view: View, groups: Sequence[int], shown: int, name: str) -> str:
    """The components of one group over the outlines of all others."""
    frame = _frame_of(view, _SMALL)
    parts = [frame.open(f"{view.title}: {name}")]
    for k, group in enumerate(groups):
        if group != shown:
            path = _outline(view.means[k], view.covariances[k], frame)
            parts.append(f'<path class="others" d="{path}"/>')
    for k, group in enumerate(groups):
        if group == shown:
            parts.append(_component(view, k, frame, f"s{shown % COLOURS}", name))
    return "".join([*parts, "</svg>"])


def _component(view: View, k: int, frame: Frame, shade: str, name: str) -> str:
    """The ellipse of one standard deviation, a band for its error, and the mean with its error."""
    mean, covariance = view.means[k], view.covariances[k]
    known = bool(np.isfinite(view.variance_errors[k]).all())
    parts = [f"<g><title>{escape(name)}</title>"]
    if known:
        parts.append(
            f'<path class="{shade} band" fill-rule="evenodd" d="{_band(view, k, frame)}"/>'
        )
    kind = "ring" if known else "ring unsure"
    parts.append(f'<path class="{shade} {kind}" d="{_outline(mean, covariance, frame)}"/>')
    (x, y), error = frame.place(mean), view.mean_errors[k]
    for along in (0, 1):
        reach = float(error[along]) * frame.scale
        reach = 2.0 if not math.isfinite(reach) else min(max(reach, 2.0), 4.0 * frame.size)
        ends = (x - reach, y, x + reach, y) if along == 0 else (x, y - reach, x, y + reach)
        parts.append(
            f'<line class="{shade} mean" x1="{ends[0]:.1f}" y1="{ends[1]:.1f}" '
            f'x2="{ends[2]:.1f}" y2="{ends[3]:.1f}"/>'
        )
    return "".join([*parts, "</g>"])


def _band(view: View, k: int, frame: Frame) -> str:
    """The region between the ellipses whose variances are one standard error smaller and larger."""
    variances = np.diagonal(view.covariances[k])
    errors = np.minimum(view.variance_errors[k], 4 * variances)  # beyond the frame anyway
    paths = []
    for sign in (1.0, -1.0):
        factors = np.sqrt(np.maximum(variances + sign * errors, 0.0) / variances)
        scaled = view.covariances[k] * np.outer(factors, factors)
        paths.append(_outline(view.means[k], scaled, frame))
    return " ".join(paths)


def _outline(mean: Floats, covariance: Floats, frame: Frame) -> str:
    """The ellipse of one standard deviation as a closed path."""
    values, axes = np.linalg.eigh(covariance)
    angles = np.linspace(0, 2 * np.pi, _POINTS, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = mean + circle * np.sqrt(np.maximum(values, 0.0)) @ axes.T
    places = [frame.place(point) for point in points]
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in places) + "Z"


def _frame_of(view: View, size: int) -> Frame:
    """A square frame that holds all ellipses of weightless and heavy components alike."""
    spread = np.sqrt(np.diagonal(view.covariances, axis1=1, axis2=2))
    low, high = (view.means - 1.25 * spread).min(axis=0), (view.means + 1.25 * spread).max(axis=0)
    return Frame(size, (low + high) / 2, float(max((high - low).max() / 2, 1e-12)))
