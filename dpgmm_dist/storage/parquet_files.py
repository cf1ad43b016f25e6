"""Finding and opening the Parquet files of a data set: file, directory, glob, hive, fsspec URL.

Runs on the driver, and on workers for the opening. Paths are public; rows are not read here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from dpgmm_dist.errors import DataError, DpgmmError, SpecError
from dpgmm_dist.opaque import Opaque
from dpgmm_dist.storage.arrow_stores import arrow_filesystem
from dpgmm_dist.storage.urls import describe_error, secrets_in

SUFFIXES = (".parquet", ".parq", ".pq")
T = TypeVar("T")
_MAGIC = re.compile(r"[*?\[]")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure"}
_PRE_BUFFER_BYTES = 256 << 20
_STREAM_BYTES = 64 << 20
"""For the stream buffers of all columns of a file together."""


@dataclass(frozen=True, repr=False)
class FoundFile(Opaque):
    """One Parquet file as the listing gives it."""

    path: str
    """Path within the file system."""
    size: int
    stamp: str
    """Changes when the file does: etag or modification time, as far as the store has one."""
    constants: tuple[tuple[str, str | None], ...]
    """Columns given by directory names, (name, text or None for null), outermost first."""


@dataclass(frozen=True, repr=False)
class Place(Opaque):
    """A path as the user wrote it (a specification admits no secret in it), and secret options."""

    url: str
    storage_options: Mapping[str, Any]
    key: str = "dataset.path"
    """What messages call it."""

    def resolve(self) -> tuple[Any, str]:
        """The fsspec file system and the path within it.

        Raises
        ------
        SpecError
            If no such protocol exists, or its package is not installed.
        DataError
            If the store refuses.
        """
        with self.public_errors(f"cannot open {self.key} {self.url}"):
            try:
                fs, path = url_to_fs(self.url, **self.storage_options)
            except ImportError:
                scheme = self.url.partition("://")[0]
                extra = _EXTRAS.get(scheme)
                what = f"pip install 'dpgmm-dist[{extra}]'" if extra else "install its package"
                raise SpecError(
                    f"{self.key} {self.url}: {scheme}:// needs a package that is not "
                    f"installed: {what}"
                ) from None
            except ValueError as error:
                if "rotocol" not in str(error):
                    raise
                raise SpecError(
                    f"{self.key} {self.url}: no such protocol; use a local path or a URL "
                    "such as s3://, gs:// or abfs://"
                ) from None
        return fs, str(path)

    @contextmanager
    def public_errors(self, what: str) -> Iterator[None]:
        """Turn a storage error met while no row is being read into one DataError line."""
        problem: DpgmmError | None = None
        try:
            yield
        except DpgmmError:
            raise
        except Exception as error:
            problem = DataError(f"{what}: {_reason(error, secrets_in(self.storage_options))}")
        if problem is not None:
            raise problem from None

    def message_path(self, fs: Any, path: str) -> str:
        """A file's path for messages, as a URL unless it is local."""
        return path if is_local(fs) else str(fs.unstrip_protocol(path))


def _reason(error: Exception, secrets: tuple[str, ...]) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    return describe_error(error, secrets)


def is_local(fs: Any) -> bool:
    """Whether the file system is the local disk."""
    return isinstance(fs, LocalFileSystem)


def list_files(place: Place) -> tuple[FoundFile, ...]:
    """The Parquet files under a path, sorted.

    A directory is read with all below it except names that begin with ``_`` or ``.``; in
    directories and globs only names ending in .parquet, .parq or .pq count; a file named in full
    is taken as it is. Directory names ``column=value`` give columns that the files may lack:
    those below a directory, or all in the path of a glob or file.

    Raises
    ------
    SpecError, DataError
        If the path cannot be opened, does not exist, holds no Parquet file or is a table of a
        format that keeps old rows in files, or if a local file is found under two names.
    """
    fs, root = place.resolve()
    with place.public_errors(f"cannot list dataset.path {place.url}"):
        found = _find(fs, root)
        if found is None:
            raise DataError(
                f"dataset.path {place.url} does not exist: give a Parquet file, a directory "
                "of them or a glob"
            )
    if not found:
        raise DataError(
            f"dataset.path {place.url} holds no Parquet file: names must end in "
            f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        )
    files = tuple(sorted(found.values(), key=lambda file: file.path))
    if is_local(fs):
        _refuse_second_names(files)
    return files


def _refuse_second_names(files: tuple[FoundFile, ...]) -> None:
    """A row that is read twice would change answers by twice what the noise is made for."""
    first: dict[tuple[int, int], str] = {}
    for file in files:
        try:
            status = os.stat(file.path)
        except OSError:
            continue  # reading it tells what is wrong
        other = first.setdefault((status.st_dev, status.st_ino), file.path)
        if status.st_ino and other != file.path:
            raise DataError(
                f"{file.path} and {other} are one file under two names, so its rows would count "
                "twice: remove one of the links, or choose a path that holds one of them"
            )


def _refuse_table_format(fs: Any, root: str) -> None:
    """Tables with a log: which of their files are current the log alone says."""
    base = root.rstrip("/")
    formats = {"Delta Lake": "_delta_log", "Hudi": ".hoodie"}
    kind = next((kind for kind, name in formats.items() if _info(fs, f"{base}/{name}")), None)
    with suppress(FileNotFoundError, NotADirectoryError):
        names = fs.ls(f"{base}/metadata", detail=False)
        if any(str(name).endswith(".metadata.json") for name in names):
            kind = "Iceberg"
    if kind:
        raise DataError(
            f"{base} is a {kind} table: its files still hold removed and earlier versions of "
            "rows, which would count too; export the current rows to plain Parquet files"
        )


