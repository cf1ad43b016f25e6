"""Encoders of the libraries timm, transformers and sentence-transformers, where torch is installed.

Models are loaded from a folder or from what the library has cached. Nothing is downloaded. They
run on the CPU, one thread an operation, so that sums have a fixed order.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.encode.model_files import beside, exists
from dpgmm_dist.encode.options import PICTURE_OPTIONS, TEXT_OPTIONS, EncoderOptions
from dpgmm_dist.encode.picture_input import CONFIG, PictureInput, from_config
from dpgmm_dist.encode.protocol import Batch, base_name, file_bytes, sha256_of
from dpgmm_dist.encode.text_input import TextInput, pooled, stated_pooling
from dpgmm_dist.errors import SpecError

_EXTRA = "pip install 'dpgmm-dist[torch]'"


class TimmEncoder:
    """A model of timm by its name, without its classifier: pictures to pooled features.

    ``local-dir:FOLDER`` is a folder with ``config.json`` and the weights, as timm saves them.
    """

    def __init__(self, model: str, options: EncoderOptions) -> None:
        self.name = f"timm:{base_name(model)}"
        options.refuse_others(self.name, *PICTURE_OPTIONS)
        with _loading(f"timm:{model}", "timm"):
            import timm

            _check_cached_file(timm, model)
            self.model = timm.create_model(model, pretrained=True, num_classes=0).eval()
            config = timm.data.resolve_model_data_config(self.model)
        self.picture = options.picture_input(_timm_input(config))
        self.digest = sha256_of("dpgmm timm 1", weights_digest(self.model), repr(self.picture))

    def __call__(self, batch: Batch) -> NDArray[Any]:
        """Embeddings (n, d) of pictures (n, h, w, c)."""
        return _run(self.model, _pixels(batch, self.picture, self.name))


class TransformersEncoder:
    """A model of transformers from a folder: CLIP, DINOv2, ViT and others, or a model of texts.

    Pictures: CLIP and SigLIP give the features that they compare with texts. Others give their
    first token (the class), or the mean of all with ``--pooling mean``; a model without tokens
    gives the mean over the picture. Texts: the mean of the tokens, or the first.
    """

    def __init__(self, path: str, options: EncoderOptions) -> None:
        self.name = f"transformers:{base_name(path)}"
        with _loading(f"transformers:{path}", "transformers"):
            from transformers import AutoModel

            with _no_bars():
                self.model = AutoModel.from_pretrained(path, local_files_only=True).eval()
            folder = _local_folder(path)
        self.picture: PictureInput | None = None
        self.input: TextInput | None = None
        if exists(beside(folder, CONFIG)):
            options.refuse_others(self.name, *PICTURE_OPTIONS, "pooling")
            found = from_config(file_bytes(beside(folder, CONFIG)), beside(folder, CONFIG))
            self.picture = options.picture_input(found)
            self.pooling = options.pooling or "first"
            settings: list[str | bytes] = [repr(self.picture)]
        else:
            options.refuse_others(self.name, *TEXT_OPTIONS)
            self.input = texts = TextInput(folder, options.max_tokens)
            self.groups = lambda rows: texts.lengths(_texts(rows, self.name))
            self.pooling = options.pooling or stated_pooling(folder) or "mean"
            settings = [texts.definition]
        self.digest = sha256_of(
            "dpgmm transformers 1", weights_digest(self.model), self.pooling, *settings
        )

    def __call__(self, batch: Batch) -> NDArray[Any]:
        """Embeddings (n, d) of pictures (n, h, w, c) or n texts."""
        if self.input is not None:
            return self._of_texts(_texts(batch, self.name), self.input)
        pixels = _pixels(batch, self.picture, self.name)
        features = getattr(self.model, "get_image_features", None)
        if features is not None:
            output = _run(features, pixels)
        else:
            output = _run(lambda values: self.model(pixel_values=values).last_hidden_state, pixels)
        if output.ndim == 4:
            return np.asarray(output.mean(axis=(2, 3)))
        if output.ndim == 3:
            return output[:, 0] if self.pooling == "first" else np.asarray(output.mean(axis=1))
        return output

    def _of_texts(self, texts: list[str], tokenize: TextInput) -> NDArray[Any]:
        tokens = tokenize(texts)
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
        output = _run(
            lambda i, m: self.model(input_ids=i, attention_mask=m).last_hidden_state, ids, mask
        )
        return pooled(output, mask, self.pooling)


class SentenceTransformerEncoder:
    """A model of sentence-transformers, from a folder or by the name of a cached one."""

    def __init__(self, path: str, options: EncoderOptions) -> None:
        self.name = f"sentence-transformers:{base_name(path)}"
        options.refuse_others(self.name, "max_tokens")
        with _loading(f"sentence-transformers:{path}", "sentence_transformers"):
            from sentence_transformers import SentenceTransformer

            with _no_bars():
                self.model = SentenceTransformer(path, device="cpu", local_files_only=True).eval()
        if options.max_tokens is not None:
            self.model.max_seq_length = options.max_tokens
        tokenizer = getattr(self.model.tokenizer, "backend_tokenizer", None)
        self.digest = sha256_of(
            "dpgmm sentence-transformers 1",
            weights_digest(self.model),
            str(self.model.max_seq_length),
            "" if tokenizer is None else tokenizer.to_str(),
            repr([type(module).__name__ for module in self.model]),
        )

    def groups(self, rows: Batch) -> NDArray[np.int64]:
        """The number of tokens (n,) of each text. Only texts of equal length share a batch."""
        most = self.model.max_seq_length
        encoded = self.model.tokenizer(_texts(rows, self.name), truncation=True, max_length=most)
        return np.array([len(ids) for ids in encoded["input_ids"]], np.int64)

    def __call__(self, batch: Batch) -> NDArray[Any]:
        """Embeddings (n, d) of n texts."""
        texts = _texts(batch, self.name)
        with _one_thread():
            return np.asarray(
                self.model.encode(texts, batch_size=len(texts), show_progress_bar=False)
            )


def weights_digest(model: Any) -> str:
    """SHA-256 (hex) of all parameters and buffers of a torch model, by name."""
    parts: list[str | bytes] = []
    for name, values in sorted(model.state_dict().items()):
        array = values.detach().cpu().contiguous()
        parts += [name, str(array.dtype), repr(tuple(array.shape))]
        parts.append(array.view(-1).view(_torch().uint8).numpy().tobytes())
    return sha256_of(*parts)


def _torch() -> Any:
    import torch

    return torch


@contextlib.contextmanager
def _loading(what: str, library: str) -> Iterator[None]:
    """Load a model without a download; a failure becomes a SpecError."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    problem = ""
    try:
        with _offline_hub():
            yield
        return
    except SpecError:
        raise
    except ImportError as error:
        problem = f"{what} needs {library} and torch ({error}): {_EXTRA}"
    except Exception as error:
        problem = (
            f"{what} cannot be loaded ({type(error).__name__}): give a folder that holds the "
            f"model, or a name that {library} has cached; nothing is downloaded"
        )
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before
    raise SpecError(problem)


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """No bars of transformers on stderr, where the progress of the job is."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _offline_hub() -> Iterator[None]:
    """The library of the model hub reads its variable when it is imported, so set what it read."""
    try:
        from huggingface_hub import constants
    except ImportError:
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _check_cached_file(timm: Any, model: str) -> None:
    """Refuse weights that timm would fetch from a web address of their own."""
    if model.startswith("local-dir:"):
        return
    config = timm.get_pretrained_cfg(model)
    if config is None or config.hf_hub_id or config.file or not config.url:
        return
    cached = Path(_torch().hub.get_dir()) / "checkpoints" / base_name(config.url)
    if not cached.exists():
        raise SpecError(f"timm:{model}: its weights are not cached ({cached} is missing)")


def _local_folder(path: str) -> str:
    """The folder of a model that is a folder, or a name in the cache of the hub's library."""
    if Path(path).is_dir():
        return path
    from huggingface_hub import snapshot_download

    return str(snapshot_download(path, local_files_only=True))


