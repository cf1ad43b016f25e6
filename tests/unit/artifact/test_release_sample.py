from __future__ import annotations

import tracemalloc
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import releases

from dpgmm_dist import load_release
from dpgmm_dist.artifact import sample
from dpgmm_dist.artifact.columns import rows_batch, rows_schema, stored_values
from dpgmm_dist.artifact.receipt import Column, InputSchema
from dpgmm_dist.artifact.sample import write_samples
from dpgmm_dist.artifact.sample_options import SampleOptions
from dpgmm_dist.data.column_numbers import column_numbers
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.model.affine import Transform


@pytest.fixture
def release(tmp_path: Path) -> str:
    mixture = releases.mixture_of(p=2)
    releases.write(tmp_path / "release", mixture=mixture, transform=releases.projection())
    return str(tmp_path / "release")


def read(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(p) for p in sorted(folder.glob("part-*.parquet"))])


def test_rows_have_the_inputs_columns_and_types(release: str, tmp_path: Path) -> None:
    result = write_samples(release, 1001, str(tmp_path / "rows"), partitions=3, seed=1)
    expected = {"rows": 1001, "partitions": 3, "seed": 1, "output": str(tmp_path / "rows")}
    assert result == expected
    files = sorted(p.name for p in (tmp_path / "rows").iterdir())
    assert files == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    sizes = [pq.read_metadata(tmp_path / "rows" / name).num_rows for name in files]
    assert sizes == [334, 334, 333]
    table = read(tmp_path / "rows")
    assert table.schema == pa.schema(
        [("embedding", pa.list_(pa.float32(), 3)), ("kind", pa.int16())]
    )
    labels = np.array(table["kind"].to_pylist())
    assert set(labels) == {7, 3} and (np.diff(labels) != 0).sum() > 100  # not sorted


def test_rows_have_the_moments_of_the_mixture(release: str, tmp_path: Path) -> None:
    write_samples(release, 40_000, str(tmp_path / "rows"), partitions=2, seed=2)
    table = read(tmp_path / "rows")
    rows = np.array(table["embedding"].to_pylist())
    labels = np.array(table["kind"].to_pylist())
    loaded = load_release(release)
    expected, drawn = loaded.sample(40_000, seed=99)
    for value in (7, 3):
        written, sampled = rows[labels == value], expected[drawn == value]
        assert len(written) == pytest.approx(len(sampled), rel=0.05)
        assert np.abs(written.mean(axis=0) - sampled.mean(axis=0)).max() < 0.08
        assert np.abs(np.cov(written.T) - np.cov(sampled.T)).max() < 0.15


