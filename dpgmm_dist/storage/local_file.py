"""Create a local file once, whole and durable.

Write a temporary file beside the target, flush it to disk, link it to the name, flush the
directory, remove the temporary name. A link fails if the name exists, and the name appears
together with its content: a reader never sees half a file, whenever the writer is killed. What a
killed writer leaves behind is at most a file named ``.tmp-...``, which nobody reads.
"""

from __future__ import annotations

import errno
import os
import secrets


def create_file(path: str, data: bytes, root: str) -> None:
    """Create the file ``path`` with the content ``data``; durable when this returns.

    Parameters
    ----------
    path : str
        Absolute path; missing directories are made.
    root : str
        The store's directory: directories from the file's up to this one are flushed too.

    Raises
    ------
    FileExistsError
        The name is taken; what the other writer put there is durable by now.
    OSError
        Anything else the system says; the file may or may not be there.
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
            # After a conflict too: the caller is about to rely on what the other writer made.
            _sync_up(folder, root)
    finally:
        os.unlink(temporary)


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
    if os.name == "nt":  # directories cannot be opened there
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
