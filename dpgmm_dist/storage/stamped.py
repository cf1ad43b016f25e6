"""Sizes and stamps of files that a table names, from one listing of its directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dpgmm_dist.errors import DataError
from dpgmm_dist.storage.parquet_files import FoundFile, Place, check_local, is_local, stamp_of


def stamped(place: Place, fs: Any, root: str, files: Sequence[FoundFile]) -> tuple[FoundFile, ...]:
    """Return the files as they are in the store now, sorted by path.

    Raises
    ------
    DataError
        If the snapshot names a file twice, or one that is not there, or two names are one file.
    """
    if len({file.path for file in files}) < len(files):
        raise DataError(f"{place.url}: the table names a file twice; its metadata are damaged")
    if not files:
        raise DataError(
            f"{place.url}: the snapshot of the table has no files; choose another dataset.snapshot"
        )
    listed = {} if is_local(fs) else fs.find(root, detail=True)
    found = []
    for file in files:
        entry = listed.get(file.path)
        try:
            entry = entry or fs.info(file.path)
        except FileNotFoundError:
            raise DataError(
                f"{place.url}: a file of the snapshot is gone "
                f"({place.message_path(fs, file.path)}): it was vacuumed or expired, or the table "
                "was moved; choose a newer dataset.snapshot"
            ) from None
        found.append(replace(file, size=int(entry.get("size") or 0), stamp=stamp_of(entry)))
    ordered = tuple(sorted(found, key=lambda file: file.path))
    if is_local(fs):
        check_local(ordered)
    return ordered
