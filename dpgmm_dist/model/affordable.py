"""How many components the noise affords: fewer than asked for where more would do harm.

A component needs its own covariance. Beyond the number whose covariances stand out of the noise,
each further component takes rows from the others and adds noise to the release. So no more are
fitted. If more were asked for, fitted components are divided into equal parts, which changes no
density.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model import schedule as stages
from dpgmm_dist.model.allocation import whitened_radius
from dpgmm_dist.model.covariances import SharedCovariances
from dpgmm_dist.model.fitting import cells
from dpgmm_dist.model.fitting.initialisation import is_overseeded
from dpgmm_dist.model.fitting.merging import MOST_TIMES
from dpgmm_dist.model.label_budget import MOST_SECONDS, label_edge, needs_krylov
from dpgmm_dist.model.labels import tied_covariances as tied
from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.model.problem import Fitted, Problem

Ints = npt.NDArray[np.int64]

_NOISE_OF_COVARIANCE = 0.6
"""Largest edge of a component's covariance (docs/method.md, section 1) at which it is fitted. With
a larger edge a component costs more than it gains."""
_NOISE_IN_MANY_DIMENSIONS = 0.35
"""The same in many dimensions, for three components. There the cells are in a subspace, and the
more components there are, the less reliably they are found."""
LAST_SHARE = 0.45
"""Share of rho of the last pass over the components."""
_MOST_LABEL_CELLS = 20
_LABEL_EDGE = 3.1
"""Largest edge of a label's covariance at which labels are measured one by one and divided into
cells."""
_MOST_AUTO = 16
MOST_COVARIANCES = 80_000_000
"""Most numbers in all released covariances in full. The driver holds some six such arrays, 4 GB."""
_MOST_SHARED = 1 << 23
"""Most numbers in all released means and blocks, where covariances share their axes."""


@dataclass(frozen=True)
class Sizes:
    """The most memory that a release may take, from its specification alone."""

    statistics: int
    """Numbers in the exact sums of the largest pass."""
    maps: int
    """Numbers in the maps of its cells."""
    full: int
    """Numbers in the released means and covariances if these are stored as full matrices; 0 if they
    never are."""
    shared: int
    """The same if covariances share their axes."""


def sizes(problem: Problem) -> Sizes:
    """The largest pass and release of a problem, whichever way it takes."""
    d, p, labels = problem.width, problem.latent_dimension, problem.labels
    axes = stages.most_axes(problem)
    # The second measurement asks for the pooled second moment and those of labels at once.
    staged = _triangle(d) + 1 + labels * (_triangle(axes) + 1 + d)
    groups = joint_groups(problem)
    if is_overseeded(problem):
        groups *= MOST_TIMES
    sums = max(groups, labels * cells.most_cells(problem)) * (1 + p)
    joint = max(groups * _triangle(p) + sums, _triangle(d)) if groups else 0
    if groups and not is_tied(problem):
        # Cells have second moments too, in all directions or in those of the subspace.
        directions = min(p, cells.SECOND_DIMENSION)
        joint = max(joint, labels * cells.most_cells(problem) * (1 + p + _triangle(directions)))
    return Sizes(max(staged, joint), max(groups * p * d, d * d), *_held(problem, groups))


def _held(problem: Problem, groups: int) -> tuple[int, int]:
    """Numbers in the covariances and means of a release: in full, and where they share axes."""
    p, labels = problem.latent_dimension, problem.labels
    shares_axes = stages.shares_axes(problem)
    full = shared = 0
    if groups or not shares_axes:
        full = max(labels * _released(problem, shares_axes=False), groups) * p * (p + 1)
    if shares_axes:
        components = labels * _released(problem, shares_axes=True)
        shared = components * (p + _own_axes(problem) ** 2) + p * p
    return full, shared


def joint_groups(problem: Problem) -> int:
    """Number of components whose covariances a joint fit has memory to measure; it may be 0."""
    most = MOST_SECONDS // _triangle(problem.latent_dimension) // problem.labels
    if is_tied(problem):
        # Covariances of all cells where there is memory for them, else of the labels alone.
        return problem.labels * (_MOST_LABEL_CELLS if most >= _MOST_LABEL_CELLS else min(most, 1))
    asked = _MOST_AUTO if problem.components == "auto" else problem.asked_components
    return problem.labels * min(asked, most)


def _triangle(p: int) -> int:
    return p * (p + 1) // 2


def is_tied(problem: Problem) -> bool:
    """Whether a joint fit would let components share their label's covariance: public."""
    return problem.labels > 1 and problem.latent_dimension >= tied.LEAST_DIMENSION


