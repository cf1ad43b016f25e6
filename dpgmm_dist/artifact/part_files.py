"""Folders of ``part-00000.parquet``, ``part-00001.parquet``, ...; each file is written atomically.

Any task may write any part, and may write it again. The bytes of a part depend only on what the
task is asked to write, so a repeated task replaces a file by an identical one.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.storage.urls import check_no_password, describe_error, safe_url, secrets_in

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
Report = Callable[[float], None]
ForEach = Callable[[Callable[[Any], int], Sequence[Any], Report], None]
"""Call a function with every item, in any order and anywhere; report the fraction done."""


def one_after_another(function: Callable[[T], int], items: Sequence[T], report: Report) -> None:
    """Call the function with each item in turn, in this thread."""
    for done, item in enumerate(items, start=1):
        function(item)
        report(done / len(items))


def part_name(index: int) -> str:
    """The file name of a part."""
    return f"part-{index:05d}.parquet"


def make_empty_folder(output: str, options: Mapping[str, Any] | None) -> None:
    """Check that an output is empty, and create its folder where the file system has folders.

    Raises
    ------
    SpecError
        When the output is not empty, is a file, or has a password in its URL.
    """
    fs, root = resolve(output, options)
    try:
        fs.invalidate_cache()
        entries = fs.ls(root, detail=True)
    except FileNotFoundError:
        entries = []
    # An object store may list the marker of the prefix itself.
    if any(str(entry["name"]).strip("/") != root.strip("/") for entry in entries):
        raise SpecError(
            f"{safe_url(output)} is not empty: choose another output, or remove its contents"
        )
    if entries and entries[0]["type"] == "file" and entries[0].get("size"):
        raise SpecError(f"{safe_url(output)} is a file: choose a directory for the output")
    fs.makedirs(root, exist_ok=True)


def resolve(output: str, options: Mapping[str, Any] | None) -> tuple[Any, str]:
    """The file system and the path of an output."""
    from fsspec.core import url_to_fs

    check_no_password(output)
    fs, root = url_to_fs(output, **(options or {}))
    return fs, root.rstrip("/") or "/"


@contextmanager
def new_parquet(
    output: str, options: Mapping[str, Any] | None, name: str, schema: pa.Schema
) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Yield a function that appends row groups to a new file.

    The file appears under its name when the block ends without an error.
    """
    import pyarrow.parquet as pq

    # Gaussian samples do not compress. Dictionaries compress labels and small integers.
    discrete = [field.name for field in schema if not _is_continuous(field.type)]
    settings = {"compression": "NONE", "use_dictionary": discrete, "write_statistics": False}
    with (
        new_file(output, options, name) as file,
        pq.ParquetWriter(file, schema, **settings) as writer,
    ):
        yield writer.write_batch


@contextmanager
def new_file(output: str, options: Mapping[str, Any] | None, name: str) -> Iterator[Any]:
    """Yield a binary file that appears under its name when the block ends without an error."""
    fs, root = resolve(output, options)
    path = f"{root}/{name}"
    local = bool(getattr(fs, "local_file", False))
    target = f"{root}/.{name}.{secrets.token_hex(4)}" if local else path
    file = fs.open(target, "wb") if local else fs.open(target, "wb", autocommit=False)
    try:
        yield file
        file.close()
        if local:
            os.replace(target, path)
        else:
            file.commit()
    except BaseException:
        # After any failure, a partly written file must not look like a complete one.
        if local:
            file.close()
            os.unlink(target)
        else:
            file.discard()
        raise


@contextmanager
def storage_errors(
    what: str, output: str, options: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Turn an error of the file system into a DataError: "cannot ``what`` to ``output``".

    ``options`` are the storage options of the output. The message quotes none of them.
    """
    try:
        yield
    except (DataError, SpecError):
        raise
    except (OSError, ValueError, ImportError) as error:
        reason = describe_error(error, secrets_in(options))
        raise DataError(
            f"cannot {what} to {safe_url(output)}: {reason}. Check that the output exists and "
            "that you may write to it"
        ) from None


def _is_continuous(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(kind) or pa.types.is_fixed_size_list(kind))
