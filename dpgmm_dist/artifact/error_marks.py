"""The reliability of the standard errors of each component, as columns of mixture.parquet.

``nominal``: the estimate is what was measured, and the standard error is that of the noise in it.
``approximate``: the estimate was adjusted after it was measured: shrunk toward another one, or
corrected together with the other components of its label. Its standard error is still that of the
measurement. ``unknown``: no standard error is stated (it is infinite).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpgmm_dist.model.shrinkage import NEARLY_ALL

if TYPE_CHECKING:
    import pyarrow as pa

NOMINAL, APPROXIMATE, UNKNOWN = "nominal", "approximate", "unknown"
_KINDS = ("weight_se_kind", "mean_se_kind", "covariance_se_kind")
_KEPT, _BIAS = "covariance_kept", "covariance_shrinkage"


@dataclass(frozen=True)
class ErrorMarks:
    """The contents of the columns, one entry a component; None where the release does not say."""

    weights: tuple[str | None, ...]
    means: tuple[str | None, ...]
    covariances: tuple[str | None, ...]
    kept: tuple[float | None, ...]
    """Weight of its own measurement in each covariance, 0 to 1."""
    shrinkage: tuple[float | None, ...]
    """How far shrinkage moved each covariance, relative to its size: a bias that its standard
    error does not include."""

    def ordered(self, order: Sequence[int]) -> ErrorMarks:
        """The same marks with the components in another order."""
        return ErrorMarks(*(tuple(column[k] for k in order) for column in vars(self).values()))


def marks_of(plan: Mapping[str, Any] | None, components: int) -> ErrorMarks:
    """The marks of every component, from the realised plan in a receipt."""
    unmarked = (None,) * components
    notes = (plan or {}).get("error_bars")
    if plan is None or notes is None:
        return ErrorMarks(unmarked, unmarked, unmarked, unmarked, unmarked)
    # Without the moment fit, EM fixed-point correction adjusts a label's components to each other.
    matched = plan.get("expected_kl") is None and max(plan["components_per_label"]) > 1
    usual = APPROXIMATE if matched else NOMINAL
    kept = _column(notes.get("weight_of_own_covariance"), components)
    if str(notes["covariances"]) not in (NOMINAL, APPROXIMATE):
        covariances: tuple[str | None, ...] = (UNKNOWN,) * components
    else:
        covariances = tuple(
            usual if weight is None or weight > NEARLY_ALL else APPROXIMATE for weight in kept
        )
    return ErrorMarks(
        weights=(notes.get("weights", usual),) * components,
        means=(notes.get("means", usual),) * components,
        covariances=covariances,
        kept=kept,
        shrinkage=_column(notes.get("relative_shrinkage_bias"), components),
    )


def columns_of(marks: ErrorMarks) -> dict[str, pa.Array]:
    """The marks as columns of mixture.parquet, with the components in the same order."""
    import pyarrow as pa

    kinds = (marks.weights, marks.means, marks.covariances)
    columns = {name: pa.array(kind, pa.string()) for name, kind in zip(_KINDS, kinds, strict=True)}
    columns[_KEPT] = pa.array(marks.kept, pa.float64())
    columns[_BIAS] = pa.array(marks.shrinkage, pa.float64())
    return columns


def read_marks(table: pa.Table) -> ErrorMarks | None:
    """The marks in mixture.parquet; None if the table does not have these columns."""
    names = (*_KINDS, _KEPT, _BIAS)
    if not set(names) <= set(table.column_names):
        return None
    return ErrorMarks(*(tuple(table[name].to_pylist()) for name in names))


def _column(values: Sequence[float] | None, components: int) -> tuple[float | None, ...]:
    if values is None:
        return (None,) * components
    if len(values) != components:
        raise ValueError(
            f"the plan lists {len(values)} components under error_bars, not {components}"
        )
    return tuple(float(value) for value in values)
