"""The files that are stored beside a model."""

from __future__ import annotations

import json
from typing import Any

from dpgmm_dist.encode.protocol import file_bytes
from dpgmm_dist.errors import SpecError


def beside(folder: str, name: str) -> str:
    """The path of a file in a folder."""
    return f"{folder.rstrip('/')}/{name}"


def folder_with(name: str, path: str) -> str | None:
    """The folder of a model file, or the one above it, that has a file ``name``; None if none has.

    Exported models are often in a subfolder, such as ``onnx/model.onnx``.
    """
    folder = _parent(path)
    return next((f for f in (folder, _parent(folder)) if exists(beside(f, name))), None)


def exists(path: str) -> bool:
    """Whether there is a file at a path or URL."""
    import fsspec

    try:
        fs, root = fsspec.core.url_to_fs(path)
        return bool(fs.isfile(root))
    except (OSError, ValueError, ImportError):
        return False


def settings(folder: str, name: str) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no such file.

    Raises
    ------
    SpecError
        When the file holds anything else.
    """
    where = beside(folder, name)
    if not exists(where):
        return {}
    try:
        found = json.loads(file_bytes(where))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise SpecError(f"{where} is not a JSON object: store the model's own file there")
    return found


def _parent(path: str) -> str:
    head, slash, _ = path.rstrip("/").rpartition("/")
    return head if slash else "."
