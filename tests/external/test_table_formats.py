"""Tables of Delta Lake and Iceberg, written by their own libraries, beside the same plain rows."""

from __future__ import annotations

import json
import string
import struct
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.pipeline.release import release
from dpgmm_dist.progress import PassProgress
from dpgmm_dist.spec.release_spec import ReleaseSpec

from ..system.releases import digests
from .emulators import ObjectStore

VECTOR = pa.list_(pa.float64())


def rows(seed: int, n: int = 250, **more: Any) -> pa.Table:
    """Embeddings, labels, and a number in two columns."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    x = rng.normal(size=(n, 3)) * 0.2 + y[:, None] * 0.4
    columns = {"x": pa.array(x.tolist(), VECTOR), "y": pa.array(y), "v": pa.array(x[:, 0])}
    return pa.table(columns | more)


def spec(path: Path | str, *, ledger: Path | None = None, **dataset: Any) -> ReleaseSpec:
    chosen = {"features": "x", "width": 3, "label": "y", "labels": [0, 1], **dataset}
    chosen = {key: value for key, value in chosen.items() if value is not None}
    is_table = isinstance(chosen["features"], list)
    bounds = {"columns": {name: [-2, 2] for name in chosen["features"]}}
    return ReleaseSpec.from_dict(
        {
            "dataset": {"path": str(path), **chosen},
            "bounds": bounds if is_table else {"norm": 1.5},
            "privacy": {
                "epsilon": 1.0,
                "delta": 1e-6,
                **({"ledger": str(ledger)} if ledger else {}),
            },
            "model": {"components": 1},
        }
    )


def released(folder: Path, path: Path | str, **dataset: Any) -> list[str]:
    """Digests of a release with reproducible noise."""
    out = folder / f"out-{len(list(folder.glob('out-*')))}"
    release(spec(path, **dataset), output=str(out), release_id="same", insecure_test_noise=7)
    return digests(out)


def plain(folder: Path, *tables: pa.Table, **dataset: Any) -> list[str]:
    """The same of plain Parquet files with these rows."""
    where = folder / f"plain-{len(list(folder.glob('plain-*')))}"
    where.mkdir()
    for index, table in enumerate(tables):
        pq.write_table(table, where / f"{index}.parquet")
    return released(folder, where, **dataset)


@pytest.fixture
def delta() -> Any:
    return pytest.importorskip(
        "deltalake", reason="needs deltalake: tests/external/install_tables.sh"
    )


@pytest.fixture
def iceberg(tmp_path: Path) -> Any:
    """A catalog whose tables are below ``tmp_path/warehouse/n.db`` or ``warehouse/n``."""
    reason = "needs pyiceberg: tests/external/install_tables.sh"
    sql: Any = pytest.importorskip("pyiceberg.catalog.sql", reason=reason)
    warehouse = tmp_path / "warehouse"
    catalog = sql.SqlCatalog(
        "c", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{warehouse}"
    )
    catalog.create_namespace("n")
    return catalog


def place_of(table: Any) -> Path:
    return Path(table.location().removeprefix("file://"))


def test_delta_is_read_at_a_version(delta: Any, tmp_path: Path) -> None:
    path, first, second = tmp_path / "t", rows(1), rows(2)
    delta.write_deltalake(path, first)
    time.sleep(0.01)
    between = datetime.now(UTC).isoformat()
    time.sleep(0.01)
    delta.write_deltalake(path, second, mode="append")
    assert released(tmp_path, path) == plain(tmp_path, first, second)
    only_first = plain(tmp_path, first)
    assert released(tmp_path, path, snapshot=0) == only_first
    assert released(tmp_path, path, snapshot=between) == only_first
    delta.write_deltalake(path, second, mode="overwrite")
    assert released(tmp_path, path) == plain(tmp_path, second)


def test_deleted_and_updated_rows_of_delta_do_not_count(delta: Any, tmp_path: Path) -> None:
    path, table = tmp_path / "t", rows(1)
    delta.write_deltalake(path, table)
    delta.DeltaTable(path).delete("y = 1 AND v > 0.4")
    delta.DeltaTable(path).update(updates={"y": "0"}, predicate="y = 1")
    kept = [row for row in table.to_pylist() if not (row["y"] == 1 and row["v"] > 0.4)]
    assert 0 < len(kept) < table.num_rows
    changed = pa.Table.from_pylist([row | {"y": 0} for row in kept], table.schema)
    assert released(tmp_path, path) == plain(tmp_path, changed)


def test_partitions_and_new_columns_of_delta(delta: Any, tmp_path: Path) -> None:
    """The label is in the names of directories alone; older files lack the second feature."""
    path, old = tmp_path / "t", rows(1)
    new = rows(2, w=pa.array(np.linspace(-1, 1, 250)))
    delta.write_deltalake(path, old, partition_by=["y"])
    delta.write_deltalake(path, new, mode="append", schema_mode="merge")
    assert released(tmp_path, path) == plain(tmp_path, old, new)
    padded = old.append_column("w", pa.nulls(250, pa.float64()))
    two: dict[str, Any] = {"features": ["v", "w"], "width": None}
    assert released(tmp_path, path, **two) == plain(tmp_path, padded, new, **two)
    modelled: dict[str, Any] = {**two, "nulls": "model"}
    assert released(tmp_path, path, **modelled) == plain(tmp_path, padded, new, **modelled)


def test_embeddings_that_older_files_lack(delta: Any, tmp_path: Path) -> None:
    path, new = tmp_path / "t", rows(2)
    delta.write_deltalake(path, rows(1).drop_columns("x"))
    delta.write_deltalake(path, new, mode="append", schema_mode="merge")
    assert released(tmp_path, path) == plain(tmp_path, new)


def edited_log(path: Path, change: Any) -> None:
    """Change the actions of the newest commit of a table."""
    log = max((path / "_delta_log").glob("*.json"))
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    log.write_text("\n".join(json.dumps(action) for action in change(actions)))


def z85(data: bytes) -> str:
    digits = (
        string.digits + string.ascii_lowercase + string.ascii_uppercase + ".-:+=^!/*?&<>()[]{}@%$#"
    )
    words = [int.from_bytes(data[i : i + 4], "big") for i in range(0, len(data), 4)]
    return "".join(digits[word // 85**power % 85] for word in words for power in (4, 3, 2, 1, 0))


def test_deletion_vectors_and_renamed_columns_of_delta_are_refused(
    delta: Any, tmp_path: Path
) -> None:
    deleted = (3, 4, 7, 11, 18, 29)
    # One roaring bitmap without runs, as the format's specification lays it out.
    head = struct.pack("<IQIIIHHI", 1681511377, 1, 0, 12346, 1, 0, len(deleted) - 1, 16)
    vector = head + struct.pack("<6H", *deleted)

    def with_vector(actions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for action in actions:
            if "protocol" in action:
                features = {
                    "readerFeatures": ["deletionVectors"],
                    "writerFeatures": ["deletionVectors"],
                }
                action["protocol"] = {"minReaderVersion": 3, "minWriterVersion": 7, **features}
            if "add" in action:
                action["add"]["deletionVector"] = {
                    "storageType": "i",
                    "pathOrInlineDv": z85(vector),
                    "sizeInBytes": len(vector),
                    "cardinality": len(deleted),
                }
        return actions

    def mapped(actions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for action in actions:
            if "metaData" in action:
                action["metaData"]["configuration"]["delta.columnMapping.mode"] = "name"
            if "protocol" in action:
                action["protocol"] = {"minReaderVersion": 2, "minWriterVersion": 5}
        return actions

    for name, change, said in (
        ("vectors", with_vector, "deletion vectors"),
        ("mapped", mapped, "columnMapping"),
    ):
        delta.write_deltalake(tmp_path / name, rows(1))
        edited_log(tmp_path / name, change)
        with pytest.raises(DataError, match=said):
            release(spec(tmp_path / name), output=str(tmp_path / "out"))


def test_mistakes_about_snapshots_are_told(delta: Any, tmp_path: Path) -> None:
    delta.write_deltalake(tmp_path / "t", rows(1))
    pq.write_table(rows(1), tmp_path / "plain.parquet")
    cases = [
        ("t", "a-tag", SpecError, "no tags"),
        ("t", 12, DataError, "12"),
        ("plain.parquet", 0, SpecError, "no snapshots"),
    ]
    for name, snapshot, kind, said in cases:
        with pytest.raises(kind, match=said):
            release(spec(tmp_path / name, snapshot=snapshot), output=str(tmp_path / "out"))
    (file,) = (tmp_path / "t").glob("*.parquet")
    file.unlink()
    with pytest.raises(DataError, match="is gone"):
        release(spec(tmp_path / "t"), output=str(tmp_path / "out"))


def test_a_table_that_grows_meanwhile_is_read_as_it_was(delta: Any, tmp_path: Path) -> None:
    """Between passes, and between a release that was stopped and the run that finishes it."""
    path, ledger, first = tmp_path / "t", tmp_path / "ledger", rows(1)
    delta.write_deltalake(path, first)
    Ledger.init(str(ledger), 1.0, 1e-5)
    grown: list[str] = []

    def grow(event: PassProgress) -> None:
        if event.fraction == 1.0 and event.step not in grown:
            grown.append(event.step)
            delta.write_deltalake(path, rows(10 + len(grown)), mode="append")
            if len(grown) == 2:
                raise KeyboardInterrupt

    options: dict[str, Any] = {"output": str(tmp_path / "out"), "release_id": "weekly"}
    with pytest.raises(KeyboardInterrupt):
        release(spec(path, ledger=ledger), progress=grow, **options)
    release(spec(path, ledger=ledger), **options)
    noted = (ledger / "journal" / "weekly" / "private-input-0.bin").read_text()
    assert json.loads(noted.splitlines()[1])["snapshot of the table"] == "0"
    out = tmp_path / "growing"
    grown.clear()
    grown.append("")  # grows once, and stops nothing
    grown_spec = spec(path, snapshot=0)

    def grow_once(event: PassProgress) -> None:
        if len(grown) == 1:
            grow(PassProgress("x", 1, 1, 0.5))
            delta.write_deltalake(path, rows(20), mode="append")
            grown.append("done")

    release(
        grown_spec, output=str(out), release_id="same", insecure_test_noise=7, progress=grow_once
    )
    assert digests(out) == plain(tmp_path, first)


def test_iceberg_is_read_at_a_snapshot(iceberg: Any, tmp_path: Path) -> None:
    first, second = rows(1), rows(2)
    table = iceberg.create_table("n.t", schema=first.schema)
    table.append(first)
    old = table.current_snapshot().snapshot_id
    table.manage_snapshots().create_tag(old, "audited").commit()
    time.sleep(0.01)
    between = datetime.now(UTC).isoformat()
    time.sleep(0.01)
    table.append(second)
    path = place_of(table)
    assert released(tmp_path, path) == plain(tmp_path, first, second)
    metadata = Path(table.metadata_location.removeprefix("file://"))
    assert released(tmp_path, metadata) == plain(tmp_path, first, second)
    only_first = plain(tmp_path, first)
    for snapshot in (old, "audited", between):
        assert released(tmp_path, path, snapshot=snapshot) == only_first
    with pytest.raises(DataError, match="no snapshot 'unknown'"):
        release(spec(path, snapshot="unknown"), output=str(tmp_path / "out"))


def test_deleted_rows_of_iceberg_do_not_count(iceberg: Any, tmp_path: Path) -> None:
    table, whole = iceberg.create_table("n.t", schema=rows(1).schema), rows(1)
    table.append(whole)
    table.delete("v > 0.4")
    kept = [row for row in whole.to_pylist() if not row["v"] > 0.4]
    want = plain(tmp_path, pa.Table.from_pylist(kept, whole.schema))
    assert released(tmp_path, place_of(table)) == want


def test_columns_of_iceberg_are_known_by_their_ids(iceberg: Any, tmp_path: Path) -> None:
    """Renamed, swapped, dropped and added under an old name, in a partitioned table."""
    from pyiceberg.types import DoubleType

    old = rows(1, w=pa.array(np.linspace(-1, 1, 250)))
    table = iceberg.create_table("n.t", schema=old.schema)
    with table.update_spec() as change:
        change.add_identity("y")
    table.append(old)
    with table.update_schema() as change:
        change.rename_column("v", "u")
        change.rename_column("x", "embedding")
        change.delete_column("w")
    with table.update_schema() as change:
        change.add_column("w", DoubleType())  # another column of the old name
        change.rename_column("u", "v2")
    with table.update_schema() as change:
        change.add_column("v", DoubleType())
    new = pa.table(
        {
            "embedding": rows(2)["x"],
            "y": rows(2)["y"],
            "v2": rows(2)["v"],
            "w": pa.array(np.linspace(1, -1, 250)),
            "v": pa.array(np.linspace(-0.5, 0.5, 250)),
        }
    )
    table.append(new)
    path, nothing = place_of(table), pa.nulls(250, pa.float64())
    as_now = pa.table(
        {"embedding": old["x"], "y": old["y"], "v2": old["v"], "w": nothing, "v": nothing}
    )
    for chosen in (
        {"features": "embedding"},
        {"features": ["v2"], "width": None},
        {"features": ["v2", "w", "v"], "width": None, "nulls": "model"},
    ):
        assert released(tmp_path, path, **chosen) == plain(tmp_path, as_now, new, **chosen)
    with pytest.raises(DataError, match="no column 'x'"):
        release(spec(path), output=str(tmp_path / "out"))


def test_delta_on_s3_is_read_at_a_version(
    delta: Any, s3_store: ObjectStore, tmp_path: Path
) -> None:
    """A partitioned table whose label is in the names of directories alone."""
    options, url = s3_store.storage_options, s3_store.below("t")
    to_write = {
        "AWS_ACCESS_KEY_ID": options["key"],
        "AWS_SECRET_ACCESS_KEY": options["secret"],
        "AWS_ENDPOINT_URL": options["endpoint_url"],
        "AWS_REGION": options["client_kwargs"]["region_name"],
        "AWS_ALLOW_HTTP": "true",
    }
    first, second = rows(1), rows(2, w=pa.array(np.linspace(-1, 1, 250)))
    write = partial(delta.write_deltalake, url, storage_options=to_write)
    write(first, partition_by=["y"])
    write(second, mode="append", schema_mode="merge")
    there: dict[str, Any] = {"storage_options": options}
    assert released(tmp_path, url, **there) == plain(tmp_path, first, second)
    assert released(tmp_path, url, snapshot=0, **there) == plain(tmp_path, first)
    padded = first.append_column("w", pa.nulls(250, pa.float64()))
    two: dict[str, Any] = {"features": ["v", "w"], "width": None, "nulls": "model"}
    assert released(tmp_path, url, **two, **there) == plain(tmp_path, padded, second, **two)


def test_iceberg_on_s3_is_read_at_a_snapshot(
    iceberg: Any, s3_store: ObjectStore, tmp_path: Path
) -> None:
    options = s3_store.storage_options
    catalog = type(iceberg)(
        "s3",
        uri=f"sqlite:///{tmp_path}/s3.db",
        warehouse=s3_store.below("warehouse"),
        **{
            "s3.endpoint": options["endpoint_url"],
            "s3.access-key-id": options["key"],
            "s3.secret-access-key": options["secret"],
            "s3.region": options["client_kwargs"]["region_name"],
        },
    )
    catalog.create_namespace("n")
    first, second = rows(1), rows(2)
    table = catalog.create_table("n.t", schema=first.schema)
    with table.update_spec() as change:
        change.add_identity("y")
    table.append(first)
    old = table.current_snapshot().snapshot_id
    with table.update_schema() as change:
        change.rename_column("x", "embedding")
    table.append(second.rename_columns({"x": "embedding"}))
    url = table.location()
    there: dict[str, Any] = {"features": "embedding", "storage_options": options}
    assert released(tmp_path, url, **there) == plain(
        tmp_path,
        *(part.rename_columns({"x": "embedding"}) for part in (first, second)),
        features="embedding",
    )
    then = released(tmp_path, url, snapshot=old, features="x", storage_options=options)
    assert then == plain(tmp_path, first)


def test_position_deletes_of_iceberg_are_refused(
    iceberg: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyiceberg plans them for readers, but does not write them."""
    from pyiceberg.table import DataScan

    table = iceberg.create_table("n.t", schema=rows(1).schema)
    table.append(rows(1))
    plan = DataScan.plan_files

    def with_deletes(scan: Any) -> Any:
        tasks = list(plan(scan))
        tasks[0].delete_files = {tasks[0].file}
        return tasks

    monkeypatch.setattr(DataScan, "plan_files", with_deletes)
    with pytest.raises(DataError, match="delete files"):
        release(spec(place_of(table)), output=str(tmp_path / "out"))