def test_bytes_depend_only_on_seed_rows_and_partitions(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(name: str, **changes: Any) -> list[bytes]:
        arguments = {"rows": 500, "partitions": 2, "seed": 5} | changes
        write_samples(release, output=str(tmp_path / name), **arguments)
        return [p.read_bytes() for p in sorted((tmp_path / name).iterdir())]

    first = written("a")
    assert written("b") == first
    assert written("c", seed=6) != first
    assert first[0] != first[1]
    monkeypatch.setattr(sample, "_BLOCK_VALUES", 300)
    blocks = written("d")
    assert len(blocks[0]) > 0 and blocks == written("e")


def test_blocks_of_a_partition_differ(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "_BLOCK_VALUES", 30)
    write_samples(release, 100, str(tmp_path / "rows"), seed=0)
    table = read(tmp_path / "rows")
    assert pq.read_metadata(tmp_path / "rows" / "part-00000.parquet").num_row_groups == 10
    assert len({tuple(row) for row in table["embedding"].to_pylist()}) == 100


def test_an_integer_label_can_be_given_as_text(release: str, tmp_path: Path) -> None:
    write_samples(release, 50, str(tmp_path / "a"), label=3, seed=0)
    write_samples(release, 50, str(tmp_path / "b"), label="3", seed=0)
    assert set(read(tmp_path / "a")["kind"].to_pylist()) == {3}
    assert read(tmp_path / "a") == read(tmp_path / "b")
    with pytest.raises(SpecError, match="label 'cat' is not one of the release's labels: 7, 3"):
        write_samples(release, 5, str(tmp_path / "c"), label="cat")
    assert not (tmp_path / "c").exists()


def test_rows_of_a_table_have_its_columns(tmp_path: Path) -> None:
    transform = Transform(center=np.array([60.0, 5e4, 250]), half_width=np.array([60.0, 5e4, 20]))
    releases.write(
        tmp_path / "release",
        mixture=releases.mixture_of(()),
        transform=transform,
        input_schema=releases.TABLE_INPUT,
    )
    write_samples(str(tmp_path / "release"), 2000, str(tmp_path / "rows"), seed=3)
    table = read(tmp_path / "rows")
    assert table.schema == pa.schema(
        [("age", pa.int32()), ("income", pa.float64()), ("byte", pa.uint8())]
    )
    assert max(table["byte"].to_pylist()) == 255  # clipped, not wrapped
    assert len(set(table["age"].to_pylist())) > 20


def test_a_release_without_labels_or_seed(tmp_path: Path) -> None:
    releases.write(tmp_path / "release", mixture=releases.mixture_of(()))
    first = write_samples(str(tmp_path / "release"), 10, str(tmp_path / "a"))
    second = write_samples(str(tmp_path / "release"), 10, str(tmp_path / "b"))
    assert first["seed"] != second["seed"]
    assert read(tmp_path / "a") != read(tmp_path / "b")
    again = write_samples(str(tmp_path / "release"), 10, str(tmp_path / "c"), seed=first["seed"])
    assert read(tmp_path / "a") == read(tmp_path / "c") and again["seed"] == first["seed"]
    assert read(tmp_path / "a").column_names == ["embedding"]
    with pytest.raises(SpecError, match="has no labels"):
        write_samples(str(tmp_path / "release"), 10, str(tmp_path / "d"), label=1)


def test_more_partitions_than_rows_and_no_rows_at_all(release: str, tmp_path: Path) -> None:
    write_samples(release, 2, str(tmp_path / "a"), partitions=3, seed=0)
    assert read(tmp_path / "a").num_rows == 2 and len(list((tmp_path / "a").iterdir())) == 3
    write_samples(release, 0, str(tmp_path / "b"), seed=0)
    assert read(tmp_path / "b").num_rows == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": -1}, "rows must be at least 0, got -1"),
        ({"partitions": 0}, "partitions must be from 1"),
        ({"seed": -2}, "seed must be at least 0"),
        ({"output": "s3://user:secret@host/x"}, "holds a password"),
    ],
)
def test_numbers_out_of_range_are_refused(
    release: str, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    arguments = {"rows": 5, "output": str(tmp_path / "rows")} | change
    with pytest.raises(SpecError, match=message):
        write_samples(release, **arguments)
    assert not (tmp_path / "rows").exists()


def test_an_output_that_is_not_empty_is_refused(release: str, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    write_samples(release, 5, str(tmp_path / "rows"))
    with pytest.raises(SpecError, match="is not empty"):
        write_samples(release, 5, str(tmp_path / "rows"))
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(SpecError, match="is a file"):
        write_samples(release, 5, str(tmp_path / "file"))


def test_a_failure_leaves_no_part_of_a_file(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(sample, "rows_batch", fail)
    with pytest.raises(DataError, match=r"cannot write samples to .*disk full"):
        write_samples(release, 5, str(tmp_path / "rows"))
    assert list((tmp_path / "rows").iterdir()) == []


def test_samples_to_an_object_store_are_the_same_bytes(release: str, tmp_path: Path) -> None:
    import fsspec

    write_samples(release, 100, "memory://sample-test/rows", seed=4)
    write_samples(release, 100, str(tmp_path / "rows"), seed=4)
    stored = fsspec.filesystem("memory").cat_file("/sample-test/rows/part-00000.parquet")
    assert stored == (tmp_path / "rows" / "part-00000.parquet").read_bytes()


def test_progress_reaches_the_end(release: str, tmp_path: Path) -> None:
    fractions: list[float] = []
    write_samples(release, 9, str(tmp_path / "rows"), partitions=3, progress=fractions.append)
    assert fractions == [1 / 3, 2 / 3, 1.0]


def test_memory_does_not_grow_with_the_rows(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "_BLOCK_VALUES", 3000)

    def peak(rows: int, name: str) -> int:
        tracemalloc.start()
        write_samples(release, rows, str(tmp_path / name), seed=0)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(1000, "warm")
    assert peak(40_000, "large") < 2 * peak(4000, "small")


@pytest.mark.parametrize(
    "kind", ["int8", "uint16", "int64", "uint64", "float16", "float", "string"]
)
def test_every_numeric_type_is_rounded_and_kept_in_range(kind: str) -> None:
    schema = InputSchema(kind="columns", width=1, columns=(Column(name="x", type=kind),))
    if kind == "string":
        with pytest.raises(DataError, match="'string', not a number"):
            rows_schema(schema, ())
        return
    rows = np.array([[-1e30], [1e30], [2.5], [-0.4]])
    values = rows_batch(rows, [], rows_schema(schema, ()))["x"].to_pylist()
    if kind.startswith("float"):
        assert np.isfinite(np.array(values, dtype=np.float16 if kind == "float16" else float)).all()
    else:
        limits = np.iinfo(kind)
        assert values[0] == limits.min and values[2:] == [2, 0]
        assert limits.max * 0.999 < values[1] <= limits.max


def test_labels_that_do_not_fit_their_column_widen_it() -> None:
    def schema(kind: str) -> InputSchema:
        features = (Column(name="x", type="uint8"),)
        label = Column(name="y", type=kind)
        return InputSchema(kind="list", width=2, columns=features, label=label)

    small = schema("int8")
    assert rows_schema(small, (1, 2)).field("y").type == pa.int8()
    assert rows_schema(small, (1, 300)).field("y").type == pa.int64()
    large = schema("large_string")
    assert rows_schema(large, ("a",)).field("y").type == pa.large_string()
    coded = schema("dictionary<values=string, indices=int32>")
    assert rows_schema(coded, ("a",)).field("y").type == pa.string()


DAYS = 18_292.0
"""2020-01-31, in days since 1970-01-01."""
NOON = DAYS * 86_400 + 43_200


@pytest.mark.parametrize(
    ("kind", "numbers", "written"),
    [
        ("bool", [0.4, 0.6, -9.0, 1e30], [False, True, False, True]),
        ("date32[day]", [DAYS + 0.4, -1e300], [date(2020, 1, 31), date.min]),
        ("date64[ms]", [DAYS - 0.4, 1e300], [date(2020, 1, 31), date.max]),
        ("timestamp[s]", [NOON + 0.4], [datetime(2020, 1, 31, 12)]),
        ("timestamp[us]", [NOON + 0.25], [datetime(2020, 1, 31, 12, 0, 0, 250_000)]),
        ("timestamp[ms, tz=UTC]", [NOON], [datetime(2020, 1, 31, 12, tzinfo=UTC)]),
        ("timestamp[us]", [-1e300], [datetime.min]),
        ("time32[s]", [6.6, -5.0, 1e9], [time(0, 0, 7), time(), time(23, 59, 59)]),
        ("time64[us]", [0.5, 86_400.0], [time(0, 0, 0, 500_000), time.max]),
        ("duration[ms]", [1.5, -2.0], [timedelta(seconds=1.5), timedelta(seconds=-2)]),
        ("duration[s]", [1e300], [timedelta(days=10**9 - 1)]),
        ("decimal128(7, 2)", [12.345, -0.004, 1e300], ["12.34", "0.00", "99999.99"]),
        ("decimal32(4, 1)", [12.36, -1e300], ["12.4", "-999.9"]),
        ("decimal256(60, 3)", [1.0005, 2.0], ["1.000", "2.000"]),
        ("decimal128(38, 0)", [1e300, 3.4], [str(int(1e38)), "3"]),
    ],
)
def test_numbers_are_written_in_the_type_of_their_column(
    kind: str, numbers: list[float], written: list[Any]
) -> None:
    schema = rows_schema(
        InputSchema(kind="columns", width=1, columns=(Column(name="x", type=kind),)), ()
    )
    assert str(schema.field("x").type) == kind
    rows = np.array(numbers)[:, None]
    values = rows_batch(rows, [], schema)["x"].to_pylist()
    assert values == [Decimal(v) if isinstance(v, str) else v for v in written]
    # What is read back is what the bounds were compared with.
    read, _ = column_numbers(rows_batch(rows, [], schema)["x"])
    assert read.astype(float).tolist() == stored_values(rows, schema)[:, 0].tolist()


@pytest.mark.parametrize("kind", ["timestamp[ns]", "duration[ns]"])
def test_times_beyond_64_bits_of_nanoseconds_are_kept_in_range(kind: str) -> None:
    columns = (Column(name="x", type=kind),)
    schema = rows_schema(InputSchema(kind="columns", width=1, columns=columns), ())
    batch = rows_batch(np.array([[-1e300], [1e300]]), [], schema)
    low, high = batch["x"].cast(pa.int64()).to_pylist()
    assert low == -(2**63) and high == int(np.nextafter(2.0**63, 0))


@pytest.mark.parametrize(
    ("kind", "labels", "column"),
    [
        ("bool", (0, 1), [True, False]),
        ("date32[day]", ("2020-01-31", "2021-01-01"), [date(2021, 1, 1), date(2020, 1, 31)]),
        ("string_view", ("a", "b"), ["b", "a"]),
        ("large_string", ("a", "b"), ["b", "a"]),
    ],
)
def test_labels_are_written_in_the_type_of_their_column(
    tmp_path: Path, kind: str, labels: tuple[Any, ...], column: list[Any]
) -> None:
    releases.write(
        tmp_path / "release",
        mixture=releases.mixture_of(labels),
        input_schema=releases.LIST_INPUT | {"label": {"name": "kind", "type": kind}},
    )
    options = SampleOptions(label_rows={str(labels[1]): 2, labels[0]: 1})
    write_samples(str(tmp_path / "release"), None, str(tmp_path / "rows"), options=options)
    table = read(tmp_path / "rows")
    assert str(table.schema.field("kind").type) == kind
    assert sorted(table["kind"].to_pylist()) == sorted([column[0], *column])
    if kind == "bool":
        write_samples(str(tmp_path / "release"), 3, str(tmp_path / "true"), label="true")
        assert read(tmp_path / "true")["kind"].to_pylist() == [True] * 3
