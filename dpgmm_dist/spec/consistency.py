"""Contradictions between keys of a specification, each of which is valid alone."""

from __future__ import annotations

from dpgmm_dist.spec import windows
from dpgmm_dist.spec.cluster import ClusterSpec
from dpgmm_dist.spec.fields import show
from dpgmm_dist.spec.sections import (
    BoundsSpec,
    DatasetSpec,
    ModelSpec,
    OutputSpec,
    PrivacySpec,
)

MOST_MARGINALS = 256
"""Most columns whose distributions are measured: with more, noise exceeds the information."""
_MOST_WEIGHTED = 256
_MOST_COUNTS = 1 << 22


def problems(
    dataset: DatasetSpec,
    bounds: BoundsSpec,
    privacy: PrivacySpec,
    model: ModelSpec,
    output: OutputSpec,
    cluster: ClusterSpec,
) -> list[str]:
    """Return a line for each contradiction between keys: the key, the value, what to do."""
    bounds_problems = _table_problems if dataset.is_table else _embedding_problems
    return [
        *_unit_problems(dataset),
        *_label_problems(dataset),
        *_category_problems(dataset),
        *_state_problems(dataset, model),
        *bounds_problems(dataset, bounds),
        *_dimension_problems(dataset, model),
        *windows.problems(dataset, privacy, output),
        *cluster.problems(),
    ]


def _unit_problems(dataset: DatasetSpec) -> list[str]:
    unit = dataset.privacy_unit
    if unit is None:
        return []
    found = []
    if unit.column in (*dataset.feature_names, dataset.label):
        found.append(
            f"dataset.privacy_unit.column: got {show(unit.column)}, which is a feature or "
            "the label; name the column that says whose row it is"
        )
    if unit.aggregate == "weight" and unit.max_rows > _MOST_WEIGHTED:
        found.append(
            f"dataset.privacy_unit.max_rows: got {unit.max_rows}; with aggregate: weight at most "
            f"{_MOST_WEIGHTED}, as smaller weights would be rounded away (aggregate: mean takes "
            "more)"
        )
    return found


def _label_problems(dataset: DatasetSpec) -> list[str]:
    found = []
    if dataset.label is not None and dataset.labels is None:
        found.append(
            "dataset.labels: missing; list the public label values, such as labels: [0, 1, 2] "
            "(they are never taken from the data)"
        )
    if dataset.label is None and dataset.labels is not None:
        found.append("dataset.label: missing; name the column that holds dataset.labels")
    if dataset.label in dataset.feature_names:
        found.append(
            f"dataset.label: got {show(dataset.label)}, which is among dataset.features; "
            "remove it from one of the two"
        )
    return found


def _category_problems(dataset: DatasetSpec) -> list[str]:
    categories = dataset.categories or {}
    if categories and not dataset.is_table:
        return [
            "dataset.categories: belongs to a table; make dataset.features a list of numeric "
            "columns, or remove the key"
        ]
    taken = dict.fromkeys(dataset.number_names, "one of dataset.features")
    if dataset.label is not None:
        taken[dataset.label] = "dataset.label"
    found = [
        f"dataset.categories: got {show(name)}, which is {taken[name]}; remove it from one of "
        "the two"
        for name in categories
        if name in taken
    ]
    counts = sum(map(len, categories.values())) * max(1, len(dataset.labels or ()))
    if counts > _MOST_COUNTS:
        found.append(
            f"dataset.categories: {counts:,} values and labels together, each of which is counted; "
            f"at most {_MOST_COUNTS:,}: join the rare values beforehand"
        )
    return found


def _state_problems(dataset: DatasetSpec, model: ModelSpec) -> list[str]:
    """What categories and missing values need: a table with marginals, and no means of rows."""
    wanted = {"dataset.categories": bool(dataset.categories)}
    wanted["dataset.nulls: model"] = dataset.nulls == "model"
    found = []
    for key in (key for key, is_wanted in wanted.items() if is_wanted):
        if not dataset.is_table:
            if dataset.nulls == "model":
                found.append(
                    "dataset.nulls: got 'model', which is for tables; an embedding that lacks a "
                    "number contributes nothing: remove the key"
                )
            break
        if dataset.privacy_unit is not None and dataset.privacy_unit.aggregate == "mean":
            found.append(
                f"{key}: cannot be combined with dataset.privacy_unit.aggregate: mean, because "
                "there is no mean of states; use aggregate: rows or weight"
            )
        if model.marginals == "none":
            found.append(f"{key}: needs model.marginals: auto; remove 'none'")
        if model.dimension is not None:
            found.append(f"{key}: cannot be combined with model.dimension; remove one of the two")
    if any(wanted.values()) and len(dataset.feature_names) > MOST_MARGINALS:
        found.append(
            f"dataset.features: {len(dataset.feature_names)} columns with categories or missing "
            f"values; at most {MOST_MARGINALS}"
        )
    return found


def _table_problems(dataset: DatasetSpec, bounds: BoundsSpec) -> list[str]:
    found = []
    if dataset.width is not None:
        found.append("dataset.width: belongs to a list column; remove it, features is a list")
    if bounds.center is not None:
        found.append("bounds.center: remove it; a table is centred by its bounds.columns")
    if bounds.norm == "auto":
        found.append("bounds.norm: got 'auto'; remove it, a table is bounded by its bounds.columns")
    if bounds.columns == "auto":
        return found
    bounded = bounds.columns or {}
    found += [
        f"bounds.columns: no bounds for {show(name)}; add its public [low, high], or auto"
        for name in dataset.number_names
        if name not in bounded
    ]
    found += [
        f"bounds.columns: {show(name)} is not one of dataset.features; remove it"
        for name in bounded
        if name not in dataset.number_names
    ]
    return found


def _embedding_problems(dataset: DatasetSpec, bounds: BoundsSpec) -> list[str]:
    found = []
    if bounds.norm is None:
        found.append(
            "bounds.norm: missing; give a public bound on the L2 norm of a row, such as 1.0 for "
            "normalised embeddings, or auto (for numeric columns make dataset.features a list)"
        )
    if bounds.columns is not None:
        found.append(
            "bounds.columns: belongs to numeric columns; remove it and give bounds.norm, "
            "or make dataset.features a list of columns"
        )
    width, center = dataset.width, bounds.center
    if width is not None and isinstance(center, tuple) and len(center) != width:
        found.append(
            f"bounds.center: has {len(center)} numbers, dataset.width is {width}; make them agree"
        )
    return found


def _dimension_problems(dataset: DatasetSpec, model: ModelSpec) -> list[str]:
    dimension, width = model.dimension, dataset.known_width
    if dimension is None or width is None or dimension <= width:
        return []
    return [f"model.dimension: got {dimension}; must be at most the number of features, {width}"]
