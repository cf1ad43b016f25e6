"""PRIVATE scratch storage of one run: made for it, and removed when it ends, however it ends.

A run that is killed cannot clean up; the next run that uses the same place does. On a local disk
a lock tells whether the owner of a scratch directory is still alive. Elsewhere the name does:
what an earlier run of the same release id left is removed when that release is begun again.
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
    """A new private directory below ``base`` (by default that for temporary files).

    Raises
    ------
    DataError
        If it cannot be made.
    """
    where = Place(base or tempfile.gettempdir(), dict(storage_options or {}), "scratch storage")
    fs, root = where.resolve()
    scratch = _local(where, Path(root)) if is_local(fs) else _remote(fs, where, release_id)
    with scratch as place:
        yield place


@contextmanager
def _local(where: Place, base: Path) -> Iterator[Place]:
    with where.public_errors(f"cannot make scratch storage in {base}"):
        base.mkdir(parents=True, exist_ok=True)
        _sweep(base)
        folder, lock = _locked(base)
    try:
        yield Place(str(folder), {}, where.key)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(base: Path) -> tuple[Path, int]:
    """A new directory for its owner alone, and the lock that says that its run is alive."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder, lock
        os.close(lock)  # another run took it for one left behind before it was locked


def _sweep(base: Path) -> None:
    """Remove what runs that are dead left behind: their locks are free."""
    for folder in base.glob(f"{PREFIX}*"):
        with suppress(OSError):
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


@contextmanager
def _remote(fs: Any, where: Place, release_id: str) -> Iterator[Place]:
    name = hashlib.sha256(release_id.encode()).hexdigest()[:16]
    url = f"{where.url.rstrip('/')}/{PREFIX}{name}"
    _, path = Place(url, where.storage_options, where.key).resolve()
    with where.public_errors(f"cannot use scratch storage at {where.url}"):
        _remove(fs, path)
    try:
        yield Place(f"{url}/{token_hex(8)}", where.storage_options, where.key)
    finally:
        with suppress(Exception):  # what failed before this matters more; the next run removes it
            _remove(fs, path)


def _remove(fs: Any, path: str) -> None:
    fs.invalidate_cache()
    if fs.exists(path):
        fs.rm(path, recursive=True)
