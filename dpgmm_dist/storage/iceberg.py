"""The files of a snapshot of an Iceberg table, by pyiceberg (extra ``iceberg``)."""

from __future__ import annotations

import re
from typing import Any

from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.storage.delta import partition_text
from dpgmm_dist.storage.parquet_files import FoundFile, Place
from dpgmm_dist.storage.snapshot_times import time_of
from dpgmm_dist.storage.stamped import stamped
from dpgmm_dist.storage.table_columns import TableColumns, field_ids

_NUMBER = re.compile(r"v?(\d+)[-.]")
_SUFFIX = ".metadata.json"


def iceberg_files(
    place: Place, snapshot: int | str | None
) -> tuple[int, tuple[FoundFile, ...], TableColumns]:
    """Return the id of the snapshot, its files sorted by path, and its columns.

    Raises
    ------
    SpecError
        If pyiceberg is not installed.
    DataError
        If there is no such snapshot, or the table cannot be read exactly.
    """
    fs, root = place.resolve()
    try:
        import pyiceberg.table  # noqa: F401 - whether it is there
    except ImportError:
        raise SpecError(
            f"dataset.path {place.url} is an Iceberg table: pip install 'dpgmm-dist[iceberg]'"
        ) from None
    with place.public_errors(f"cannot read the Iceberg table {place.url}"):
        metadata = root if root.endswith(_SUFFIX) else _newest_metadata(place, fs, root)
        table = _open(fs, metadata)
        chosen = _snapshot(table, place, snapshot)
        schema = table.schemas()[chosen.schema_id or 0]
        columns = _columns(table, schema)
        tasks = table.scan(snapshot_id=chosen.snapshot_id).plan_files()
        files = [_file(place, fs, table, schema, task) for task in tasks]
    base = metadata.rpartition("/")[0].rpartition("/")[0]
    return int(chosen.snapshot_id), stamped(place, fs, base, files), columns


def _newest_metadata(place: Place, fs: Any, root: str) -> str:
    """The metadata file with the highest number, unless a catalog's failed commit hides it."""
    names = [str(name) for name in fs.ls(f"{root.rstrip('/')}/metadata", detail=False)]
    numbered = [
        (int(match.group(1)), name)
        for name in names
        if name.endswith(_SUFFIX) and (match := _NUMBER.match(name.rpartition("/")[2]))
    ]
    highest = max((number for number, _ in numbered), default=-1)
    newest = [name for number, name in numbered if number == highest]
    if len(newest) != 1:
        raise DataError(
            f"dataset.path {place.url}: {len(newest)} metadata files could be the newest of this "
            "Iceberg table; give the one that its catalog names, .../metadata/....metadata.json"
        )
    return newest[0]


def _open(fs: Any, metadata: str) -> Any:
    """The table, read through the file system of the data set and with its credentials."""
    from pyiceberg.catalog.noop import NoopCatalog
    from pyiceberg.io.fsspec import FsspecFileIO
    from pyiceberg.serializers import FromInputFile
    from pyiceberg.table import StaticTable

    class PlaceIO(FsspecFileIO):  # type: ignore[misc, unused-ignore]  # untyped where it is not installed
        def get_fs(self, scheme: str, hostname: str | None = None) -> Any:
            return fs

    io = PlaceIO(properties={})
    location = fs.unstrip_protocol(metadata)
    return StaticTable(
        identifier=("table", metadata),
        metadata=FromInputFile.table_metadata(io.new_input(location)),
        metadata_location=location,
        io=io,
        catalog=NoopCatalog("none"),
    )


def _snapshot(table: Any, place: Place, wanted: int | str | None) -> Any:
    moment = time_of(wanted)
    if wanted is None:
        found = table.current_snapshot()
    elif moment is not None:
        found = table.snapshot_as_of_timestamp(int(moment.timestamp() * 1000))
    elif isinstance(wanted, int):
        found = table.snapshot_by_id(wanted)
    else:
        found = table.snapshot_by_name(wanted)
    if found is None:
        shown = "" if wanted is None else f" {wanted!r}"
        tags = ", ".join(sorted(table.metadata.refs)) or "none"
        raise DataError(
            f"dataset.snapshot: the Iceberg table {place.url} has no snapshot{shown}; give a "
            f"snapshot id, a time, or a tag or branch ({tags})"
        )
    return found


def _columns(table: Any, schema: Any) -> TableColumns:
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    for field in schema.fields:
        if getattr(field, "initial_default", None) is not None:
            raise DataError(
                f"column {field.name!r} of the Iceberg table has an initial default, which is not "
                "supported; rewrite the table's files (rewrite_data_files)"
            )
    mapping = table.name_mapping()
    named = () if mapping is None else mapping.root
    return TableColumns(
        tuple(field.name for field in schema.fields),
        tuple(field_ids(schema_to_pyarrow(schema))),
        tuple((name, field.field_id) for field in named for name in field.names),
    )


def _file(place: Place, fs: Any, table: Any, schema: Any, task: Any) -> FoundFile:
    if task.delete_files:
        raise DataError(
            f"{place.url}: files of this Iceberg table still hold deleted rows (delete files), "
            "which would count; apply them: CALL system.rewrite_data_files(table => ..., "
            "options => map('delete-file-threshold', '1'))"
        )
    file = task.file
    if str(file.file_format).rpartition(".")[2] != "PARQUET":
        raise DataError(f"{place.url}: this Iceberg table has files that are not Parquet")
    partition = table.specs()[file.spec_id]
    constants = tuple(
        (schema.find_column_name(field.source_id), partition_text(file.partition[index]))
        for index, field in enumerate(partition.fields)
        if str(field.transform) == "identity" and schema.find_column_name(field.source_id)
    )
    path = str(fs._strip_protocol(file.file_path))
    return FoundFile(path, int(file.file_size_in_bytes), "", constants)
