"""Decoders from released rows to pictures: linear inverses, learned maps, models, functions."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.encode.learned import LearnedDecoder
from dpgmm_dist.encode.projection import Projection
from dpgmm_dist.encode.protocol import Function, Shape, base_name, entry_point, file_bytes
from dpgmm_dist.errors import SpecError

Floats = NDArray[np.float64]
NAMES = (
    "pixels, projection:PATH, nearest:PUBLIC, fit:PUBLIC, learned:PATH, onnx:PATH or MODULE:NAME"
)


@runtime_checkable
class Decoder(Protocol):
    """Maps released rows to pictures. It reads nothing private, so it may be any function."""

    name: str

    def __call__(self, rows: Floats) -> NDArray[Any]:
        """Pictures (n, h, w, c), (n, c, h, w) or (n, h w c) of n rows, uint8 or in [0, 1]."""
        ...


def find_decoder(text: str) -> Decoder:
    """The decoder with the given name.

    Parameters
    ----------
    text
        ``pixels``, ``projection:PATH``, ``learned:PATH``, ``onnx:PATH`` or ``MODULE:NAME``. What
        ``nearest:`` and ``fit:`` need is read by `dpgmm_dist.encode.decode_job`.

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
    if kind == "learned" and rest:
        return LearnedDecoder.from_bytes(file_bytes(rest), f"learned:{base_name(rest)}")
    if kind == "onnx" and rest:
        return OnnxDecoder(rest)
    if colon and kind and rest:
        found: Decoder | Function = entry_point(kind, rest)
        # `entry_point` checks for an encoder, which is called in the same way as a decoder.
        return found  # type: ignore[return-value]
    raise SpecError(f"--decoder {text}: use {NAMES}")


class PixelDecoder:
    """For rows that are pictures: 0 to 255 in integer columns, 0 to 1 in others."""

    name = "pixels"

    def __call__(self, rows: Floats) -> Floats:
        """The rows as they are."""
        return rows


class ProjectionDecoder:
    """The linear inverse of a public projection of pixels, such as ``dpgmm encode`` saves."""

    def __init__(self, path: str) -> None:
        self.projection = Projection.from_bytes(file_bytes(path), path)
        self.name = f"projection:{base_name(path)}"

    def __call__(self, rows: Floats) -> Floats:
        """Pixels (n, h w c), not yet clipped to [0, 1]."""
        return self.projection.backward(rows)


class OnnxDecoder:
    """An ONNX model that maps rows (n, d), float32, to pictures in [0, 1], its first output."""

    def __init__(self, path: str) -> None:
        from dpgmm_dist.encode.onnx import OnnxEncoder

        self.model = OnnxEncoder(path)
        self.name = self.model.name

    def __call__(self, rows: Floats) -> NDArray[Any]:
        """Pictures (n, h w c) in the order of the model."""
        return self.model(rows)


def pictures(decoder: Decoder, rows: NDArray[Any], shape: Shape) -> NDArray[np.uint8]:
    """Decoded rows (n, d) as pictures (n, h, w, c) uint8.

    Raises
    ------
    SpecError
        When the decoder gives pictures of another size than ``shape``.
    """
    integer_pixels = rows.dtype.kind in "iu" and isinstance(decoder, PixelDecoder)
    images = np.asarray(decoder(np.asarray(rows, dtype=np.float64)))
    height, width, channels = shape
    expected = height * width * channels if len(images) else 0
    if len(images) != len(rows) or images[:1].size != expected:
        raise SpecError(
            f"{decoder.name} gives {images.shape[1:]} numbers a row, but --shape "
            f"{height}x{width}x{channels} needs {height * width * channels}: make them agree"
        )
    channels_first = images.ndim == 4 and images.shape[1] == channels != images.shape[3]
    if channels_first:
        images = images.transpose(0, 2, 3, 1)
    if images.dtype != np.uint8:
        scale = 1.0 if integer_pixels else 255.0
        images = np.clip(np.nan_to_num(np.rint(images * scale)), 0, 255).astype(np.uint8)
    return images.reshape(len(images), height, width, channels)
