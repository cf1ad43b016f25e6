"""What an encoder is, and how one is named on the command line."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.errors import SpecError

Batch = NDArray[Any] | list[str]
"""Images (n, h, w, c) uint8, vectors (n, d) float64, or n texts."""
Shape = tuple[int, ...]
"""Of one image: (h, w, c); of one vector: (d,); () for text."""


@runtime_checkable
class Encoder(Protocol):
    """Maps a batch of raw rows to embeddings; always called with batches of one size."""

    name: str
    """For the receipt, such as "scattering" or "onnx:minilm.onnx"; no path."""
    digest: str
    """SHA-256 (hex) of what defines the map: a model file, or the code's version and settings."""

    def __call__(self, batch: Batch) -> NDArray[Any]:
        """Embeddings (n, d) of the n rows of a batch, floating point."""
        ...


def entry_point(module: str, name: str) -> Any:
    """The encoder or decoder that ``module:name`` stands for."""
    found = imported(module, name)
    if inspect.isclass(found) or (callable(found) and not _takes_an_argument(found)):
        found = found()
    if isinstance(found, Encoder):
        return found
    if not callable(found):
        raise SpecError(f"{module}:{name} is not a function, an encoder or a class of one")
    return Function(found, f"{module}:{name}", _source_digest(module, name))


def imported(module: str, name: str) -> Any:
    """What a module has under a name; SpecError when there is no such module or name."""
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except ImportError as error:
        raise SpecError(
            f"{module}:{name}: cannot import {module} ({error}); is it installed, or on PYTHONPATH?"
        ) from None
    except AttributeError:
        raise SpecError(f"{module}:{name}: {module} has no {name}") from None
    return found


class Function:
    """A plain function as an encoder; its digest is that of the file it is written in."""

    def __init__(self, function: Any, name: str, digest: str) -> None:
        self.function, self.name, self.digest = function, name, digest

    def __call__(self, batch: Batch) -> NDArray[Any]:
        """Embeddings of a batch."""
        return np.asarray(self.function(batch))


def sha256_of(*parts: str | bytes) -> str:
    """Digest of some parts, each with its length, so that their borders count."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


@functools.lru_cache(maxsize=8)
def file_bytes(path: str) -> bytes:
    """The bytes of a model file at a path or URL."""
    import fsspec

    try:
        with fsspec.open(path, "rb") as file:
            return bytes(file.read())
    except (OSError, ValueError, ImportError) as error:
        raise SpecError(f"cannot read {path} ({type(error).__name__}): check the path") from None


def base_name(path: str) -> str:
    """The last part of a path: what a receipt may show of it."""
    return path.rstrip("/").rpartition("/")[2]


def _takes_an_argument(function: Any) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.default is p.empty and p.kind <= p.POSITIONAL_OR_KEYWORD for p in parameters)


def _source_digest(module: str, name: str) -> str:
    source = getattr(importlib.import_module(module), "__file__", None)
    return sha256_of(module, name, Path(source).read_bytes() if source else b"")


def parse_shape(text: str | None) -> Shape:
    """(h, w, c) of ``HxW`` or ``HxWxC``; () for None."""
    if text is None:
        return ()
    parts: Sequence[str] = text.lower().split("x")
    if len(parts) not in (2, 3) or not all(p.isdecimal() and 0 < int(p) <= 8192 for p in parts):
        raise SpecError(f"--shape {text}: write HxW or HxWxC, such as 28x28 or 32x32x3")
    sizes = [int(p) for p in parts]
    if len(sizes) == 3 and sizes[2] not in (1, 3):
        raise SpecError(f"--shape {text}: images have 1 or 3 channels, not {sizes[2]}")
    return (sizes[0], sizes[1], sizes[2] if len(sizes) == 3 else 1)
