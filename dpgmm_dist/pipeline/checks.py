"""What a release refuses before anything is spent."""

from __future__ import annotations

from dpgmm_dist.artifact.receipt import budget_rho
from dpgmm_dist.data.source import AnySource, ParquetSource
from dpgmm_dist.errors import SpecError
from dpgmm_dist.pipeline.resolve import unit_share
from dpgmm_dist.spec.release_spec import ReleaseSpec

_LEAST_EPSILON = 1e-3


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


def require_window_of_files(spec: ReleaseSpec, source: AnySource | None) -> None:
    """Refuse a window over rows in memory, which have no columns to select by."""
    if spec.dataset.window is not None and not isinstance(source, ParquetSource | None):
        raise SpecError(
            "dataset.window selects rows of files, and these rows are an array: select them "
            "beforehand, and remove dataset.window"
        )