def _timm_input(config: Mapping[str, Any]) -> PictureInput:
    """The evaluation transform of timm for a model's data configuration."""
    channels, height, width = config["input_size"]
    share = config.get("crop_pct") or 1.0
    mode = config.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        raise SpecError(f"the model wants the crop mode {mode}, which is not supported")
    larger = int(height / share), int(width / share)
    shorter_side = mode == "center" and height == width
    return PictureInput(
        resize=larger[0] if shorter_side else larger,
        crop=(height, width),
        interpolation=config["interpolation"],
        rounds_crop=True,
        channels=channels,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _pixels(batch: Batch, picture: PictureInput | None, name: str) -> NDArray[np.float32]:
    rows: NDArray[Any] = np.empty(0) if isinstance(batch, list) else np.asarray(batch)
    if rows.ndim != 4 or picture is None:
        raise SpecError(f"{name} takes pictures: choose a column of pictures, or give --shape")
    return np.ascontiguousarray(picture.normalised(rows).transpose(0, 3, 1, 2))


def _texts(rows: Batch, name: str) -> list[str]:
    if not isinstance(rows, list):
        raise SpecError(f"{name} takes text, not pictures or numbers: choose a column of text")
    return rows


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one thread, for this thread and all later ones: it has no setting for a block."""
    torch = _torch()
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    with torch.inference_mode():
        yield


def _run(function: Any, *inputs: NDArray[Any]) -> NDArray[Any]:
    """A torch function of arrays, as an array."""
    with _one_thread():
        output = function(*(_torch().from_numpy(values) for values in inputs))
        # transformers 5 gives the features of pictures inside an object.
        output = getattr(output, "pooler_output", output)
        return np.asarray(output.float().numpy())
