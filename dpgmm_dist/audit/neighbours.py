"""Rows for an audit: a data set of the specification's columns, and units that may be added to it.

The rows are made up, so nothing here is private. They lie on one side of the bounds, so that a unit
on the other side is as far from every centre as a row can be: it is clipped in every query, and
moves each statistic by all that its sensitivity allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dpgmm_dist.column_kinds import Kind, range_of
from dpgmm_dist.spec.release_spec import ReleaseSpec

Floats = npt.NDArray[np.float64]

WORST = "far outlier"
"""The neighbour that moves every statistic by its sensitivity; the others move less, or nothing."""
NOTHING = "null and infinity"
"""The neighbour that changes nothing at all: its rows are invalid."""
_ROWS_BEYOND = 3
"""Rows that the audited unit has beyond those that count."""
_UNIT = "audited"
_TYPES: Mapping[Kind, tuple[Any, float]] = {
    "date": (pa.date32(), 1),
    "timestamp": (pa.timestamp("us"), 1e6),
    "time": (pa.time64("us"), 1e6),
    "duration": (pa.duration("us"), 1e6),
}
"""Arrow type of a column of each kind, and its steps in a unit of the column's number."""


@dataclass(frozen=True)
class Neighbours:
    """A data set, and the same with one more privacy unit, by what the unit is."""

    base: pa.Table
    added: Mapping[str, pa.Table]


def make_neighbours(spec: ReleaseSpec, width: int, rows: int, seed: int = 0) -> Neighbours:
    """Rows and units for an audit of a specification.

    Parameters
    ----------
    width : number of features d.
    rows : rows of the data set, at least 1.
    seed : of the rows; noise has none.
    """
    middle, reach = _place(spec, width)
    rng = np.random.default_rng(seed)
    near = middle - reach * (0.5 + 0.02 * rng.standard_normal((rows, width)))
    labels = spec.label_values
    # The last label has no row, so a member of it is alone.
    of_base = [labels[i % max(len(labels) - 1, 1)] for i in range(rows)] if labels else None
    base = _table(spec, near, of_base, [f"unit {i}" for i in range(rows)])

    def unit(*points: Floats, label: Any) -> pa.Table:
        x = np.repeat(np.array(points), _rows_of_unit(spec), axis=0)
        extra = _table(spec, x, [label] * len(x) if labels else None, [_UNIT] * len(x))
        return pa.concat_tables([base, extra])

    last = labels[-1] if labels else None
    first = labels[0] if labels else None
    added = {
        WORST: unit(middle + reach, label=last),
        "beyond all bounds": unit(middle + 1e30 * reach, label=last),
        "member of a cluster": unit(middle - 0.5 * reach, label=first),
        NOTHING: unit(*np.full((2, width), [[np.nan], [np.inf]]), label=last),
    }
    if labels:
        added["far outlier of a common label"] = unit(middle + reach, label=first)
        added["alone in its label"] = unit(middle - 0.5 * reach, label=last)
    return Neighbours(base, added)


def _rows_of_unit(spec: ReleaseSpec) -> int:
    unit = spec.dataset.privacy_unit
    return 1 if unit is None else unit.max_rows + _ROWS_BEYOND


def _place(spec: ReleaseSpec, width: int) -> tuple[Floats, Floats]:
    """The middle of the bounds, and a vector from it to their edge, (d,) each."""
    if spec.is_table:
        ranges = [_range(spec, name)[0] for name in spec.feature_names]
        low, high = np.array(ranges).T
        return (low + high) / 2, (high - low) / 2
    center = spec.bounds.center
    middle = np.zeros(width) if center is None or center == "auto" else np.array(center)
    return middle.astype(np.float64), np.full(width, (spec.norm_bound or 1.0) / np.sqrt(width))


def _range(spec: ReleaseSpec, name: str) -> tuple[tuple[float, float], Kind]:
    """The range of a column of a table, and what the column holds."""
    given = spec.given_columns.get(name)
    if given is None:
        return (-100.0, 100.0), "number"  # bounds are found in the audit as in a release
    if not isinstance(given[0], str):
        return range_of(*given), "number"
    for kind in _TYPES:
        try:
            return range_of(*given, kind), kind
        except ValueError:
            continue
    return range_of(*given), "number"


def _table(spec: ReleaseSpec, x: Floats, labels: list[Any] | None, units: list[str]) -> pa.Table:
    dataset = spec.dataset
    columns: dict[str, Any] = {}
    if spec.is_table:
        for j, name in enumerate(spec.feature_names):
            columns[name] = _column(x[:, j], _range(spec, name)[1])
    else:
        flat = pa.array(np.ascontiguousarray(x).reshape(-1))
        columns[spec.feature_names[0]] = pa.FixedSizeListArray.from_arrays(flat, x.shape[1])
    if labels is not None and dataset.label is not None:
        columns.setdefault(dataset.label, pa.array(labels))
    if dataset.privacy_unit is not None:
        columns.setdefault(dataset.privacy_unit.column, pa.array(units))
    return pa.table(columns)


def _column(values: Floats, kind: Kind) -> Any:
    """A column of a table from its numbers; what is not finite is null where the type has none."""
    if kind == "number":
        return pa.array(values)
    dtype, steps = _TYPES[kind]
    missing = ~np.isfinite(values)
    most = 2.0**31 - 1 if pa.types.is_date32(dtype) else 2.0**62
    whole = np.clip(np.rint(np.where(missing, 0, values) * steps), -most, most)
    stored = pa.array(whole.astype(np.int32 if dtype == pa.date32() else np.int64), mask=missing)
    return stored.cast(dtype)
