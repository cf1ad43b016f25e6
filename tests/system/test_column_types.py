"""Columns of every type, through the commands: released, and sampled in their own type."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dpgmm_dist import ReleaseSpec, load_release, release
from dpgmm_dist.artifact.sample import write_samples

from ..variants import mostly_variants
from .releases import digests, done, dpgmm, write_spec

FAST = ("--set", "privacy.epsilon=0.1")
"""A release that goes by stages, for tests that compare bytes and need no fit."""
NOISE = ("--insecure-test-noise", 7, "--release-id", "types")
ROWS = 600
RNG = np.random.default_rng(3)
UNIT = RNG.beta(2, 5, ROWS)
"""Where each row is between the bounds of its column: many are near the lower one."""


def spread(low: int, high: int) -> list[int]:
    return (low + np.rint(UNIT * (high - low)).astype(int)).tolist()


DAYS = [date(2020, 1, 1) + timedelta(days=d) for d in spread(0, 366)]
MOMENTS = [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=s) for s in spread(0, 86_400)]
NAIVE = [moment.replace(tzinfo=None) for moment in MOMENTS]
TIMES = [(datetime(2020, 1, 1) + timedelta(seconds=s)).time() for s in spread(0, 3600)]
SPANS = [timedelta(seconds=s) for s in spread(0, 7200)]
CENTS = [Decimal(cents).scaleb(-2) for cents in spread(0, 5000)]

TABLE: dict[str, tuple[pa.Array, list[Any], tuple[Any, Any]]] = {
    "flag": (pa.array(UNIT > 0.3), [False, True], (False, True)),
    "count": (pa.array(spread(0, 9), pa.int16()), [0, 9], (0, 9)),
    "price": (
        pa.array(CENTS, pa.decimal128(7, 2)),
        [0, 50],
        (Decimal("0.00"), Decimal("50.00")),
    ),
    "day": (
        pa.array(DAYS, pa.date32()),
        ["2020-01-01", "2021-01-01"],
        (date(2020, 1, 1), date(2021, 1, 1)),
    ),
    "seen": (
        pa.array(MOMENTS, pa.timestamp("us", "Europe/Paris")),
        ["2020-01-01", "2020-01-02T00:00:00+00:00"],
        (datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC)),
    ),
    "local": (
        pa.array(NAIVE, pa.timestamp("ms")),
        [1577836800, 1577923200],
        (datetime(2020, 1, 1), datetime(2020, 1, 2)),
    ),
    "clock": (pa.array(TIMES, pa.time64("us")), ["00:00", "01:00"], (time(), time(1))),
    "span": (
        pa.array(SPANS, pa.duration("ms")),
        ["PT0S", "PT2H"],
        (timedelta(0), timedelta(hours=2)),
    ),
    "code": (pa.array(UNIT.round(1)).dictionary_encode(), [0, 1], (0.0, 1.0)),
}


def table_spec(path: Path, data: Path, names: list[str], **dataset: Any) -> Path:
    document = {
        "dataset": {"path": str(data), "features": names, **dataset},
        "bounds": {"columns": {name: TABLE[name][1] for name in names}},
        "privacy": {"epsilon": 8.0, "delta": 1e-6},
        "model": {"components": 1},
    }
    path.write_text(yaml.safe_dump(document))
    return path


def released(folder: Path, spec: Path, name: str = "release", *options: object) -> Path:
    done("release", spec, "--output", folder / name, *NOISE, *options)
    return folder / name


def sampled(folder: Path, target: Path, *options: object) -> pa.Table:
    done("sample", target, "--rows", 500, "--output", folder / "rows", "--seed", 1, *options)
    return pq.read_table(folder / "rows")


def test_a_table_of_every_type_is_sampled_in_its_types_and_bounds(tmp_path):
    pq.write_table(pa.table({name: column for name, (column, *_) in TABLE.items()}), tmp_path / "t")
    spec = table_spec(tmp_path / "spec.yaml", tmp_path / "t", list(TABLE))
    done("plan", spec)
    target = released(tmp_path, spec)
    rows = sampled(tmp_path, target)
    for name, (column, _, (low, high)) in TABLE.items():
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        assert rows.schema.field(name).type == kind, name
        values = rows[name].to_pylist()
        assert low <= min(values) <= max(values) <= high, name
        # The bounds have mass on the lower side: without clipping, values would be beyond it.
        assert len(set(values)) > 1, name
    middle = np.array(rows["seen"].cast(pa.int64()).to_pylist()).mean() / 1e6
    assert middle == pytest.approx(np.mean([m.timestamp() for m in MOMENTS]), abs=3600)
    done("evaluate", target, "--data", tmp_path / "t", "--synthetic", tmp_path / "rows")


def test_values_beyond_the_bounds_are_kept_where_this_is_asked_for(tmp_path):
    pq.write_table(pa.table({"count": TABLE["count"][0], "day": TABLE["day"][0]}), tmp_path / "t")
    spec = table_spec(tmp_path / "spec.yaml", tmp_path / "t", ["count", "day"])
    rows = sampled(tmp_path, released(tmp_path, spec), "--bounds", "none")
    assert min(rows["count"].to_pylist()) < 0
    assert min(rows["day"].to_pylist()) < date(2020, 1, 1)


LAYOUTS: dict[str, tuple[str, list[pa.Array]]] = {
    "dates": ("day", [pa.array(DAYS, pa.date64())]),
    "timestamps": (
        "seen",
        [
            pa.array(MOMENTS, pa.timestamp("ns", "Asia/Tokyo")),
            pa.array(MOMENTS, pa.timestamp("ms")),
            pa.array(MOMENTS, pa.timestamp("s", "UTC")),
        ],
    ),
    "times": ("clock", [pa.array(TIMES, pa.time32("s")), pa.array(TIMES, pa.time64("ns"))]),
    "durations": ("span", [pa.array(SPANS, pa.duration("s")), pa.array(SPANS, pa.duration("ns"))]),
    "numbers": (
        "price",
        [
            pa.array(CENTS, pa.decimal256(50, 20)),
            pa.array(CENTS, pa.decimal64(12, 3)),
            pa.array([float(cents) for cents in CENTS]),
            pa.array([float(cents) for cents in CENTS]).dictionary_encode(),
        ],
    ),
    "booleans": ("flag", [pa.array([int(u > 0.3) for u in UNIT], pa.uint8())]),
}


@pytest.mark.parametrize("case", mostly_variants(LAYOUTS, "timestamps"))
def test_the_resolution_of_a_column_does_not_matter(case, tmp_path):
    """The same values in other types, and invalid rows among them, give the same bytes."""
    name, columns = LAYOUTS[case]
    found = []
    for i, column in enumerate([TABLE[name][0], *columns]):
        data = tmp_path / f"{i}.parquet"
        both = pa.concat_arrays([column.slice(0, 9), pa.nulls(3, column.type), column.slice(9)])
        pq.write_table(pa.table({name: both}), data, row_group_size=100 + i)
        spec = table_spec(tmp_path / f"{i}.yaml", data, [name])
        found.append(digests(released(tmp_path, spec, f"release-{i}", *FAST)))
    assert found == [found[0]] * len(found)


def test_hostile_values_among_the_rows_change_no_other(tmp_path):
    """Values far out of range count as the bound; nothing about them is said."""
    largest = 10**38 - 1
    far = {
        "price": pa.array([Decimal(largest), Decimal(-largest)], pa.decimal128(38, 0)),
        "day": pa.array([2**31 - 1, -(2**31)], pa.int32()).view(pa.date32()),
        "seen": pa.array([2**63 - 1, -(2**63)], pa.int64()).view(pa.timestamp("us", "UTC")),
        "span": pa.array([2**63 - 1, -(2**63)], pa.int64()).view(pa.duration("ms")),
    }
    near = {
        "price": pa.array([Decimal(50), Decimal(0)], pa.decimal128(38, 0)),
        "day": pa.array([date(2021, 1, 1), date(2020, 1, 1)]),
        "seen": pa.array([datetime(2020, 1, 2), datetime(2020, 1, 1)], pa.timestamp("us", "UTC")),
        "span": pa.array([timedelta(hours=2), timedelta(0)], pa.duration("ms")),
    }
    found = []
    for name, values in (("far", far), ("near", near)):
        table = pa.table(values).cast(pa.table(far).schema)
        usual = pa.table({c: TABLE[c][0] for c in far}).cast(table.schema, safe=False)
        pq.write_table(pa.concat_tables([usual, table]), tmp_path / f"{name}.parquet")
        spec = table_spec(tmp_path / f"{name}.yaml", tmp_path / f"{name}.parquet", list(far))
        result = dpgmm("release", spec, "--output", tmp_path / name, *NOISE, *FAST)
        assert result.returncode == 0, result.stderr
        assert "9223372036854" not in result.stderr + result.stdout
        found.append(digests(tmp_path / name))
    assert found[0] == found[1]


LABELS: dict[str, tuple[Callable[[bool], Any], pa.DataType, list[Any]]] = {
    "booleans": (lambda b: b, pa.bool_(), [False, True]),
    "dates": (
        lambda b: date(2021, 1, 1) if b else date(2020, 1, 1),
        pa.date32(),
        ["2020-01-01", "2021-01-01"],
    ),
    "string views": (lambda b: "ab"[int(b)], pa.string_view(), ["a", "b"]),
    "large strings": (lambda b: "ab"[int(b)], pa.large_string(), ["a", "b"]),
    "unsigned": (lambda b: 7 + b, pa.uint64(), [7, 8]),
}


@pytest.mark.parametrize("case", mostly_variants(LABELS, "dates"))
def test_labels_of_every_type(case, tmp_path):
    value, kind, labels = LABELS[case]
    column = pa.array([value(bool(u > 0.3)) for u in UNIT] + [None], kind)
    pq.write_table(pa.table({"count": [*spread(0, 9), 3], "y": column}), tmp_path / "t")
    spec = table_spec(tmp_path / "s.yaml", tmp_path / "t", ["count"], label="y", labels=labels)
    target = released(tmp_path, spec)
    assert dpgmm("verify", target).returncode == 6  # intact, and NOT PRIVATE
    rows = sampled(tmp_path, target)
    assert rows.schema.field("y").type == kind
    values = rows["y"].to_pylist()
    assert set(values) == {value(False), value(True)}
    share = np.mean([v == value(True) for v in values])
    assert share == pytest.approx((UNIT > 0.3).mean(), abs=0.15)
    text = str(labels[1]).lower()
    done("sample", target, "--rows", 5, "--output", tmp_path / "one", "--label", text)
    assert set(pq.read_table(tmp_path / "one")["y"].to_pylist()) == {value(True)}


def test_dictionary_labels_are_sampled_as_their_values(tmp_path):
    column = pa.array(["ab"[int(u > 0.3)] for u in UNIT]).dictionary_encode()
    pq.write_table(pa.table({"count": spread(0, 9), "y": column}), tmp_path / "t")
    spec = table_spec(tmp_path / "s.yaml", tmp_path / "t", ["count"], label="y", labels=["a", "b"])
    assert set(sampled(tmp_path, released(tmp_path, spec))["y"].to_pylist()) == {"a", "b"}


POINTS = RNG.normal(0, 0.3, (ROWS, 4)).astype(np.float32)


def dense(row: np.ndarray) -> dict[str, Any]:
    return {"type": 1, "size": None, "indices": None, "values": row.tolist()}


def sparse(row: np.ndarray) -> dict[str, Any]:
    return {"type": 0, "size": 4, "indices": [0, 1, 2, 3], "values": row.tolist()}


VECTOR = pa.struct(
    [
        ("type", pa.int8()),
        ("size", pa.int32()),
        ("indices", pa.list_(pa.int32())),
        ("values", pa.list_(pa.float64())),
    ]
)
FIXED = pa.list_(pa.float32(), 4)
EMBEDDINGS: dict[str, tuple[pa.Array, int | None]] = {
    "lists": (pa.array(POINTS.tolist(), pa.list_(pa.float32())), 4),
    "large lists": (pa.array(POINTS.tolist(), pa.large_list(pa.float32())), 4),
    "list views": (pa.array(POINTS.tolist(), pa.list_view(pa.float32())), 4),
    "bytes": (pa.array([row.tobytes() for row in POINTS], pa.binary(16)), None),
    "lists of lists": (
        pa.array(POINTS.reshape(-1, 2, 2).tolist(), pa.list_(pa.list_(pa.float32()))),
        4,
    ),
    "fixed lists of lists": (
        pa.array(POINTS.reshape(-1, 2, 2).tolist(), pa.list_(pa.list_(pa.float32(), 2), 2)),
        None,
    ),
    "vectors of Spark": (
        pa.array([dense(r) if i % 2 else sparse(r) for i, r in enumerate(POINTS)], VECTOR),
        4,
    ),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Digests of the release of the rows in lists of a fixed size."""
    folder = tmp_path_factory.mktemp("base")
    pq.write_table(pa.table({"x": pa.array(POINTS.tolist(), FIXED)}), folder / "t")
    spec = write_spec(folder / "s.yaml", folder / "t", dataset={"width": None})
    return digests(released(folder, spec, "release", *FAST))


