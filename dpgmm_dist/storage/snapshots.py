"""The files of a data set: those of a path, or of one snapshot of a table."""

from __future__ import annotations

from dataclasses import dataclass

from dpgmm_dist.errors import SpecError
from dpgmm_dist.opaque import Opaque
from dpgmm_dist.storage.parquet_files import FoundFile, Place, list_files, table_format
from dpgmm_dist.storage.snapshot_times import Snapshot
from dpgmm_dist.storage.table_columns import TableColumns

METADATA_SUFFIX = ".metadata.json"


@dataclass(frozen=True, repr=False)
class Listing(Opaque):
    """The files to read, sorted by path."""

    files: tuple[FoundFile, ...]
    snapshot: int | None = None
    """The version or id of the snapshot, fixed; None where the path is no table."""
    columns: TableColumns | None = None
    """The columns of the snapshot; None where the path is no table."""


def list_input(place: Place, snapshot: Snapshot | None = None) -> Listing:
    """Return the Parquet files at a path, or exactly those of a snapshot of the table there.

    Parameters
    ----------
    place : a path of :func:`list_files`, the directory of a Delta Lake or Iceberg table, or an
        Iceberg ``.metadata.json``.
    snapshot : which one; the newest by default.

    Raises
    ------
    SpecError
        If ``snapshot`` is given for plain Parquet, or the package of the format is missing.
    DataError
        If the table cannot be read, or has what cannot be read exactly: deletion vectors, position
        deletes, renamed columns of Delta Lake.
    """
    fs, root = place.resolve()
    with place.public_errors(f"cannot open dataset.path {place.url}"):
        kind = "iceberg" if root.endswith(METADATA_SUFFIX) else table_format(fs, root)
    if kind == "delta":
        from dpgmm_dist.storage.delta import delta_files

        version, files, columns = delta_files(place, snapshot)
        return Listing(files, version, columns)
    if kind == "iceberg":
        from dpgmm_dist.storage.iceberg import iceberg_files

        version, files, columns = iceberg_files(place, snapshot)
        return Listing(files, version, columns)
    if snapshot is not None:
        raise SpecError(
            f"dataset.snapshot: {place.url} is no Delta Lake or Iceberg table, so it has no "
            "snapshots; remove the key"
        )
    return Listing(list_files(place))
