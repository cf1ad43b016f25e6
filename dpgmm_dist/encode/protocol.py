"""The protocol of encoders, and the import of encoders from Python modules by name."""

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
"""Shape of a row: (h, w, c) for an image, (d,) for a vector, () for text."""


@runtime_checkable
class Encoder(Protocol):
    """Maps a batch of raw rows to embeddings. All batches have the same size."""

    name: str
    """Name for the receipt, such as "scattering" or "onnx:minilm.onnx", without a path."""
    digest: str
    """SHA-256 (hex) of what defines the map: a model file, or the code's version and settings."""

    def __call__(self, batch: Batch) -> NDArray[Any]:
        """Embeddings (n, d), floating point, of the n rows of a batch."""
        ...


def entry_point(module: str, name: str) -> Any:
    """The encoder or decoder that ``module:name`` names.

    A class, or a function without arguments, is called to make it.

    Raises
    ------
    SpecError
        When there is no such module or name, or it is not an encoder or a function.
    """
    found = imported(module, name)
    if inspect.isclass(found) or (callable(found) and not _takes_an_argument(found)):
        found = found()
    if isinstance(found, Encoder):
        return found
    if not callable(found):
        raise SpecError(f"{module}:{name} is not a function, an encoder or a class of encoders")
    return Function(found, f"{module}:{name}", _source_digest(module, name))


def imported(module: str, name: str) -> Any:
    """The object ``name`` of a module; SpecError if there is no such module or name."""
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
    """A plain function as an encoder. Its digest covers the file that defines it."""

    def __init__(self, function: Any, name: str, digest: str) -> None:
        self.function, self.name, self.digest = function, name, digest

    def __call__(self, batch: Batch) -> NDArray[Any]:
        """Embeddings (n, d) of a batch."""
        return np.asarray(self.function(batch))


def sha256_of(*parts: str | bytes) -> str:
    """SHA-256 (hex) of several parts. The length of each part is hashed too."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


@functools.lru_cache(maxsize=8)
def file_bytes(path: str) -> bytes:
    """The bytes of a model file at a path or URL; SpecError if it cannot be read."""
    import fsspec

    try:
        with fsspec.open(path, "rb") as file:
            return bytes(file.read())
    except (OSError, ValueError, ImportError) as error:
        raise SpecError(f"cannot read {path} ({type(error).__name__}): check the path") from None


def base_name(path: str) -> str:
    """The last part of a path, which is all that a receipt shows of it."""
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
    """The shape (h, w, c) that ``HxW`` or ``HxWxC`` gives; () for None.

    Raises
    ------
    SpecError
        When the text is not a shape, or has a number of channels other than 1 and 3.
    """
    if text is None:
        return ()
    parts: Sequence[str] = text.lower().split("x")
    if len(parts) not in (2, 3) or not all(p.isdecimal() and 0 < int(p) <= 8192 for p in parts):
        raise SpecError(f"--shape {text}: write HxW or HxWxC, such as 28x28 or 32x32x3")
    sizes = [int(p) for p in parts]
    if len(sizes) == 3 and sizes[2] not in (1, 3):
        raise SpecError(f"--shape {text}: images have 1 or 3 channels, not {sizes[2]}")
    return (sizes[0], sizes[1], sizes[2] if len(sizes) == 3 else 1)