@pytest.mark.parametrize(
    "case", mostly_variants(EMBEDDINGS, "list views", "fixed lists of lists", "vectors of Spark")
)
def test_embeddings_in_every_storage_give_the_same_bytes(case, base, tmp_path):
    column, width = EMBEDDINGS[case]
    nulls = pa.nulls(2, column.type)
    pq.write_table(pa.table({"x": pa.concat_arrays([nulls, column])}), tmp_path / "t")
    spec = write_spec(tmp_path / "s.yaml", tmp_path / "t", dataset={"width": width})
    target = released(tmp_path, spec, "release", *FAST)
    assert digests(target) == base
    rows = sampled(tmp_path, target)
    item = pa.float64() if case == "vectors of Spark" else pa.float32()
    assert rows.schema.field("x").type == pa.list_(item, 4)


def test_fields_of_a_struct_column(base, tmp_path):
    x = pa.array(POINTS.tolist(), FIXED)
    label = pa.array(["ab"[int(u > 0.3)] for u in UNIT])
    meta = pa.StructArray.from_arrays([x, label, label], names=["x", "y", "other.y"])
    null = pa.nulls(5, meta.type)
    pq.write_table(pa.table({"meta": pa.concat_arrays([null, meta, null])}), tmp_path / "t")
    dataset = {"features": "meta.x", "width": None}
    spec = write_spec(tmp_path / "s.yaml", tmp_path / "t", dataset=dataset)
    assert digests(released(tmp_path, spec, "release", *FAST)) == base
    labelled = dataset | {"label": "meta.other.y", "labels": ["a", "b"]}
    spec = write_spec(tmp_path / "l.yaml", tmp_path / "t", dataset=labelled)
    rows = sampled(tmp_path, released(tmp_path, spec, "labelled", *FAST))
    assert rows.schema.names == ["meta.x", "meta.other.y"]
    assert set(rows["meta.other.y"].to_pylist()) == {"a", "b"}


