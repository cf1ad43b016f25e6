"""The bounds of the rows: those of the specification, and those that are found privately."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dpgmm_dist.column_kinds import Kind
from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.model.pass_plan import BinsBlock, BinsPlan, ObservedBins
from dpgmm_dist.model.tables import bounds
from dpgmm_dist.pipeline.resolve import given_ranges
from dpgmm_dist.spec.release_spec import ReleaseSpec

AskBins = Callable[[BinsPlan], tuple[ObservedBins, ...]]
"""Answers a plan that counts bins: charges, measures, stores."""

COLUMNS, CENTER, NORM = "bounds.columns", "bounds.center", "bounds.norm"
"""The steps that find bounds."""
_CENTER_SHARE = 0.7
"""Share of the budget for bounds that goes to the centre where the norm is found too. The centre
needs one count per feature."""


@dataclass(frozen=True)
class Bounds:
    """The map of the rows to the lattice, and the bounds in it that were found."""

    features: FeatureMap
    found: dict[str, Any] = field(default_factory=dict)
    """The bounds that were found, under their keys in the specification; for the receipt."""


def bounds_steps(spec: ReleaseSpec) -> dict[str, float]:
    """The share of rho of each pass that finds bounds, in order: public, empty if all are given."""
    given = spec.bounds
    if spec.is_table:
        return {COLUMNS: bounds.SHARE} if spec.auto_columns else {}
    wanted = [CENTER] * (given.center == "auto") + [NORM] * (given.norm == "auto")
    if len(wanted) < 2:
        return dict.fromkeys(wanted, bounds.SHARE)
    return {CENTER: _CENTER_SHARE * bounds.SHARE, NORM: (1 - _CENTER_SHARE) * bounds.SHARE}


def find_bounds(
    spec: ReleaseSpec, width: int, rho: float, ask: AskBins, kinds: Sequence[Kind | None] = ()
) -> Bounds:
    """The bounds of rows of ``width`` features.

    ``rho`` is the budget of the whole release, and ``kinds`` says what each column of a table
    holds, where that is known.
    """
    budget = {step: share * rho for step, share in bounds_steps(spec).items()}
    if spec.is_table:
        return _of_table(spec, given_ranges(spec, kinds), budget, ask)
    found: dict[str, Any] = {}
    center = None if spec.bounds.center == "auto" else spec.bounds.center
    if CENTER in budget:
        answer = _count(CENTER, budget[CENTER], width, ask)
        edges = bounds.log_edges()
        middles = [bounds.middle_of(count, answer.sigma, edges) for count in answer.counts]
        found["center"], center = middles, tuple(middles)
    norm = spec.norm_bound
    if NORM in budget:
        about = np.zeros(width) if center is None else np.array(center)
        answer = _count(NORM, budget[NORM], 1, ask, about=about)
        _, norm = bounds.range_of(answer.counts[0], answer.sigma, bounds.log_edges())
        norm = max(norm, float(bounds.log_edges()[-1]) * 1e-24)
        found["norm"] = norm
    if norm is None:
        raise ValueError("the norm bound is neither given nor found")
    return Bounds(FeatureMap(width, norm, center=center), found)


def _of_table(
    spec: ReleaseSpec,
    ranges: dict[str, tuple[float, float]],
    budget: dict[str, float],
    ask: AskBins,
) -> Bounds:
    names = spec.feature_names
    ranges |= {name: (0.0, max(len(v) - 1.0, 1.0)) for name, v in spec.categories.items()}
    found: dict[str, Any] = {}
    if COLUMNS in budget:
        asked = np.array([j for j, name in enumerate(names) if name not in ranges])
        answer = _count(
            COLUMNS, budget[COLUMNS], len(asked), ask, columns=asked, missing=spec.models_nulls
        )
        edges = bounds.log_edges()
        for j, count in zip(asked.tolist(), answer.counts, strict=True):
            present = count[: len(edges) + 1]
            ranges[names[j]] = bounds.range_of(present, answer.sigma, edges)
        found["columns"] = {names[j]: list(ranges[names[j]]) for j in asked.tolist()}
    lower, upper = zip(*(ranges[name] for name in names), strict=True)
    norm = spec.norm_bound
    if norm is None:
        raise ValueError("the norm bound of a table is always known")
    return Bounds(FeatureMap(len(names), norm, lower=lower, upper=upper), found)


def _count(
    step: str,
    rho: float,
    columns_asked: int,
    ask: AskBins,
    *,
    columns: np.ndarray | None = None,
    about: np.ndarray | None = None,
    missing: bool = False,
) -> ObservedBins:
    """Noisy counts of the logarithmic bins of columns, or of distances from a point."""
    edges = (bounds.log_edges(),) * columns_asked
    return ask(BinsPlan(step, edges, (BinsBlock(rho),), columns, about, missing))[0]
