"""Finding and opening the Parquet files of a data set: file, directory, glob, hive, fsspec URL.

The driver finds files; driver and workers open them. Paths are public. No rows are read here.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from dpgmm_dist.errors import DataError, DpgmmError, SpecError
from dpgmm_dist.opaque import Opaque
from dpgmm_dist.storage.arrow_stores import arrow_filesystem
from dpgmm_dist.storage.local_file import refuse_special
from dpgmm_dist.storage.other_formats import conversion
from dpgmm_dist.storage.ranges import Ranges, fetches_ranges
from dpgmm_dist.storage.urls import describe_error, secrets_in

SUFFIXES = (".parquet", ".parq", ".pq")
T = TypeVar("T")
_DEPTH = 4
"""Folders that are searched for files of other formats, to name one in an error."""
_MAGIC = re.compile(r"[*?\[]")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure"}
_PRE_BUFFER_BYTES = 256 << 20
_STREAM_BYTES = 64 << 20
"""Of the stream buffers of all columns of a file together."""


@dataclass(frozen=True, repr=False)
class FoundFile(Opaque):
    """One Parquet file of a listing."""

    path: str
    """Path in the file system."""
    size: int
    stamp: str
    """Changes when the file changes: an etag or a time, or empty if the store has neither."""
    constants: tuple[tuple[str, str | None], ...]
    """Columns from directory names as (name, text, or None for null), outermost first."""


@dataclass(frozen=True, repr=False)
class Place(Opaque):
    """A path as the user wrote it, which holds no secret, and storage options, which may."""

    url: str
    storage_options: Mapping[str, Any]
    key: str = "dataset.path"
    """Its name in messages."""

    def resolve(self) -> tuple[Any, str]:
        """Return the fsspec file system and the path in it.

        Raises
        ------
        SpecError
            The protocol does not exist, or its package is not installed.
        DataError
            The store refuses.
        """
        with self.public_errors(f"cannot open {self.key} {self.url}"):
            try:
                fs, path = url_to_fs(self.url, **self.storage_options)
            except ImportError:
                scheme = self.url.partition("://")[0]
                extra = _EXTRAS.get(scheme)
                advice = f"pip install 'dpgmm-dist[{extra}]'" if extra else "install its package"
                raise SpecError(
                    f"{self.key} {self.url}: {scheme}:// needs a package that is not "
                    f"installed: {advice}"
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
        """Turn an error of a storage library into a DataError of one line.

        Only for code that reads no row: the error of the library is quoted.
        """
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
        """Return the path of a file for messages: a URL unless the file is local."""
        return path if is_local(fs) else str(fs.unstrip_protocol(path))


def _reason(error: Exception, secrets: tuple[str, ...]) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    return describe_error(error, secrets)


def is_local(fs: Any) -> bool:
    """Say whether the file system is the local disk."""
    return isinstance(fs, LocalFileSystem)


def list_files(place: Place) -> tuple[FoundFile, ...]:
    """Return the Parquet files at a path, sorted by path.

    A directory is searched with all its subdirectories, except names that begin with ``_`` or
    ``.``. In directories and globs only names that end in .parquet, .parq or .pq count. A file
    named in full is taken whatever its name. A directory named ``column=value`` gives a column that
    the files may lack: below a directory, or anywhere in the path of a glob or a file.

    Raises
    ------
    SpecError, DataError
        The path cannot be opened, does not exist or holds no Parquet file. It is a table of a
        format that keeps old rows in files. Or a local file is a pipe, or is found under two names.
    """
    fs, root = place.resolve()
    with place.public_errors(f"cannot list dataset.path {place.url}"):
        by_path = _find(fs, root)
        if by_path is None:
            raise DataError(
                f"dataset.path {place.url} does not exist: give a Parquet file, a directory "
                "of them or a glob"
            )
        other = None if by_path else _file_to_convert(fs, root)
    if other is not None:
        raise DataError(f"dataset.path {place.url} holds no Parquet file: {conversion(other)}")
    if not by_path:
        raise DataError(
            f"dataset.path {place.url} holds no Parquet file: names must end in "
            f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        )
    files = tuple(sorted(by_path.values(), key=lambda file: file.path))
    if is_local(fs):
        check_local(files)
    return files


def _file_to_convert(fs: Any, root: str) -> str | None:
    """The path of a file of a known other format at a path that holds no Parquet file."""
    paths = fs.glob(root) if _MAGIC.search(root) else fs.find(root, maxdepth=_DEPTH)
    return next((str(path) for path in sorted(paths) if conversion(str(path))), None)


def check_local(files: tuple[FoundFile, ...]) -> None:
    """Refuse what is no file, and a file with two names.

    A pipe would be waited for. The noise does not cover a row that counts twice.
    """
    first_path: dict[tuple[int, int], str] = {}
    for file in files:
        try:
            status = os.stat(file.path)
        except OSError:
            continue  # reading the file will report the error
        if not stat.S_ISREG(status.st_mode):
            raise DataError(
                f"{file.path} is a named pipe, a socket, a device or a directory, not a file: "
                "remove it, or choose another dataset.path"
            )
        other = first_path.setdefault((status.st_dev, status.st_ino), file.path)
        if status.st_ino and other != file.path:
            raise DataError(
                f"{file.path} and {other} are one file under two names, so its rows would count "
                "twice: remove one of the links, or choose a path that holds only one of them"
            )


def table_format(fs: Any, root: str) -> str | None:
    """Return "delta", "iceberg" or "hudi" for a table whose log says which files are current."""
    base = root.rstrip("/")
    formats = {"delta": "_delta_log", "hudi": ".hoodie"}
    kind = next((kind for kind, name in formats.items() if _info(fs, f"{base}/{name}")), None)
    # To list a directory that does not exist, s3fs lists the one above it.
    if _info(fs, f"{base}/metadata"):
        with suppress(FileNotFoundError, NotADirectoryError):
            names = fs.ls(f"{base}/metadata", detail=False)
            if any(str(name).endswith(".metadata.json") for name in names):
                kind = "iceberg"
    return kind


def _refuse_table_format(fs: Any, root: str) -> None:
    """Refuse a table where plain files are asked for: some of its files are not current."""
    kind = table_format(fs, root)
    if kind:
        name = {"delta": "a Delta Lake", "iceberg": "an Iceberg", "hudi": "a Hudi"}[kind]
        read = "dataset.path of a release may be the directory of the table; elsewhere, "
        advice = "" if kind == "hudi" else read
        raise DataError(
            f"{root.rstrip('/')} is {name} table: its files still hold deleted rows and old "
            f"versions of rows, which would count too; {advice}export the current rows to plain "
            "Parquet files"
        )


def _find(fs: Any, root: str) -> dict[str, FoundFile] | None:
    """Return the files by path, or None if the path does not exist."""
    info = _info(fs, root)
    if info is not None and info["type"] != "directory":
        return {root: _file(root, info, root)}
    if info is not None:
        _refuse_table_format(fs, root)
        return _below(fs, root, "")
    wildcard = _MAGIC.search(root)
    if wildcard is None:
        return None
    fixed = root[: wildcard.start()].rpartition("/")[0]
    _refuse_table_format(fs, fixed)
    files: dict[str, FoundFile] = {}
    for path, entry in fs.glob(root, detail=True).items():
        if entry["type"] == "directory":
            if _visible(path, fixed):
                _refuse_table_format(fs, path)
                files |= _below(fs, path, path)
        elif _visible(path, fixed) and path.lower().endswith(SUFFIXES):
            files[path] = _file(path, entry, path)
    return files


def _info(fs: Any, path: str) -> dict[str, Any] | None:
    try:
        return dict(fs.info(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _below(fs: Any, root: str, hive: str) -> dict[str, FoundFile]:
    """Return the files below a directory; names of directories in ``hive`` also give columns."""
    base = root.rstrip("/")
    entries = _walk_local(fs, root) if is_local(fs) else fs.find(root, detail=True)
    return {
        path: _file(path, entry, hive + path[len(base) :])
        for path, entry in entries.items()
        if _visible(path, base) and path.lower().endswith(SUFFIXES)
    }


def _walk_local(fs: Any, root: str) -> dict[str, dict[str, Any]]:
    """Return all Parquet files below a local directory.

    Unlike fsspec's ``find`` this follows links to directories, and raises an error for a directory
    that may not be read. Otherwise rows would be left out silently.
    """

    def fail(error: OSError) -> None:
        raise error

    def is_loop(folder: str, name: str) -> bool:
        path = os.path.join(folder, name)
        target = os.path.join(os.path.realpath(path), "")
        return os.path.islink(path) and os.path.join(os.path.realpath(folder), "").startswith(
            target
        )

    entries: dict[str, dict[str, Any]] = {}
    for folder, subfolders, names in os.walk(root, onerror=fail, followlinks=True):
        subfolders[:] = [name for name in subfolders if not is_loop(folder, name)]
        for name in names:
            path = os.path.join(folder, name)
            if name.lower().endswith(SUFFIXES):
                entries[path] = fs.info(path)
    return entries


def _visible(path: str, base: str) -> bool:
    names = path[len(base) :].strip("/").split("/")
    # The name of a partition column may begin with an underscore.
    return not any(n.startswith(".") or (n.startswith("_") and "=" not in n) for n in names)


def _file(path: str, entry: Mapping[str, Any], hive: str) -> FoundFile:
    return FoundFile(path, int(entry.get("size") or 0), stamp_of(entry), _hive_columns(hive))


def stamp_of(entry: Mapping[str, Any]) -> str:
    """Return what changes when a file changes, from its entry in a listing; or an empty text."""
    keys = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "created")
    return next((f"{key}:{entry[key]}" for key in keys if entry.get(key)), "")


def _hive_columns(path: str) -> tuple[tuple[str, str | None], ...]:
    columns: dict[str, str | None] = {}
    for name in path.split("/")[:-1]:
        column, equals, text = name.partition("=")
        if equals and column:
            columns[unquote(column)] = None if text == _HIVE_NULL else unquote(text)
    return tuple(columns.items())


@contextmanager
def opened(
    fs: Any,
    path: str,
    columns: int,
    piece_bytes: int,
    texts: Sequence[str] = (),
    size: int = 0,
    content: bytes | None = None,
) -> Iterator[Any]:
    """Yield a file as a pyarrow.parquet.ParquetFile; close it afterwards.

    Local files are streamed through small buffers. That is as fast as a memory map, but resident
    memory stays the size of a block, and a file that is truncated meanwhile is an error, not a
    crash. From an object store a piece is fetched in a few large requests if it fits in memory.

    Parameters
    ----------
    columns : int
        The number of columns that will be read.
    piece_bytes : int
        How many bytes of them will be read, uncompressed.
    texts : names
        Columns whose texts are kept once each, with a number for every row. A file of a few hundred
        bytes can hold a long text in millions of rows.
    size : int
        Bytes of the file by its listing, so that an object store is not asked again; 0 if unknown.
    content : bytes
        The whole file, if it has been fetched (:mod:`dpgmm_dist.storage.small_files`).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if content is not None:
        yield pq.ParquetFile(pa.BufferReader(content), read_dictionary=texts, pre_buffer=False)
        return
    share = _STREAM_BYTES // max(columns, 1)
    if is_local(fs):
        refuse_special(os.stat(path), path)  # it may have taken the place of the file since
        with pa.OSFile(path) as handle:
            yield pq.ParquetFile(
                handle,
                read_dictionary=texts,
                pre_buffer=False,
                buffer_size=min(1 << 20, max(1 << 16, share)),
            )
        return
    ahead = 0 < piece_bytes <= _PRE_BUFFER_BYTES
    with _stored(fs, path, size) as handle:
        yield pq.ParquetFile(
            handle,
            read_dictionary=texts,
            pre_buffer=ahead,
            buffer_size=0 if ahead else min(8 << 20, max(1 << 18, share)),
        )


def _stored(fs: Any, path: str, size: int) -> Any:
    """Open a file of an object store with Arrow's own client if there is one, else with fsspec."""
    arrow_fs = arrow_filesystem(fs)
    if arrow_fs is not None:
        # Without credentials or a file, or with a path that Arrow rejects (ArrowInvalid), fsspec
        # opens the file or reports the error.
        with suppress(OSError, ValueError):
            return arrow_fs.open_input_file(path)
    if size and fetches_ranges(fs):
        return Ranges(fs, path, size)
    # Arrow asks for exact ranges. A cache of fsspec would fetch more.
    return fs.open(path, "rb", cache_type="none")


def for_each_file(read: Callable[[FoundFile], T], files: tuple[FoundFile, ...]) -> list[T]:
    """Return ``read(file)`` of every file, from a small thread pool.

    Of several errors, that of the first file is raised.
    """
    from concurrent.futures import ThreadPoolExecutor

    if len(files) == 1:
        return [read(files[0])]
    with ThreadPoolExecutor(min(16, len(files)), thread_name_prefix="footers") as pool:
        try:
            return list(pool.map(read, files))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