def test_columns_that_are_missing_in_a_file_or_everywhere(tmp_path):
    """A writer gives them the type null; that is private, so the type of another file counts."""
    days = TABLE["day"][0]
    meta = pa.StructArray.from_arrays([days], names=["day"])
    (tmp_path / "some").mkdir()
    (tmp_path / "all").mkdir()
    nothing = pa.table({"day": pa.nulls(3), "meta": pa.nulls(3)})
    for folder in ("some", "all"):
        pq.write_table(nothing, tmp_path / folder / "a.parquet")
    pq.write_table(pa.table({"day": days, "meta": meta}), tmp_path / "some" / "b.parquet")
    for folder, kind in (("some", pa.date32()), ("all", pa.float64())):
        spec = yaml.safe_load(table_spec(tmp_path / "s", tmp_path / folder, ["day"]).read_text())
        spec["dataset"]["features"] = ["day", "meta.day"]
        spec["bounds"]["columns"]["meta.day"] = TABLE["day"][1]
        target = tmp_path / f"release-{folder}"
        options = {"insecure_test_noise": 7, "release_id": "types"}
        release(ReleaseSpec.from_dict(spec), output=str(target), **options)
        rows = tmp_path / f"rows-{folder}"
        write_samples(str(target), 5, str(rows), seed=1)
        assert pq.read_table(rows).schema.types == [kind, kind]


