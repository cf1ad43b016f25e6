"""A privacy unit is one value in every Parquet type; types that could make it two are refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dpgmm_dist.data.unit_values import digest, digests_of, kind_of, object_digests
from dpgmm_dist.errors import DataError
from dpgmm_dist.pipeline.resolve import open_dataset
from dpgmm_dist.spec.sections import DatasetSpec

TEXT = ["ann", None, "bob", "ann"]
SPELLINGS = {
    "string": pa.array(TEXT),
    "large": pa.array(TEXT, pa.large_string()),
    "view": pa.array(TEXT, pa.string_view()),
    "binary": pa.array([t and t.encode() for t in TEXT]),
    "fixed": pa.array([t and t.encode() for t in TEXT], pa.binary(3)),
    "dictionary": pa.array(TEXT).dictionary_encode(),
    "dictionary of views": pa.DictionaryArray.from_arrays(
        pa.array([0, None, 1, 0]), pa.array(["ann", "bob"], pa.string_view())
    ),
    "slice": pa.array(["zed", *TEXT, "zed"]).slice(1, 4),
    "dictionary slice": pa.array(["zed", *TEXT]).dictionary_encode().slice(1),
    "null entry": pa.DictionaryArray.from_arrays([0, 1, 2, 0], pa.array(["ann", None, "bob"])),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_text_is_one_unit_in_every_type(name):
    digests, valid = digests_of(SPELLINGS[name])
    want, want_valid = object_digests(TEXT)
    assert kind_of(SPELLINGS[name].type) == "text"
    assert (digests[valid] == want[want_valid]).all()
    assert valid.tolist() == want_valid.tolist() == [True, False, True, True]


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint8(), pa.int32(), pa.uint64(), pa.int64()])
def test_integers_are_one_unit_in_every_width(kind):
    digests, valid = digests_of(pa.array([5, None, 7], kind))
    assert valid.tolist() == [True, False, True]
    assert digests[0].tobytes() == digest(5)
    assert kind_of(kind) == "integer"


def test_what_differs_has_different_digests():
    values = [5, -5, 0, 2**64 - 1, -1, b"5", b"-1", b"", b"i5", b"t5"]
    assert len({digest(value) for value in values}) == len(values)


def test_text_that_is_no_utf8_is_a_unit_like_any_other():
    bad = pa.array([b"\xff\xfe", b"ok"]).view(pa.string())
    digests, valid = digests_of(bad)
    assert valid.all()
    assert digests[0].tobytes() == digest(b"\xff\xfe")


def test_no_column_of_nulls_fails():
    digests, valid = digests_of(pa.nulls(3))
    assert not valid.any()
    assert digests.shape == (3, 32)
    assert object_digests(np.array([None, 1.5, True, np.nan], dtype=object))[1].sum() == 0


@pytest.mark.parametrize("kind", [pa.float64(), pa.bool_(), pa.timestamp("s"), pa.list_(pa.int8())])
def test_types_in_which_one_person_could_be_two_are_refused(kind):
    assert kind_of(kind) is None


def source_of(folder, tables):
    import pyarrow.parquet as pq

    for name, columns in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        rows = len(next(iter(columns.values()))) if columns else 2
        x = pa.array([[0.1, 0.2]] * rows, pa.list_(pa.float32(), 2))
        pq.write_table(pa.table({"x": x, **columns}), folder / name)
    return open_dataset(
        DatasetSpec(path=str(folder), features="x", privacy_unit={"column": "who", "max_rows": 2})
    )


def units_of(source):
    blocks = [b for unit in source.plan() for b in source.blocks(unit, 100)]
    return [
        d.tobytes() if v else None for b in blocks for d, v in zip(b.units, b.valid, strict=True)
    ]


def test_directories_and_columns_name_the_same_units(tmp_path):
    source = source_of(
        tmp_path,
        {"who=5/a.parquet": {}, "b.parquet": {"who": pa.array([5, None], pa.int16())}},
    )
    assert units_of(source) == [digest(5), None, digest(5), digest(5)]


def test_directories_alone_may_hold_text(tmp_path):
    source = source_of(tmp_path, {"who=5/a.parquet": {}, "who=ann/a.parquet": {}})
    assert units_of(source) == [digest(b"5")] * 2 + [digest(b"ann")] * 2


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"a.parquet": {"who": [1.5, 2.5]}}, "double"),
        ({"a.parquet": {}}, "no column 'who'"),
        ({"a.parquet": {"who": [1, 2]}, "b.parquet": {"who": ["1", "2"]}}, "one person could"),
        ({"who=ann/a.parquet": {}, "b.parquet": {"who": [1, 2]}}, "one person could"),
    ],
)
def test_columns_that_cannot_name_units_are_refused(tables, words, tmp_path):
    with pytest.raises(DataError, match=words):
        source_of(tmp_path, tables)