def affordable(problem: Problem, rows: float) -> Problem | None:
    """The problem with as many components as a joint fit can estimate; None if it cannot pay.

    Parameters
    ----------
    rows : noisy number of rows
    """
    if is_tied(problem):
        return problem if _tied_pays(problem, rows) else None
    most = min(_most_components(problem, rows), joint_groups(problem) // problem.labels)
    wanted = problem.components
    if wanted == "auto":
        if most < 2:
            return None
        return replace(problem, components=tuple(range(1, min(most, _MOST_AUTO) + 1)))
    asked = (wanted,) if isinstance(wanted, int) else tuple(int(count) for count in wanted)
    if max(asked) == 1:
        # One Gaussian in many dimensions is what stages measure best.
        few_dimensions = problem.latent_dimension <= cells.SECOND_DIMENSION
        return problem if few_dimensions and most >= 1 else None
    if most < 2:
        return None
    if isinstance(wanted, int):
        return replace(problem, components=min(wanted, most))
    fitting = tuple(sorted({min(count, most) for count in asked}))
    return replace(problem, components=fitting)


def _most_components(problem: Problem, rows: float) -> int:
    """How many components of a label may each have a covariance of their own."""
    edge = _edge(problem, rows)
    if problem.latent_dimension <= cells.SECOND_DIMENSION:
        return int(min(_NOISE_OF_COVARIANCE / edge, 1e6))
    three = _NOISE_IN_MANY_DIMENSIONS / edge
    return int(min(three, three ** (2 / 3) * 3 ** (1 / 3), 1e6))


def rows_for_components(problem: Problem, rows: float) -> float:
    """The number of rows from which a joint fit can estimate two components of a label.

    With labels in many dimensions: a covariance for each label. Noise falls as one over the rows,
    so any value of ``rows`` gives the same result.
    """
    if is_tied(problem):
        rows_per_label = np.full(problem.labels, rows / problem.labels)
        return float(rows * label_edge(problem, rows_per_label) / _LABEL_EDGE)
    if problem.latent_dimension <= cells.SECOND_DIMENSION:
        return 2 * rows * _edge(problem, rows) / _NOISE_OF_COVARIANCE
    return 2 * rows * _edge(problem, rows) / _NOISE_IN_MANY_DIMENSIONS


def _edge(problem: Problem, rows: float) -> float:
    """The edge of one label's covariance (docs/method.md, section 1)."""
    p = problem.latent_dimension
    answers = rows / problem.labels * math.sqrt(2 * LAST_SHARE * problem.rho)
    if problem.covariance == "tied":
        return whitened_radius(p) * math.sqrt(p) / answers
    spread = 1.0 if problem.covariance in ("diag", "spherical") else math.sqrt(2 * p)
    return whitened_radius(p) ** 2 * spread / answers


def _tied_pays(problem: Problem, rows: float) -> bool:
    """Whether labels have enough rows for several covariances, or two labels for a direction."""
    if not joint_groups(problem):
        return False
    rows_per_label = np.full(problem.labels, rows / problem.labels)
    if problem.labels == 2 and needs_krylov(problem, rows_per_label):
        return True
    return label_edge(problem, rows_per_label) <= _LABEL_EDGE


def _released(problem: Problem, shares_axes: bool) -> int:
    """The most components of a label that are released: as many as asked for, if memory allows."""
    p = problem.latent_dimension
    if shares_axes:
        most = _MOST_SHARED // (problem.labels * (p + _own_axes(problem) ** 2))
    else:
        most = MOST_COVARIANCES // (problem.labels * p * p)
    return max(1, min(problem.asked_components, most))


def _own_axes(problem: Problem) -> int:
    """The number of shared axes along which a label has a block of its own."""
    return min(stages.most_axes(problem), problem.latent_dimension)


def padded(problem: Problem, fitted: Fitted) -> Fitted:
    """The release with as many components as were asked for: the largest ones are divided."""
    mixture, errors = fitted.mixture, fitted.errors
    wanted = _released(problem, isinstance(mixture.form, SharedCovariances))
    present = np.bincount(mixture.label_index, minlength=problem.labels)
    if not isinstance(problem.components, int) or present.min() >= wanted:
        return fitted
    source = np.concatenate([_divided(mixture, label, wanted) for label in range(problem.labels)])
    times = np.bincount(source, minlength=mixture.n_components)
    weights = (mixture.weights / times)[source]
    return replace(
        fitted,
        mixture=Mixture(
            weights=weights / weights.sum(),
            means=mixture.means[source],
            covariances=mixture.form.take(source),
            labels=mixture.label_index[source],
            label_values=mixture.label_values,
        ),
        errors=replace(errors, weights=errors.weights / times).take(source),
        notes=_padded_notes(fitted.notes, source) | {"components_told_apart": present.tolist()},
    )


def _padded_notes(notes: dict[str, Any], source: Ints) -> dict[str, Any]:
    """The remarks with one entry for each part of a component."""
    bars = {
        key: [value[k] for k in source] if isinstance(value, list) else value
        for key, value in notes.get("error_bars", {}).items()
    }
    return {**notes, "error_bars": bars}


def _divided(mixture: Mixture, label: int, wanted: int) -> Ints:
    """Which component of a label each of the ``wanted`` ones is a part of."""
    members = np.flatnonzero(mixture.label_index == label)
    parts = np.ones(len(members), dtype=np.int64)
    for _ in range(wanted - len(members)):
        parts[int((mixture.weights[members] / parts).argmax())] += 1
    return np.repeat(members, parts)
