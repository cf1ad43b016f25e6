"""What a release refuses before anything is spent."""

from __future__ import annotations

import math

from dpgmm_dist.artifact.receipt import budget_rho
from dpgmm_dist.data.source import AnySource, ArraySource, DaskArraySource
from dpgmm_dist.errors import SpecError
from dpgmm_dist.model.affordable import sizes
from dpgmm_dist.model.problem import Problem
from dpgmm_dist.pipeline.resolve import unit_share
from dpgmm_dist.spec.release_spec import ReleaseSpec

_LEAST_EPSILON = 1e-3
_DRIVER_BYTES = 4 << 30
_COPIES = 6
"""Arrays of all covariances that the driver holds at once: themselves, factors, errors, files."""


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
    """Refuse a release whose covariances would not fit the driver's memory."""
    numbers, p = sizes(problem).covariances, problem.latent_dimension
    needed = 8 * _COPIES * numbers
    if needed <= _DRIVER_BYTES:
        return
    most = math.isqrt(p * p * _DRIVER_BYTES // needed)
    raise SpecError(
        f"the release would hold {numbers // (p * p):,} covariances of {p:,} x {p:,} numbers, for "
        f"which the driver needs {needed / 2**30:.3g} GiB, more than {_DRIVER_BYTES >> 30}: set "
        f"model.dimension to {most:,} or less, or ask for fewer components"
    )
