"""What a release refuses before anything is spent."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from typing import Any

from dpgmm_dist.artifact.receipt import budget_rho
from dpgmm_dist.data.source import AnySource, ArraySource, DaskArraySource
from dpgmm_dist.engine.memory import driver_memory
from dpgmm_dist.errors import SpecError
from dpgmm_dist.model.problem import Problem
from dpgmm_dist.pipeline.resolve import unit_share
from dpgmm_dist.spec.release_spec import ReleaseSpec

_LEAST_EPSILON = 1e-3
_DRIVER_BYTES = 4 << 30


def require_drawable(spec: ReleaseSpec) -> None:
    """Refuse budgets whose noise would not fit a 64-bit integer."""
    epsilon, delta = spec.privacy.epsilon, spec.privacy.delta
    if epsilon < _LEAST_EPSILON:
        raise SpecError(
            f"privacy.epsilon is {epsilon:g}: its noise would exceed every statistic; use at least "
            f"{_LEAST_EPSILON:g}"
        )
    rows = unit_share(spec.dataset).rows
    one_row = budget_rho(epsilon, delta, "zcdp") / rows**2
    if rows > 1 and one_row < budget_rho(_LEAST_EPSILON, delta, "zcdp"):
        raise SpecError(
            f"dataset.privacy_unit.max_rows is {rows}, too many for privacy.epsilon "
            f"{epsilon:g}: noise grows with it; use fewer, or aggregate: weight"
        )


def require_same_labels(spec: ReleaseSpec, rows: AnySource) -> None:
    """Refuse rows whose labels, or their order, are not those of the specification."""
    if tuple(rows.labels) != tuple(spec.label_values):
        raise SpecError(
            f"the source has the labels {tuple(rows.labels)!r}, dataset.labels are "
            f"{tuple(spec.label_values)!r}: make them the same, in the same order"
        )


def require_window_of_columns(spec: ReleaseSpec, source: object) -> None:
    """Refuse a window over arrays, which have no columns to select by."""
    if spec.dataset.window is not None and isinstance(source, ArraySource | DaskArraySource):
        raise SpecError(
            "dataset.window selects rows by a column, and these rows are an array: select them "
            "beforehand, and remove dataset.window"
        )


def require_release_fits(problem: Problem) -> None:
    """Refuse a release that would not fit the driver's memory.

    Raises
    ------
    SpecError
        With the key to change, before anything is spent.
    """
    needed = driver_memory(problem)
    if needed <= _DRIVER_BYTES:
        return
    p = problem.latent_dimension

    def fits(**changes: Any) -> bool:
        return driver_memory(replace(problem, **changes)) <= _DRIVER_BYTES

    most = bisect_right(range(1, p), 0, key=lambda q: not fits(dimension=q))
    if most:
        change = f"set model.dimension to {most:,} or less"
    elif fits(label_values=()):
        change = "give fewer dataset.labels"
    else:
        change = "project the rows to fewer features before (dataset.features)"
    if problem.covariance != "auto" and fits(covariance="auto"):
        change += ", or model.covariance to auto"
    raise SpecError(
        f"the release of {problem.width:,} features, {problem.labels:,} label(s) and covariances "
        f"of {p:,} x {p:,} numbers needs {needed / 2**30:.3g} GiB on the driver, more than "
        f"{_DRIVER_BYTES >> 30}: {change}"
    )
