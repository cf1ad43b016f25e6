"""How snapshots are named, what tables call their columns, and options for Delta Lake's client."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.spec.release_spec import ReleaseSpec
from dpgmm_dist.storage.delta import _options, partition_text
from dpgmm_dist.storage.parquet_files import Place
from dpgmm_dist.storage.snapshot_times import time_of
from dpgmm_dist.storage.table_columns import TableColumns, field_ids


def spec(**dataset: object) -> ReleaseSpec:
    return ReleaseSpec.from_dict(
        {
            "dataset": {"path": "data/", "features": "x", "width": 3, **dataset},
            "bounds": {"norm": 1.0},
            "privacy": {"epsilon": 1.0, "delta": 1e-6},
        }
    )


@pytest.mark.parametrize(
    ("given", "read", "time"),
    [
        (0, 0, None),
        (4803776937383894772, 4803776937383894772, None),
        ("audited", "audited", None),
        ("2026-11-25", "2026-11-25", datetime(2026, 11, 25, tzinfo=UTC)),
        (
            "2026-11-25T06:00+02:00",
            "2026-11-25T04:00:00+00:00",
            datetime(2026, 11, 25, 4, tzinfo=UTC),
        ),
    ],
)
def test_a_snapshot_is_a_version_a_tag_or_a_time(given, read, time):
    assert spec(snapshot=given).dataset.snapshot == read
    assert time_of(read) == time


@pytest.mark.parametrize("given", [-1, 1.5, True, "", "2026-13-01", 1 << 63])
def test_other_snapshots_are_refused(given):
    with pytest.raises(SpecError, match=r"dataset\.snapshot"):
        spec(snapshot=given)


def test_a_specification_without_a_snapshot_keeps_its_digest():
    assert "snapshot" not in spec().public_dict()["dataset"]
    assert spec(snapshot=3).digest() != spec(snapshot=4).digest() != spec().digest()


def field(name: str, number: int, kind: pa.DataType | None = None) -> pa.Field:
    return pa.field(name, kind or pa.float64(), metadata={"PARQUET:field_id": str(number)})


def test_columns_are_found_by_id():
    inner = pa.struct([field("age", 4)])
    table = pa.schema([field("a", 2), field("b", 1), field("meta", 3, inner), field("new", 9)])
    columns = TableColumns(tuple(table.names), tuple(field_ids(table)))
    file = pa.schema([field("a", 1), field("b", 2), field("was", 3, inner), field("new", 5)])
    assert columns.in_file(file, "f") == {"a": "b", "b": "a", "meta": "was"}
    moved = pa.schema([field("meta", 3, pa.struct([field("years", 4)]))])
    with pytest.raises(DataError, match=r"'meta\.age' of the table has another name"):
        columns.in_file(moved, "f")
    taken = pa.schema([field("meta", 3, pa.struct([field("age", 7)]))])
    with pytest.raises(DataError, match="another name"):
        columns.in_file(taken, "f")


def test_files_without_ids_need_a_mapping():
    plain = pa.schema([("old", pa.float64()), ("other", pa.float64())])
    ids = (("now", 1),)
    assert TableColumns(("now",), ids, (("old", 1),)).in_file(plain, "f") == {"now": "old"}
    with pytest.raises(DataError, match="no name mapping"):
        TableColumns(("now",), ids).in_file(plain, "f")


def test_options_of_s3_are_those_of_deltas_client():
    given = {
        "key": "a",
        "secret": "b",
        "client_kwargs": {"endpoint_url": "http://x", "region_name": "r"},
    }
    assert _options(Place("s3://b/t", given)) == {
        "aws_access_key_id": "a",
        "aws_secret_access_key": "b",
        "aws_endpoint_url": "http://x",
        "aws_allow_http": "true",
        "aws_region": "r",
    }
    assert _options(Place("t", {})) is None
    with pytest.raises(SpecError, match="got anon") as caught:
        _options(Place("s3://b/t", {"anon": "hunter2"}))
    assert "hunter2" not in str(caught.value)


def test_values_of_partitions_are_as_names_of_directories():
    day = datetime(2026, 11, 25, tzinfo=UTC).date()
    assert [partition_text(value) for value in (None, True, 3, "a b", day)] == [
        *(None, "true", "3", "a b", "2026-11-25")
    ]
