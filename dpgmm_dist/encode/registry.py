"""The encoders that come with the library, by the names that ``--encoder`` takes."""

from __future__ import annotations

from dpgmm_dist.encode.builtin import Pixels, ProjectionEncoder, ScatteringEncoder
from dpgmm_dist.encode.onnx import OnnxEncoder
from dpgmm_dist.encode.protocol import Encoder, Shape, entry_point
from dpgmm_dist.errors import SpecError


def find_encoder(text: str, shape: Shape) -> Encoder:
    """The encoder with the given name, for raw rows of a shape.

    Parameters
    ----------
    text
        ``pixels``, ``scattering``, ``onnx:PATH``, ``projection:PATH`` or ``MODULE:NAME``. NAME is
        a function of a batch, an `Encoder`, or a class or function without arguments that makes
        one.
    shape
        Shape of a raw row.

    Raises
    ------
    SpecError
        When there is no such encoder, or it cannot be loaded.
    """
    kind, colon, rest = text.partition(":")
    if text == "pixels":
        return Pixels(shape)
    if text == "scattering":
        return ScatteringEncoder(shape)
    if kind == "onnx" and rest:
        return OnnxEncoder(rest, shape)
    if kind == "projection" and rest:
        return ProjectionEncoder(rest)
    if colon and kind and rest:
        encoder: Encoder = entry_point(kind, rest)
        return encoder
    raise SpecError(
        f"--encoder {text}: use pixels, scattering, onnx:PATH, projection:PATH or MODULE:NAME"
    )
