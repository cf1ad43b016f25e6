"""The encoders that come with the library, by the names that ``--encoder`` takes."""

from __future__ import annotations

from collections.abc import Callable

from dpgmm_dist.encode.builtin import Pixels, ProjectionEncoder, ScatteringEncoder
from dpgmm_dist.encode.onnx import OnnxEncoder, OnnxModel
from dpgmm_dist.encode.onnx_text import IDS, OnnxTextEncoder
from dpgmm_dist.encode.options import EncoderOptions
from dpgmm_dist.encode.protocol import Encoder, Shape, entry_point
from dpgmm_dist.errors import SpecError

NAMES = (
    "pixels, scattering, onnx:PATH, sentence-transformers:PATH, transformers:PATH, timm:NAME, "
    "projection:PATH or MODULE:NAME"
)


def find_encoder(text: str, shape: Shape, options: EncoderOptions | None = None) -> Encoder:
    """The encoder with the given name, for raw rows of a shape.

    Parameters
    ----------
    text
        One of `NAMES`. A NAME in a MODULE is a function of a batch, an `Encoder`, or a class or
        function without arguments that makes one.
    shape
        Shape of a raw row.
    options
        What is said about the input of a trained model. Other encoders take no options.

    Raises
    ------
    SpecError
        When there is no such encoder, or it cannot be loaded, or does not take an option.
    """
    options = options or EncoderOptions()
    kind, _, rest = text.partition(":")
    if rest and kind in _MODELS:
        return _MODELS[kind](rest, shape, options)
    options.refuse_others(text)
    if text == "pixels":
        return Pixels(shape)
    if text == "scattering":
        return ScatteringEncoder(shape)
    if kind == "projection" and rest:
        return ProjectionEncoder(rest)
    if kind and rest:
        encoder: Encoder = entry_point(kind, rest)
        return encoder
    raise SpecError(f"--encoder {text}: use {NAMES}")


def _onnx(path: str, shape: Shape, options: EncoderOptions) -> Encoder:
    model = OnnxModel(path)
    if IDS in model.inputs:
        return OnnxTextEncoder(model, options)
    return OnnxEncoder(path, shape, options, model)


def _sentence_transformer(path: str, shape: Shape, options: EncoderOptions) -> Encoder:
    from dpgmm_dist.encode.torch_models import SentenceTransformerEncoder

    return SentenceTransformerEncoder(path, options)


def _transformers(path: str, shape: Shape, options: EncoderOptions) -> Encoder:
    from dpgmm_dist.encode.torch_models import TransformersEncoder

    return TransformersEncoder(path, options)


def _timm(name: str, shape: Shape, options: EncoderOptions) -> Encoder:
    from dpgmm_dist.encode.torch_models import TimmEncoder

    return TimmEncoder(name, options)


_MODELS: dict[str, Callable[[str, Shape, EncoderOptions], Encoder]] = {
    "onnx": _onnx,
    "sentence-transformers": _sentence_transformer,
    "transformers": _transformers,
    "timm": _timm,
}
