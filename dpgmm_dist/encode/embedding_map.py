"""Maps of embeddings: rows on the two axes that separate labels, or on two principal axes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_MOST_POINTS = 2000
_MOST_WIDTH = 256
_MOST_NAMED = 20
"""Up to this many labels are named beside a map."""
_RIDGE = 1e-2


@dataclass(frozen=True, eq=False)
class Axes:
    """Two axes through a centre."""

    centre: Floats
    """(d,)."""
    matrix: Floats
    """(d, 2); the second is 0 if there is only one dimension."""
    name: str
    """"discriminant" or "principal"."""

    def __call__(self, rows: Floats) -> Floats:
        """Coordinates (n, 2) of rows (n, d)."""
        return np.asarray((rows - self.centre) @ self.matrix)


@dataclass(frozen=True, eq=False)
class Panel:
    """One part of a map."""

    title: str
    points: Floats
    """(n, 2)."""
    labels: Sequence[str] | None
    """(n,)."""


def map_axes(rows: Floats, labels: Sequence[str] | None) -> Axes:
    """The two linear discriminants of three or more labels, otherwise two principal axes.

    They are found from the first `_MOST_POINTS` rows, in many dimensions along the `_MOST_WIDTH`
    principal axes of these.

    Parameters
    ----------
    rows : (n, d), n at least 1.
    labels : (n,), or None.
    """
    rows = rows[:_MOST_POINTS]
    centre = rows.mean(axis=0)
    principal = _principal(rows - centre)
    names, index = np.unique(
        np.asarray([""] * len(rows) if labels is None else labels[:_MOST_POINTS]),
        return_inverse=True,
    )
    if len(names) < 3 or principal.shape[1] < 2:
        first = principal[:, :2]
        return Axes(centre, np.pad(first, ((0, 0), (0, 2 - first.shape[1]))), "principal")
    return Axes(
        centre, principal @ _discriminants((rows - centre) @ principal, index), "discriminant"
    )


def _principal(centred: Floats) -> Floats:
    """At most `_MOST_WIDTH` principal axes (d, p) of centred rows (n, d), the largest first."""
    if centred.shape[1] <= len(centred):
        vectors = np.linalg.eigh(centred.T @ centred)[1]
    else:
        values, small = np.linalg.eigh(centred @ centred.T)
        vectors = centred.T @ small / np.sqrt(np.maximum(values, 1e-12 * max(values[-1], 1e-300)))
    return np.asarray(vectors[:, ::-1][:, :_MOST_WIDTH])


def _discriminants(rows: Floats, index: NDArray[np.int64]) -> Floats:
    """The two axes (p, 2) that separate groups of centred rows (n, p); ``index`` is (n,)."""
    counts = np.bincount(index)
    means = np.zeros((len(counts), rows.shape[1]))
    np.add.at(means, index, rows)
    means /= counts[:, None]
    within = rows - means[index]
    covariance = within.T @ within / len(rows)
    covariance += _RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    whitening = vectors / np.sqrt(np.maximum(values, 1e-300))
    weighted = np.sqrt(counts / len(rows))[:, None] * (means @ whitening)
    between = np.linalg.svd(weighted, full_matrices=False)[2][:2].T
    return np.asarray(whitening @ between)


def draw(panels: Sequence[Panel], warning: str | None = None) -> bytes:
    """A PNG of panels that share their axes. A warning is printed above, in red."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 5.5 * len(panels), 5), layout="constrained")
    FigureCanvasAgg(figure)
    if warning is not None:
        figure.suptitle(warning, color="#b00020")
    plots = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    named = sorted({label for panel in panels for label in panel.labels or ()}, key=label_order)
    colours = colormaps["tab20" if len(named) > 10 else "tab10"]
    for plot, panel in zip(plots, panels, strict=True):
        points = panel.points[:_MOST_POINTS]
        plot.set(title=panel.title, xticks=[], yticks=[])
        if panel.labels is None:
            plot.scatter(*points.T, s=4, alpha=0.5)
            continue
        shown = np.asarray(panel.labels[:_MOST_POINTS])
        for number, label in enumerate(named):
            plot.scatter(
                *points[shown == label].T, s=4, alpha=0.5, color=colours(number % 20), label=label
            )
    if 0 < len(named) <= _MOST_NAMED:
        labelled = [p for p, panel in zip(plots, panels, strict=True) if panel.labels is not None]
        labelled[-1].legend(markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5))
    data = io.BytesIO()
    metadata = {"Software": None} | ({"Description": warning} if warning else {})
    figure.savefig(data, format="png", dpi=90, metadata=metadata)
    return data.getvalue()


def label_order(label: str) -> tuple[bool, int, str]:
    """Sort key: integers by value, then other labels by text."""
    if label.lstrip("-").isdecimal():
        return False, int(label), ""
    return True, 0, label
