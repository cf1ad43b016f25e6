"""Small files of object stores, which are fetched whole and several at a time.

A file that is opened takes two requests, one after the other: for its footer and for its rows.
Where files are small, a pass would mostly wait for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

from dpgmm_dist.storage.ranges import fetches_ranges
from dpgmm_dist.usage import count_retry

WHOLE_BYTES = 1 << 20
"""A file up to this size is fetched whole: that takes no longer than the requests it saves."""
_TOGETHER_BYTES = 16 << 20
_TOGETHER_FILES = 64


class Listed(Protocol):
    """A file of a listing."""

    @property
    def path(self) -> str:
        """Path in the file system."""

    @property
    def size(self) -> int:
        """Bytes; 0 where they are not known."""


F = TypeVar("F", bound=Listed)


def with_contents(
    fs: Any, files: Sequence[F], largest: int = WHOLE_BYTES
) -> Iterator[tuple[F, bytes | None]]:
    """Yield the files in order, with the content of those of at most ``largest`` bytes.

    A file without content has to be opened: it is larger, or it could not be fetched, or the file
    system does not fetch files at the same time, as that of the local disk does not. The content of
    a file that has grown since it was listed is cut off.
    """
    for group in _groups(fs, files, largest):
        contents = _fetched(fs, group) if _is_small(fs, group[0], largest) else [None]
        yield from zip(group, contents, strict=True)


def _is_small(fs: Any, file: Listed, largest: int) -> bool:
    return fetches_ranges(fs) and 0 < file.size <= largest


def _groups(fs: Any, files: Sequence[F], largest: int) -> Iterator[list[F]]:
    """Small files that are fetched together; each other file by itself."""
    group: list[F] = []
    for file in files:
        together = group and _is_small(fs, file, largest) and _is_small(fs, group[0], largest)
        size = sum(listed.size for listed in group) + file.size
        if group and not (together and len(group) < _TOGETHER_FILES and size <= _TOGETHER_BYTES):
            yield group
            group = []
        group.append(file)
    if group:
        yield group


def _fetched(fs: Any, files: Sequence[Listed]) -> list[bytes | None]:
    """The contents of files; None for each that fails, as opening it then says why."""
    paths, ends = [file.path for file in files], [file.size for file in files]
    try:
        # Given a beginning and an end, no file system asks for the size first.
        found = fs.cat_ranges(paths, [0] * len(paths), ends, on_error="return")
    except Exception:
        found = [None] * len(files)
    contents = [
        bytes(entry) if isinstance(entry, bytes | bytearray) and len(entry) == file.size else None
        for entry, file in zip(found, files, strict=True)
    ]
    for _ in range(contents.count(None)):
        count_retry()
    return contents
