"""Create a local file once, whole and durable; read one without waiting for it.

The writer writes a temporary file beside the target, flushes it to disk, links it to the name,
flushes the directory and removes the temporary name. The link fails if the name exists. The name
appears together with its content, so a reader never sees a part of a file, even if the writer is
killed. A killed writer may leave a file named ``.tmp-...``, which is never read.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat


def create_file(path: str, data: bytes, root: str) -> None:
    """Create the file ``path`` with the content ``data``. It is durable when this returns.

    Parameters
    ----------
    path : str
        Absolute path. Missing directories are made.
    data : bytes
        The whole content.
    root : str
        The directory of the store. All directories from the file's to this one are flushed.

    Raises
    ------
    FileExistsError
        The name is taken. The existing file is durable when this is raised.
    OSError
        Anything else failed. The file may exist or not.
    """
    folder = os.path.dirname(path)
    _make_folders(folder)
    temporary = os.path.join(folder, f".tmp-{os.getpid()}-{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        finally:
            # After a conflict too: the caller is about to rely on the file of the other writer.
            _sync_up(folder, root)
    finally:
        os.unlink(temporary)


def read_file(path: str) -> bytes:
    """Return the content of a file; raise OSError for a pipe, socket or device, without waiting.

    To open a named pipe otherwise waits until somebody writes to it, which may be for ever.
    """
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(fd, "rb") as file:
        refuse_special(os.fstat(fd), path)
        return file.read()


def refuse_special(status: os.stat_result, path: str) -> None:
    """Raise OSError if the status is that of a named pipe, a socket or a device."""
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise OSError(f"{path} is a named pipe, a socket or a device, not a file")


def _sync_up(folder: str, root: str) -> None:
    """Flush the directory and its parents up to ``root``."""
    _sync_folder(folder)
    while len(folder) > len(root):
        folder = os.path.dirname(folder)
        _sync_folder(folder)


def _make_folders(folder: str) -> None:
    """Make the directory and its parents, each durable in its own parent."""
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    _make_folders(parent)
    try:
        os.mkdir(folder)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", folder) from None
    _sync_folder(parent)


def _sync_folder(folder: str) -> None:
    if os.name == "nt":  # Windows cannot open directories
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
