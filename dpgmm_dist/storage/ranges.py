"""Files of object stores that are read by ranges: no request but those for what is read."""

from __future__ import annotations

import io
from typing import Any

from dpgmm_dist.opaque import Opaque


def fetches_ranges(fs: Any) -> bool:
    """Whether a file system fetches a range of a file by one request, and several at a time.

    A web server need not know ranges.
    """
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else {*fs.protocol}
    return bool(getattr(fs, "async_impl", False)) and not protocols & {"http", "https"}


class Ranges(Opaque, io.RawIOBase):
    """A file of known size, of which exactly what is read is fetched."""

    def __init__(self, fs: Any, path: str, size: int) -> None:
        super().__init__()
        self._fs, self._path, self._size = fs, path, size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + (0, self._place, self._size)[whence]
        return self._place

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._place + size)
        if end <= self._place:
            return b""
        data = bytes(self._fs.cat_file(self._path, start=self._place, end=end))
        if len(data) > end - self._place:
            raise OSError("the store sent more than it was asked for")
        self._place += len(data)
        return data