def _find(fs: Any, root: str) -> dict[str, FoundFile] | None:
    """Files by path; None when the path does not exist."""
    info = _info(fs, root)
    if info is not None and info["type"] != "directory":
        return {root: _file(root, info, root)}
    if info is not None:
        _refuse_table_format(fs, root)
        return _below(fs, root, "")
    if not _MAGIC.search(root):
        return None
    fixed = root[: _MAGIC.search(root).start()].rpartition("/")[0]  # type: ignore[union-attr]
    _refuse_table_format(fs, fixed)
    found: dict[str, FoundFile] = {}
    for path, entry in fs.glob(root, detail=True).items():
        if entry["type"] == "directory":
            if _visible(path, fixed):
                _refuse_table_format(fs, path)
                found |= _below(fs, path, path)
        elif _visible(path, fixed) and path.lower().endswith(SUFFIXES):
            found[path] = _file(path, entry, path)
    return found


def _info(fs: Any, path: str) -> dict[str, Any] | None:
    try:
        return dict(fs.info(path))
    except FileNotFoundError:
        return None


def _below(fs: Any, root: str, named: str) -> dict[str, FoundFile]:
    """Files below a directory; ``named`` is the part of the path whose names also give columns."""
    base = root.rstrip("/")
    entries = _walk_local(fs, root) if is_local(fs) else fs.find(root, detail=True)
    return {
        path: _file(path, entry, named + path[len(base) :])
        for path, entry in entries.items()
        if _visible(path, base) and path.lower().endswith(SUFFIXES)
    }


def _walk_local(fs: Any, root: str) -> dict[str, dict[str, Any]]:
    """All files below a local directory.

    Unlike fsspec's own ``find`` this follows links to directories and fails on a directory that
    may not be read, rather than leave rows out without a word.
    """

    def fail(error: OSError) -> None:
        raise error

    def turns_back(folder: str, name: str) -> bool:
        path = os.path.join(folder, name)
        target = os.path.join(os.path.realpath(path), "")
        return os.path.islink(path) and os.path.join(os.path.realpath(folder), "").startswith(
            target
        )

    found: dict[str, dict[str, Any]] = {}
    for folder, below, names in os.walk(root, onerror=fail, followlinks=True):
        below[:] = [name for name in below if not turns_back(folder, name)]
        for name in names:
            path = os.path.join(folder, name)
            if name.lower().endswith(SUFFIXES):
                found[path] = fs.info(path)
    return found


def _visible(path: str, base: str) -> bool:
    names = path[len(base) :].strip("/").split("/")
    # A partition column may itself begin with an underscore.
    return not any(n.startswith(".") or (n.startswith("_") and "=" not in n) for n in names)


def _file(path: str, entry: Mapping[str, Any], named: str) -> FoundFile:
    stamp = next(
        (
            f"{key}:{entry[key]}"
            for key in (
                "ETag",
                "etag",
                "md5Hash",
                "content_md5",
                "mtime",
                "LastModified",
                "created",
            )
            if entry.get(key)
        ),
        "",
    )
    return FoundFile(path, int(entry.get("size") or 0), stamp, _hive_columns(named))


def _hive_columns(path: str) -> tuple[tuple[str, str | None], ...]:
    columns: dict[str, str | None] = {}
    for name in path.split("/")[:-1]:
        column, equals, text = name.partition("=")
        if equals and column:
            columns[unquote(column)] = None if text == _HIVE_NULL else unquote(text)
    return tuple(columns.items())


@contextmanager
def opened(fs: Any, path: str, columns: int, piece_bytes: int) -> Iterator[Any]:
    """A file as a pyarrow.parquet.ParquetFile, closed afterwards.

    Local files are streamed through small buffers: as fast as a memory map, but resident memory
    stays the size of a block, and a file cut short meanwhile is an error, not a crash. From object
    stores a piece is fetched in few large requests unless it is too large to hold.

    Parameters
    ----------
    columns : number of columns that will be read.
    piece_bytes : size of what will be read of them, uncompressed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    share = _STREAM_BYTES // max(columns, 1)
    if is_local(fs):
        with pa.OSFile(path) as handle:
            yield pq.ParquetFile(
                handle, pre_buffer=False, buffer_size=min(1 << 20, max(1 << 16, share))
            )
        return
    ahead = 0 < piece_bytes <= _PRE_BUFFER_BYTES
    with _stored(fs, path) as handle:
        yield pq.ParquetFile(
            handle, pre_buffer=ahead, buffer_size=0 if ahead else min(8 << 20, max(1 << 18, share))
        )


def _stored(fs: Any, path: str) -> Any:
    """A file of an object store, to be read by Arrow's own client where there is one."""
    own = arrow_filesystem(fs)
    if own is not None:
        # If it finds no credentials, or no file, or does not take the path (ArrowInvalid), fsspec
        # shall have a look and say what is wrong.
        with suppress(OSError, ValueError):
            return own.open_input_file(path)
    # Arrow reads exact ranges; fsspec's own read-ahead would fetch more than asked.
    return fs.open(path, "rb", cache_type="none")


def for_each_file(read: Callable[[FoundFile], T], files: tuple[FoundFile, ...]) -> list[T]:
    """Apply ``read`` to every file on a small thread pool; errors come in the files' order."""
    from concurrent.futures import ThreadPoolExecutor

    if len(files) == 1:
        return [read(files[0])]
    with ThreadPoolExecutor(min(16, len(files)), thread_name_prefix="footers") as pool:
        try:
            return list(pool.map(read, files))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
