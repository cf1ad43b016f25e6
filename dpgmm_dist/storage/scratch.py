"""PRIVATE scratch storage of one run, removed when the run ends, also after a failure.

A killed run cannot clean up, so a later run that uses the same place does. On a local disk a free
lock shows that the run that made a scratch directory has ended. On a store the name is made from
the release id: the next run of that release removes what an earlier one left.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

from dpgmm_dist.storage.parquet_files import Place, is_local

PREFIX = "dpgmm-scratch-"
_LOCK = "owner.lock"


@contextmanager
def open_scratch(
    base: str | None, release_id: str, storage_options: Mapping[str, Any] | None = None
) -> Iterator[Place]:
    """Yield a new private directory below ``base``; remove it at the end.

    Parameters
    ----------
    base : str or None
        Directory or fsspec URL. None is the system's directory for temporary files.
    release_id : str
        Names the directory on a store.
    storage_options : mapping, optional
        The fsspec options of ``base``.

    Raises
    ------
    DataError
        The directory cannot be made.
    """
    parent = Place(base or tempfile.gettempdir(), dict(storage_options or {}), "scratch storage")
    fs, root = parent.resolve()
    scratch = _local(parent, Path(root)) if is_local(fs) else _remote(fs, parent, release_id)
    with scratch as place:
        yield place


def folder_in(scratch: Place, name: str) -> Place:
    """A folder of scratch storage, for one of several sets of files.

    Raises
    ------
    DataError
        The folder cannot be made.
    """
    fs, root = scratch.resolve()
    if is_local(fs):
        with scratch.public_errors("cannot make a folder of scratch storage"):
            Path(root, name).mkdir(mode=0o700, exist_ok=True)
    return Place(f"{scratch.url.rstrip('/')}/{name}", scratch.storage_options, scratch.key)


@contextmanager
def _local(parent: Place, base: Path) -> Iterator[Place]:
    with parent.public_errors(f"cannot make scratch storage in {base}"):
        base.mkdir(parents=True, exist_ok=True)
        _sweep(base)
        folder, lock = _locked(base)
    try:
        yield Place(str(folder), {}, parent.key)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(base: Path) -> tuple[Path, int]:
    """Make a directory that only its owner may read, and hold its lock while the run lives."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder, lock
        os.close(lock)  # another run removed it before it was locked


def _sweep(base: Path) -> None:
    """Remove the scratch directories of runs that have ended: their locks are free."""
    for folder in base.glob(f"{PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


@contextmanager
def _remote(fs: Any, parent: Place, release_id: str) -> Iterator[Place]:
    name = hashlib.sha256(release_id.encode()).hexdigest()[:16]
    url = f"{parent.url.rstrip('/')}/{PREFIX}{name}"
    _, path = Place(url, parent.storage_options, parent.key).resolve()
    with parent.public_errors(f"cannot use scratch storage at {parent.url}"):
        _remove(fs, path)
    try:
        yield Place(f"{url}/{token_hex(8)}", parent.storage_options, parent.key)
    finally:
        # An error here would hide an earlier one. The next run removes what is left.
        with suppress(Exception):
            _remove(fs, path)


def _remove(fs: Any, path: str) -> None:
    fs.invalidate_cache()
    if fs.exists(path):
        fs.rm(path, recursive=True)