@pytest.mark.parametrize(
    ("name", "bounds", "words"),
    [
        ("day", [0, "2021-01-01"], ("alike",)),
        ("day", ["2020-01-01", "06:30"], ("alike",)),
        ("day", ["2020-01-01T06:30", "2021-01-01T06:30"], ("'day'", "timestamps", "dates")),
        ("count", ["2020-01-01", "2021-01-01"], ("'count'", "dates", "numbers")),
        ("clock", ["2020-01-01", "2021-01-01"], ("'clock'", "times of day")),
        ("span", ["06:30", "07:30"], ("'span'", "times of day", "durations")),
        ("seen", ["2020-01-01", "soon"], ("'seen'", "'soon'", "2026-11-25", "P1DT12H")),
        ("seen", ["2020-01-02", "2020-01-01"], ("'seen'", "low must be less than high")),
    ],
)
def test_bounds_that_do_not_fit_their_column_are_refused(name, bounds, words, tmp_path):
    pq.write_table(pa.table({name: TABLE[name][0]}), tmp_path / "t")
    spec = table_spec(tmp_path / "s.yaml", tmp_path / "t", [name])
    text = f"bounds.columns={yaml.safe_dump({name: bounds}, default_flow_style=True)}"
    result = dpgmm("release", spec, "--output", tmp_path / "out", "--set", text.strip())
    assert result.returncode == 2, result.stderr
    for word in ("bounds.columns", *words):
        assert word in result.stderr, result.stderr
    assert not (tmp_path / "out").exists()


def test_a_frame_gives_the_same_bytes_as_its_file(tmp_path):
    """The columns of a frame are read like those of a file, chunks and all."""
    names = ["flag", "price", "seen", "code"]
    table = pa.table({name: TABLE[name][0] for name in names} | {"y": pa.array(UNIT > 0.3)})
    pq.write_table(table, tmp_path / "t")
    spec = table_spec(tmp_path / "s.yaml", tmp_path / "t", names, label="y", labels=[False, True])
    expected = digests(released(tmp_path, spec, "release", *FAST))
    chunked = pa.concat_tables([table.slice(0, 10), table.slice(10, 0), table.slice(10)])
    for i, frame in enumerate([table, chunked]):
        release(
            ReleaseSpec.from_yaml(spec, overrides=FAST[1:]),
            output=str(tmp_path / f"frame-{i}"),
            insecure_test_noise=7,
            release_id="types",
            source=frame,
        )
        assert digests(tmp_path / f"frame-{i}") == expected
    columns = load_release(str(tmp_path / "frame-0")).receipt["input"]["columns"]
    assert [column["type"] for column in columns] == [
        "bool",
        "decimal128(7, 2)",
        "timestamp[us, tz=Europe/Paris]",
        "double",
    ]
