"""Frames as sources of rows: read like the columns of a file, refused by argument and column."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from dpgmm_dist.data.frames import FrameSource, frame_like, is_frame, no_rows_of, with_labels
from dpgmm_dist.data.parquet_schema import Columns
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.windows import Window

from .reading import expected, open_source, read, rows, write

DAYS = [date(2020, 1, 1), None, date(2021, 1, 1), date(2020, 6, 1)]
TABLE = pa.table(
    {
        "x": [1, 2, None, 4],
        "day": DAYS,
        "y": pa.array(["a", "b", "a", None]).dictionary_encode(),
        "v": pa.array([[1, 2], [3, 4], None, [5]], pa.large_list(pa.float32())),
        "meta": [{"v": [1, 2]}, None, {"v": [3, None]}, {"v": [7, 8]}],
    }
)
LABELLED = Columns(("x", "day"), True, "y", ("a", "b"))


class Stream:
    """Another library's frame: it has names, and gives an Arrow stream."""

    columns = TABLE.column_names

    def __arrow_c_stream__(self, requested_schema=None):
        return TABLE.__arrow_c_stream__(requested_schema)


def frames():
    yield "pyarrow", TABLE
    yield "batch", TABLE.combine_chunks().to_batches()[0]
    yield "stream", Stream()
    for name in ("pandas", "polars"):
        yield name, None


def made(name, frame, columns=("x", "day", "y", "v")):
    if frame is not None:
        return frame
    library = pytest.importorskip(name)
    table = TABLE.select(columns)
    return table.to_pandas() if name == "pandas" else library.DataFrame(table)


@pytest.mark.parametrize(("name", "frame"), list(frames()), ids=lambda value: str(value)[:8])
def test_frames_of_every_kind_are_the_same_rows(name, frame, tmp_path):
    frame = made(name, frame)
    assert is_frame(frame)
    table = FrameSource.open(frame, LABELLED)
    assert table.kinds == ("number", "date")
    wanted = [[1, 18262], None, None, [4, 18414]]
    assert rows(read(table)) == expected(wanted, [0, 1, 0, -1], 2)
    embeddings = FrameSource.open(frame, Columns(("v",), False, None, ()), width=2)
    assert rows(read(embeddings)) == expected([[1, 2], [3, 4], None, None], [0] * 4, 2, np.float32)


def test_a_frame_is_read_like_its_file(tmp_path):
    path = write(tmp_path / "a.parquet", **{name: TABLE[name] for name in TABLE.column_names})
    for features, more in (("v", {}), ("meta.v", {}), (["day"], {"privacy_unit": UNIT})):
        width = None if isinstance(features, list) else 2
        file = open_source(path, features, width=width, label="y", labels=["a", "b"], **more)
        frame = FrameSource.open(TABLE, file.columns, width=width)
        assert rows(read(frame)) == rows(read(file))
        assert rows(read(frame, max_rows=1, target_bytes=1)) == rows(read(file))
        assert (frame.width, frame.kinds, frame.unit_kind) == (
            file.width,
            file.kinds,
            file.unit_kind,
        )
        assert "2020" not in repr(frame)


UNIT = {"column": "x", "max_rows": 2}


def test_units_and_fingerprints_do_not_depend_on_chunks():
    columns = Columns(("x",), True, "y", ("a", "b"), unit="x")
    whole = FrameSource.open(TABLE, columns)
    chunked = FrameSource.open(pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)]), columns)
    assert whole.fingerprint() == chunked.fingerprint()
    changed = FrameSource.open(TABLE.slice(1), columns)
    assert whole.fingerprint() != changed.fingerprint()
    units = [np.concatenate([block.units for block in read(s)]) for s in (whole, chunked)]
    assert (units[0] == units[1]).all()
    assert len(np.unique(units[0], axis=0)) == 4  # 1, 2, 4 and null


def test_a_window_is_by_a_column_of_times():
    window = Window("day", start="2020-01-01", end="2020-12-01")
    source = FrameSource.open(TABLE, Columns(("x",), True, None, ()), window=window)
    assert rows(read(source)) == expected([[1], None, None, [4]], [0] * 4, 1)
    with pytest.raises(SpecError, match=r"dataset\.window\.equals .*source is a frame"):
        FrameSource.open(TABLE, LABELLED, window=Window("day", equals="x"))


def test_an_empty_frame_has_a_plan():
    source = FrameSource.open(TABLE.slice(0, 0), LABELLED)
    assert len(source.plan()) == 1
    assert read(source) == []


@pytest.mark.parametrize(
    ("columns", "error", "words"),
    [
        (Columns(("z",), True, None, ()), DataError, "X: no column 'z'; it has x, day"),
        (Columns(("y",), True, None, ()), DataError, "X: column 'y' is dictionary"),
        (Columns(("v",), False, None, ()), SpecError, "dataset.width is missing"),
        (Columns(("x",), True, "y", (1,)), SpecError, "column 'y' of X holds strings"),
        (Columns(("x",), True, "no", (1,)), DataError, "X: no column 'no'"),
    ],
)
def test_what_cannot_be_read_is_refused_by_argument_and_column(columns, error, words):
    for name, frame in frames():
        try:
            frame = made(name, frame)
        except pytest.skip.Exception:
            continue
        with pytest.raises(error, match="") as caught:
            FrameSource.open(frame, columns, argument="X")
        if name == "pyarrow":
            assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_pandas_column_of_mixed_values_is_an_error_without_values():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": [1, "secret"], "z": [1.0, 2.0]})
    with pytest.raises(DataError, match="X cannot be read") as caught:
        FrameSource.open(frame, Columns(("x",), True, None, ()), argument="X")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None
    # A column that is not read does not matter.
    FrameSource.open(frame, Columns(("z",), True, None, ()), argument="X")


def test_labels_are_joined_to_a_table():
    for y in (["a", "b", None, "a"], np.array(["a", "b", "", "a"]), pa.chunked_array([["a"] * 4])):
        table = with_labels(TABLE, "y", y)
        assert table.column_names == ["x", "day", "v", "meta", "y"]
        assert table["y"][0].as_py() == "a"
    with pytest.raises(DataError, match="same number of rows"):
        with_labels(TABLE, "y", ["a"])
    with pytest.raises(DataError, match="y cannot be read") as caught:
        with_labels(TABLE, "y", ["secret", 1, 2, 3])
    assert "secret" not in str(caught.value)


def test_frames_come_back_in_their_kind():
    few = pa.table({"x": [1.5]})
    assert frame_like(no_rows_of(TABLE), few) is few
    assert no_rows_of(Stream()).num_rows == 0
    for name in ("pandas", "polars"):
        frame = made(name, None)
        again = frame_like(no_rows_of(frame), few)
        assert type(again) is type(frame)
        assert again["x"].to_list() == [1.5]


@pytest.mark.parametrize("value", [np.zeros((2, 2)), [[1]], "path", None, {"x": [1]}])
def test_other_things_are_no_frames(value):
    assert not is_frame(value)
