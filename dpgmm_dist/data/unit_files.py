"""Scratch Parquet files of privacy units: rows in buckets by unit, and what units contribute.

Rows are stored as fixed-size binary, which reads several times faster than lists. The files exist
for one run, so they have no statistics, dictionaries or compression. Every failure in reading or
writing becomes a DataError that quotes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dpgmm_dist.data.blocks import FilePiece, RawBlock
from dpgmm_dist.data.parquet_columns import numbers
from dpgmm_dist.data.unit_rows import KeptRows, UnitRows
from dpgmm_dist.data.unit_values import DIGEST_BYTES
from dpgmm_dist.errors import DataError
from dpgmm_dist.storage.parquet_files import Place, is_local, opened

_SPREAD, _KEPT = "spread", "kept"
_GROUP_BYTES = 8 << 20
_OPTIONS: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": False,
    "write_statistics": False,
}


def write_buckets(
    scratch: Place, name: str, rows: UnitRows, buckets: npt.NDArray[np.int64]
) -> None:
    """Write rows to one file, with a row group for each bucket that has rows."""
    order = np.argsort(buckets, kind="stable")
    present, starts = np.unique(buckets[order], return_index=True)
    rows = rows.at(order)
    table = pa.table(
        {
            "row": _binary(rows.rows),
            "label": rows.labels,
            "unit": _binary(rows.units),
            "hash": rows.hashes,
        }
    ).replace_schema_metadata({"buckets": " ".join(map(str, present.tolist()))})
    stops = [*starts[1:].tolist(), len(rows)]
    parts = [table.slice(a, b - a) for a, b in zip(starts.tolist(), stops, strict=True)]
    _write(scratch, _SPREAD, f"{name}.parquet", parts)


def spread_files(scratch: Place) -> tuple[str, ...]:
    """Return the paths of the files of :func:`write_buckets`, sorted."""
    return tuple(sorted(_listed(scratch, _SPREAD)))


def read_bucket(
    scratch: Place, files: tuple[str, ...], bucket: int, width: int
) -> Iterator[UnitRows]:
    """Yield the rows of one bucket from all files."""
    wanted = str(bucket)
    with _no_details("read"):
        fs, _ = scratch.resolve()
        for path in files:
            with opened(fs, path, 4, 0) as file:
                metadata = file.schema_arrow.metadata or {}
                buckets = metadata[b"buckets"].decode().split()
                if wanted not in buckets:
                    continue
                table = file.read_row_group(buckets.index(wanted), use_threads=False)
            for batch in table.to_batches():
                yield UnitRows(
                    _ints(batch.column("row"), width),
                    numbers(batch.column("label")),
                    _bytes(batch.column("unit"), DIGEST_BYTES),
                    numbers(batch.column("hash")),
                )


def write_kept(scratch: Place, bucket: int, kept: KeptRows | None, width: int) -> None:
    """Write what the units of a bucket contribute, in row groups that threads can divide."""
    if kept is None:
        empty = np.zeros(0, dtype=np.int32)
        kept = KeptRows(empty.reshape(0, width), empty, empty)
    table = pa.table({"row": _binary(kept.rows), "label": kept.labels, "kept": kept.kept})
    step = max(1, _GROUP_BYTES // (4 * width))
    parts = [table.slice(start, step) for start in range(0, max(len(table), 1), step)]
    _write(scratch, _KEPT, f"{bucket:06d}.parquet", parts)


def kept_files(scratch: Place, width: int) -> tuple[tuple[str, int, int], ...]:
    """(path, row groups, bytes of rows) of each file of :func:`write_kept`, sorted by path."""
    files = []
    with _no_details("read"):
        fs, _ = scratch.resolve()
        for path in sorted(_listed(scratch, _KEPT)):
            with opened(fs, path, 3, 0) as file:
                metadata = file.metadata
                files.append((path, metadata.num_row_groups, metadata.num_rows * width * 4))
    return tuple(files)


def read_kept(scratch: Place, piece: FilePiece, max_rows: int, width: int) -> Iterator[RawBlock]:
    """Yield row groups of a file of :func:`write_kept` as blocks of 1 to ``max_rows`` rows."""
    with _no_details("read"):
        fs, _ = scratch.resolve()
        with opened(fs, piece.path, 3, 0) as file:
            for batch in file.iter_batches(
                batch_size=max_rows, row_groups=list(piece.row_groups), use_threads=False
            ):
                if batch.num_rows:
                    yield RawBlock(
                        _ints(batch.column("row"), width),
                        None,
                        numbers(batch.column("label")).astype(np.int64),
                        kept=numbers(batch.column("kept")).astype(np.int64),
                    )


def _write(scratch: Place, folder: str, name: str, parts: list[Any]) -> None:
    """Write row groups to a file that appears whole, however often the task runs."""
    with _no_details("write"):
        fs, root = scratch.resolve()
        target = f"{root}/{folder}/{name}"
        if not is_local(fs):
            with fs.open(target, "wb") as handle:
                _write_groups(handle, parts)
            return
        if not os.path.isdir(root):
            raise FileNotFoundError  # its driver has ended and removed it: do not create it again
        os.makedirs(f"{root}/{folder}", mode=0o700, exist_ok=True)
        # The name ends in .part until the file is whole.
        part = f"{root}/{folder}/{token_hex(8)}.part"
        with open(part, "wb") as handle:
            _write_groups(handle, parts)
        os.replace(part, target)


def _write_groups(handle: Any, parts: list[Any]) -> None:
    with pq.ParquetWriter(handle, parts[0].schema, **_OPTIONS) as writer:
        for part in parts:
            writer.write_table(part, row_group_size=max(len(part), 1))


def _listed(scratch: Place, folder: str) -> list[str]:
    with _no_details("list"):
        fs, root = scratch.resolve()
        fs.invalidate_cache()
        path = f"{root}/{folder}"
        names = fs.ls(path, detail=False) if fs.exists(path) else []
        return [str(name) for name in names if str(name).endswith(".parquet")]


class _no_details:
    """Context in which every exception becomes a DataError without a cause."""

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None or not issubclass(kind, Exception) or issubclass(kind, MemoryError):
            return
        raise DataError(
            f"cannot {self._action} scratch storage ({kind.__name__}): give --scratch a place with "
            "room that all workers reach, and run the same command again"
        ) from None


def _binary(values: npt.NDArray[Any]) -> Any:
    """Convert the rows of a two-dimensional array to fixed-size binary."""
    rows, columns = values.shape
    size = columns * values.itemsize
    data = pa.py_buffer(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), rows, [None, data])


def _bytes(array: Any, size: int) -> npt.NDArray[np.uint8]:
    if not len(array):
        return np.zeros((0, size), dtype=np.uint8)
    data = np.frombuffer(array.buffers()[1], dtype=np.uint8)
    return data[array.offset * size : (array.offset + len(array)) * size].reshape(-1, size)


def _ints(array: Any, width: int) -> npt.NDArray[np.int32]:
    return _bytes(array, 4 * width).view("<i4").astype(np.int32, copy=False)
