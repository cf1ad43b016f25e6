"""Rows for an audit: a data set of the specification's columns, and units that may be added to it.

The rows are made up, so nothing here is private. They lie on one side of the bounds, so that a unit
on the other side is as far from every centre as a row can be: it is clipped in every query, and
moves each statistic by all that its sensitivity allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
NULL_OR_INFINITY = "null and infinity"
"""The neighbour that changes nothing at all: its rows are invalid. There is none where rows may
lack values and have neither label nor unit, since every row then counts."""
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
    labels = spec.dataset.labels or ()
    # The last label has no row, so a member of it is alone.
    of_base = [labels[i % max(len(labels) - 1, 1)] for i in range(rows)] if labels else None
    base = _table(spec, near, of_base, [f"unit {i}" for i in range(rows)])

    def unit(*points: Floats, label: Any, name: str | None = _UNIT) -> pa.Table:
        x = np.repeat(np.array(points), _rows_of_unit(spec), axis=0)
        extra = _table(spec, x, [label] * len(x) if labels else None, [name] * len(x))
        return pa.concat_tables([base, extra.cast(base.schema)])

    last = labels[-1] if labels else None
    first = labels[0] if labels else None
    added = {
        WORST: unit(middle + reach, label=last),
        "beyond all bounds": unit(middle + 1e30 * reach, label=last),
        "member of a cluster": unit(middle - 0.5 * reach, label=first),
        **_lacking(spec, middle + reach, unit, last),
    }
    if labels:
        added["far outlier of a common label"] = unit(middle + reach, label=first)
        added["alone in its label"] = unit(middle - 0.5 * reach, label=last)
    return Neighbours(base, added)


def _lacking(
    spec: ReleaseSpec, far: Floats, unit: Callable[..., pa.Table], label: Any
) -> dict[str, pa.Table]:
    """Units of rows that lack values: invalid ones, or such as count without them."""
    null, infinity = np.full((2, len(far)), [[np.nan], [np.inf]])
    if not spec.models_nulls:
        outside = far.copy()
        outside[-max(len(spec.categories), 1) :] = np.inf  # categories come last: in no list
        return {NULL_OR_INFINITY: unit(null, infinity, outside, label=label)}
    first_null = far.copy()
    first_null[0] = np.nan
    found = {
        "null in every column": unit(null, label=label),
        "null in one column": unit(first_null, label=label),
        "infinity in every column": unit(infinity, label=label),
    }
    if spec.label_values:
        found[NULL_OR_INFINITY] = unit(far, label=None)
    elif spec.dataset.privacy_unit is not None:
        found[NULL_OR_INFINITY] = unit(far, label=label, name=None)
    return found


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
    if name in spec.categories:
        return (0.0, max(len(spec.categories[name]) - 1.0, 1.0)), "number"  # places in the list
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


def _table(spec: ReleaseSpec, x: Floats, labels: list[Any] | None, units: list[Any]) -> pa.Table:
    dataset = spec.dataset
    columns: dict[str, Any] = {}
    if spec.is_table:
        for j, name in enumerate(spec.feature_names):
            if name in spec.categories:
                columns[name] = _category_column(x[:, j], spec.categories[name])
            else:
                columns[name] = _column(x[:, j], _range(spec, name)[1])
    else:
        flat = pa.array(np.ascontiguousarray(x).reshape(-1))
        columns[spec.feature_names[0]] = pa.FixedSizeListArray.from_arrays(flat, x.shape[1])
    if labels is not None and dataset.label is not None:
        columns.setdefault(dataset.label, pa.array(labels, pa.array(dataset.labels).type))
    if dataset.privacy_unit is not None:
        columns.setdefault(dataset.privacy_unit.column, pa.array(units, pa.string()))
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


def _category_column(places: Floats, values: tuple[Any, ...]) -> Any:
    """A column of categories from places in the list; NaN is null, infinity is no public value."""
    no_public_value = _outside(values)
    entries: list[Any] = []
    for place in places.tolist():
        if math.isnan(place):
            entries.append(None)
        elif math.isinf(place):
            entries.append(no_public_value)
        else:
            entries.append(values[int(np.clip(round(place), 0, len(values) - 1))])
    return pa.array(entries, pa.array(values).type)


def _outside(values: tuple[Any, ...]) -> Any:
    """A value of the same type that is not in the list; None where there is no other."""
    if isinstance(values[0], str):
        return max(values) + "?"
    others = (False, True) if isinstance(values[0], bool) else range(len(values) + 1)
    return next((value for value in others if value not in values), None)
