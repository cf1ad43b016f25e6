"""From released rows to pictures: linear inverses, ONNX models, Python functions."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.encode.projection import Projection
from dpgmm_dist.encode.protocol import Function, Shape, base_name, entry_point, file_bytes
from dpgmm_dist.errors import SpecError

Floats = NDArray[np.float64]


@runtime_checkable
class Decoder(Protocol):
    """Maps released rows to pictures. Sees nothing private, so it may be anything."""

    name: str

    def __call__(self, rows: Floats) -> NDArray[Any]:
        """Pictures of n rows: (n, h, w, c), (n, c, h, w) or (n, h w c); uint8, or in [0, 1]."""
        ...


def find_decoder(text: str) -> Decoder:
    """The decoder that a text names: ``pixels``, ``projection:PATH``, ``onnx:PATH`` or
    ``MODULE:NAME``.

    Raises
    ------
    SpecError
        When there is no such decoder, or it cannot be loaded.
    """
    kind, colon, rest = text.partition(":")
    if text == "pixels":
        return PixelDecoder()
    if kind == "projection" and rest:
        return ProjectionDecoder(rest)
    if kind == "onnx" and rest:
        return OnnxDecoder(rest)
    if colon and kind and rest:
        found: Decoder | Function = entry_point(kind, rest)
        return found  # type: ignore[return-value]
    raise SpecError(f"--decoder {text}: use pixels, projection:PATH, onnx:PATH or MODULE:NAME")


class PixelDecoder:
    """Rows that are pictures already: 0 to 255 in integer columns, 0 to 1 in others."""

    name = "pixels"

    def __call__(self, rows: Floats) -> Floats:
        """The rows."""
        return rows


class ProjectionDecoder:
    """The linear inverse of a public projection of pixels (see ``projection:PATH`` in encode)."""

    def __init__(self, path: str) -> None:
        self.projection = Projection.from_bytes(file_bytes(path), path)
        self.name = f"projection:{base_name(path)}"

    def __call__(self, rows: Floats) -> Floats:
        """Pixels in [0, 1], unclipped."""
        return self.projection.backward(rows)


class OnnxDecoder:
    """An ONNX model from rows (n, d) float32 to pictures in [0, 1]; its first output."""

    def __init__(self, path: str) -> None:
        from dpgmm_dist.encode.onnx import OnnxEncoder

        self.model = OnnxEncoder(path)
        self.name = self.model.name

    def __call__(self, rows: Floats) -> NDArray[Any]:
        """Pictures, flat in the order of the model."""
        return self.model(rows)


def pictures(decoder: Decoder, rows: NDArray[Any], shape: Shape) -> NDArray[np.uint8]:
    """Decoded rows (n, d) as pictures (n, h, w, c) uint8.

    Raises
    ------
    SpecError
        When the decoder gives pictures of another size than ``shape``.
    """
    whole = rows.dtype.kind in "iu" and isinstance(decoder, PixelDecoder)
    made = np.asarray(decoder(np.asarray(rows, dtype=np.float64)))
    height, width, channels = shape
    if len(made) != len(rows) or made[:1].size != (height * width * channels if len(made) else 0):
        raise SpecError(
            f"{decoder.name} gives {made.shape[1:]} numbers a row, --shape "
            f"{height}x{width}x{channels} needs {height * width * channels}: make them agree"
        )
    channels_first = made.ndim == 4 and made.shape[1] == channels != made.shape[3]
    if channels_first:
        made = made.transpose(0, 2, 3, 1)
    if made.dtype != np.uint8:
        scale = 1.0 if whole else 255.0
        made = np.clip(np.nan_to_num(np.rint(made * scale)), 0, 255).astype(np.uint8)
    return made.reshape(len(made), height, width, channels)
