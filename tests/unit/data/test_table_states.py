"""Rows of tables that lack values, and columns of categories: read as numbers, NaN for missing."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpgmm_dist.artifact.columns import categories_of, rows_batch, rows_schema, stored_values
from dpgmm_dist.artifact.receipt import InputSchema
from dpgmm_dist.data.describe import describe_input
from dpgmm_dist.data.labels import category_numbers
from dpgmm_dist.errors import DataError, SpecError

from .reading import open_source, read

NAN = float("nan")
COLOURS = ("red", "green")
TEXTS = (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()))


def features(source) -> np.ndarray:
    return np.concatenate([block.features for block in read(source)])


def same(found: np.ndarray, wanted: list[list[float]]) -> bool:
    return np.array_equal(found, np.array(wanted), equal_nan=True)


@pytest.mark.parametrize("kind", TEXTS, ids=str)
def test_texts_of_every_type_are_the_numbers_of_their_values(kind):
    array = pa.array(["green", "blue", None, "red", "Red "], kind)
    for part, wanted in ((array, [1, NAN, NAN, 0, NAN]), (array[2:4], [NAN, 0])):
        assert np.array_equal(category_numbers(part, COLOURS), wanted, equal_nan=True)


def test_other_values_are_compared_in_their_own_type():
    numbers = category_numbers(pa.array([3, 300, None, -1], pa.int16()), (300, 3))
    assert np.array_equal(numbers, [1, 0, NAN, NAN], equal_nan=True)
    flags = category_numbers(pa.array([True, None, False]), (False, True))
    assert np.array_equal(flags, [1, NAN, 0], equal_nan=True)
    days = category_numbers(pa.array([date(2026, 1, 2), None]), ("2026-01-01", "2026-01-02"))
    assert np.array_equal(days, [1, NAN], equal_nan=True)
    assert np.isnan(category_numbers(pa.nulls(2), COLOURS)).all()


def write(path, **columns) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def test_a_row_keeps_what_it_has(tmp_path):
    write(tmp_path / "t.parquet", a=[1.0, None, NAN], b=[None, 2, 3], c=["red", "grey", None])
    states = {"categories": {"c": list(COLOURS)}, "nulls": "model"}
    source = open_source(tmp_path, ["a", "b"], **states)
    assert same(features(source), [[1, NAN, 0], [NAN, 2, NAN], [NAN, 3, NAN]])
    assert all(block.valid is None for block in read(source))
    # Without it, a row that lacks a number is not valid, and one without a category is not finite.
    dropped = open_source(tmp_path, ["a", "b"], categories={"c": list(COLOURS)})
    blocks = read(dropped)
    valid = np.concatenate([block.valid for block in blocks])
    finite = np.isfinite(features(dropped)).all(axis=1)
    assert not (valid & finite).any()


def test_directories_may_name_categories(tmp_path):
    write(tmp_path / "c=green" / "a.parquet", a=[1.0])
    write(tmp_path / "c=grey" / "a.parquet", a=[2.0])
    write(tmp_path / "c=__HIVE_DEFAULT_PARTITION__" / "a.parquet", a=[3.0])
    states = {"categories": {"c": list(COLOURS)}, "nulls": "model"}
    found = features(open_source(tmp_path, ["a"], **states))
    assert same(found[np.argsort(found[:, 0])], [[1, 1], [2, NAN], [3, NAN]])


def test_a_file_in_which_a_column_is_missing_everywhere(tmp_path):
    write(tmp_path / "a.parquet", a=[1.0], c=["red"])
    write(tmp_path / "b.parquet", a=pa.nulls(1), c=pa.nulls(1))
    states = {"categories": {"c": list(COLOURS)}, "nulls": "model"}
    source = open_source(tmp_path, ["a"], **states)
    assert same(features(source), [[1, 0], [NAN, NAN]])
    described = describe_input(source)["columns"]
    assert described[1] == {"name": "c", "type": "string", "values": list(COLOURS)}
    assert "values" not in described[0]


def test_categories_of_another_kind_are_refused(tmp_path):
    write(tmp_path / "t.parquet", a=[1.0], c=[1.5])
    with pytest.raises(DataError, match="category column 'c' is double"):
        open_source(tmp_path, ["a"], categories={"c": ["x"]})
    write(tmp_path / "t.parquet", a=[1.0], c=["1"])
    with pytest.raises(SpecError, match=r"dataset\.categories are integers"):
        open_source(tmp_path, ["a"], categories={"c": [1]})


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("string", ["a", "b"]),
        ("string_view", ["a", "b"]),
        ("int16", [7, 300]),
        ("bool", [False, True]),
        ("date32[day]", ["2026-01-01", "2026-01-02"]),
    ],
)
def test_rows_are_written_in_the_type_of_the_input(kind, values):
    columns = [
        {"name": "n", "type": "int32"},
        {"name": "t", "type": "timestamp[ms, tz=UTC]"},
        {"name": "d", "type": "decimal128(9, 2)"},
        {"name": "c", "type": kind, "values": values},
    ]
    document = {"kind": "columns", "columns": columns, "width": 4, "label": None}
    schema = InputSchema.model_validate(document, strict=False)
    arrow, named = rows_schema(schema, ()), categories_of(schema)
    rows = np.array([[1.2, 60.0, 0.5, 1.0], [NAN, NAN, NAN, NAN], [3.0, 0.0, 7.25, 0.0]])
    batch = rows_batch(rows, [], arrow, named)
    assert [str(field.type) for field in batch.schema] == [c["type"] for c in columns]
    assert [column.null_count for column in batch.columns] == [1, 1, 1, 1]
    written = batch.column(3).to_pylist()
    written = [str(v) if kind.startswith("date") and v is not None else v for v in written]
    assert written == [values[1], None, values[0]]
    assert same(stored_values(rows, arrow, named), [[1, 60, 0.5, 1], [NAN] * 4, [3, 0, 7.25, 0]])
