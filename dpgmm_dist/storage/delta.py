"""The files of a version of a Delta Lake table, by deltalake (extra ``delta``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.storage.parquet_files import FoundFile, Place, is_local
from dpgmm_dist.storage.snapshot_times import time_of
from dpgmm_dist.storage.stamped import stamped
from dpgmm_dist.storage.table_columns import TableColumns

_KNOWN_FEATURES = {"deletionVectors", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}
_S3_OPTIONS = {
    "key": "aws_access_key_id",
    "secret": "aws_secret_access_key",
    "token": "aws_session_token",
}


def delta_files(
    place: Place, snapshot: int | str | None
) -> tuple[int, tuple[FoundFile, ...], TableColumns]:
    """Return the version, its files sorted by path, and its columns.

    Raises
    ------
    SpecError
        If deltalake is not installed, or the snapshot is a tag, which Delta Lake does not have.
    DataError
        If the table cannot be read exactly.
    """
    fs, root = place.resolve()
    with place.public_errors(f"cannot read the Delta Lake table {place.url}"):
        table = _open(place, fs, root, snapshot)
        columns = _columns(table, place)
        actions = pa.table(table.get_add_actions()).to_pylist()
        files = [_file(place, root, action) for action in actions]
    return table.version(), stamped(place, fs, root, files), columns


def _open(place: Place, fs: Any, root: str, snapshot: int | str | None) -> Any:
    try:
        from deltalake import DeltaTable
    except ImportError:
        raise SpecError(
            f"dataset.path {place.url} is a Delta Lake table: pip install 'dpgmm-dist[delta]'"
        ) from None
    where = root if is_local(fs) else str(fs.unstrip_protocol(root))
    table = DeltaTable(where, storage_options=_options(place))
    wanted = time_of(snapshot) or snapshot
    if isinstance(wanted, str):
        raise SpecError(
            f"dataset.snapshot: got {wanted!r}; a Delta Lake table has no tags: give a version "
            "such as 12, or a time such as '2026-11-25T06:00'"
        )
    if wanted is not None:
        table.load_as_version(wanted)
    return table


def _columns(table: Any, place: Place) -> TableColumns:
    """The columns; a table with what cannot be read exactly is refused."""
    protocol, configuration = table.protocol(), table.metadata().configuration
    unknown = sorted(set(protocol.reader_features or ()) - _KNOWN_FEATURES - {"columnMapping"})
    if unknown:
        raise DataError(
            f"{place.url}: this Delta Lake table needs the feature {unknown[0]}, which is not "
            "supported; export the rows to plain Parquet files"
        )
    if configuration.get("delta.columnMapping.mode", "none") != "none":
        raise DataError(
            f"{place.url}: this Delta Lake table maps its columns to other names "
            "(delta.columnMapping.mode), which is not supported; export the rows to plain Parquet "
            "files"
        )
    may_delete = "deletionVectors" in (protocol.reader_features or ())
    if may_delete and pa.table(table.deletion_vectors()).num_rows:
        raise DataError(
            f"{place.url}: files of this Delta Lake table still hold deleted rows (deletion "
            "vectors), which would count; remove them: REORG TABLE ... APPLY (PURGE)"
        )
    fields = json.loads(table.schema().to_json())["fields"]
    return TableColumns(tuple(field["name"] for field in fields))


def _file(place: Place, root: str, action: Mapping[str, Any]) -> FoundFile:
    path = unquote(action["path"])
    if path.startswith("/") or "://" in path or ".." in path.split("/"):
        raise DataError(
            f"{place.url}: this Delta Lake table has files of another table (a shallow clone), "
            "which is not supported; copy it in full (DEEP CLONE)"
        )
    values = (action.get("partition") or {}).items()
    constants = tuple((name, partition_text(value)) for name, value in values)
    return FoundFile(f"{root.rstrip('/')}/{path}", int(action["size_bytes"]), "", constants)


def partition_text(value: Any) -> str | None:
    """Return a value of a partition column as the name of a directory would have it."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, date) else str(value)


def _options(place: Place) -> dict[str, str] | None:
    """Options of fsspec's S3 client as deltalake takes them.

    Raises
    ------
    SpecError
        For other options; credentials of other stores come from the environment.
    """
    given = dict(place.storage_options)
    options = {_S3_OPTIONS[key]: str(given.pop(key)) for key in _S3_OPTIONS if key in given}
    client = dict(given.pop("client_kwargs", None) or {})
    endpoint = given.pop("endpoint_url", None) or client.pop("endpoint_url", None)
    if endpoint is not None:
        options |= {"aws_endpoint_url": str(endpoint), "aws_allow_http": "true"}
    if "region_name" in client:
        options["aws_region"] = str(client.pop("region_name"))
    if given or client:
        raise SpecError(
            "dataset.storage_options: for a Delta Lake table only key, secret, token, "
            f"endpoint_url and region_name are known, got {', '.join({**given, **client})}; set "
            "the others in the environment"
        )
    return options or None
