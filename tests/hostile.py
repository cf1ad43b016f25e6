"""Files as somebody with bad intent would write them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

FOOTER_END = 8
"""Bytes after the footer of a Parquet file: its length, and PAR1."""
DEEP = b"[" * 100_000 + b"]" * 100_000


def pipe(path: Path) -> None:
    """A named pipe that nobody writes to: whoever opens it in the usual way waits for ever."""
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    """A socket in the file system."""
    place = os.getcwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(place)


def endless_device(path: Path) -> None:
    """A link to a device that can be read without an end."""
    path.symlink_to("/dev/zero")


SPECIAL: dict[str, Callable[[Path], None]] = {
    "named pipe": pipe,
    "socket": unix_socket,
    "device": endless_device,
}


def declare_rows(path: Path, rows: int, said: int) -> None:
    """Make the footer of a Parquet file of ``rows`` rows say that there are ``said``."""
    data = path.read_bytes()
    size = int.from_bytes(data[-FOOTER_END:-4], "little")
    pages, footer = data[: -FOOTER_END - size], data[-FOOTER_END - size : -FOOTER_END]
    old, new = _number(rows), _number(said)
    assert footer.count(old) >= 2  # of the file and of its row group
    footer = footer.replace(old, new)
    path.write_bytes(pages + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def _number(value: int) -> bytes:
    """A field of 64 bits in Thrift's compact protocol: its head, and the number in zigzag."""
    left, out = value << 1, b"\x16"
    while left > 127:
        out += bytes([left & 127 | 128])
        left >>= 7
    return out + bytes([left])
