"""Tiny models of the torch libraries, made here: embeddings are those of the library itself."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dpgmm_dist.encode.batches import Pipeline, rows_are_independent
from dpgmm_dist.encode.options import EncoderOptions
from dpgmm_dist.encode.raw_rows import prepared_shape
from dpgmm_dist.encode.registry import find_encoder
from dpgmm_dist.errors import SpecError

torch = pytest.importorskip("torch")

TEXTS = ["the parcel arrives on monday", "free offer reply now", "now", "green " * 30, ""]
WORDS = ["the", "parcel", "arrives", "on", "monday", "free", "offer", "reply", "now", "green"]


def pictures(count: int, height: int = 40, width: int = 51) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for _ in range(count)
    ]


def embedded(encoder: Any, images: list[Image.Image]) -> np.ndarray:
    rows = np.stack([encoder.picture.prepared(image) for image in images])
    pipeline = Pipeline(encoder, rows.shape[1:], 4)
    assert rows.shape[1:] == prepared_shape((1, 1, 3), encoder.picture)
    assert rows_are_independent(pipeline)
    return pipeline.embed(rows)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text model of two layers with a word tokenizer."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("bert")
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    settings = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
    )
    transformers.BertModel(settings).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_text_model_of_transformers(bert: Path, pooling: str) -> None:
    from transformers import AutoModel, AutoTokenizer

    options = EncoderOptions(pooling=pooling, max_tokens=20)
    encoder = find_encoder(f"transformers:{bert}", (), options)
    pipeline = Pipeline(encoder, (), 4)
    tokens = AutoTokenizer.from_pretrained(bert)(
        TEXTS, padding=True, truncation=True, max_length=20, return_tensors="pt"
    )
    model = AutoModel.from_pretrained(bert).eval()
    with torch.inference_mode():
        output = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    mask = tokens["attention_mask"][:, :, None].float()
    states = output.last_hidden_state
    expected = states[:, 0] if pooling == "first" else (states * mask).sum(1) / mask.sum(1)
    np.testing.assert_allclose(pipeline.embed(TEXTS), expected.numpy(), atol=1e-5)
    assert rows_are_independent(pipeline)
    other = find_encoder(f"transformers:{bert}", (), EncoderOptions(pooling=pooling))
    assert encoder.digest != other.digest and len(encoder.digest) == 64


def test_sentence_transformers(bert: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer, models

    parts = [models.Transformer(str(bert), max_seq_length=24), models.Pooling(16)]
    SentenceTransformer(modules=parts, device="cpu").save(str(tmp_path / "model"))
    encoder = find_encoder(f"sentence-transformers:{tmp_path / 'model'}", ())
    pipeline = Pipeline(encoder, (), 4)
    expected = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(pipeline.embed(TEXTS), expected, atol=1e-5)
    assert rows_are_independent(pipeline)
    assert encoder.name == "sentence-transformers:model"
    with pytest.raises(SpecError, match="--pooling does nothing"):
        find_encoder(
            f"sentence-transformers:{tmp_path / 'model'}", (), EncoderOptions(pooling="mean")
        )


@pytest.mark.parametrize("kind", ["vit", "dinov2", "clip"])
def test_picture_models_of_transformers(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "vit":
        model = transformers.ViTModel(
            transformers.ViTConfig(**small, intermediate_size=24, image_size=32, patch_size=8)
        )
        settings: dict[str, Any] = {"size": {"height": 32, "width": 32}, "resample": 2}
    elif kind == "dinov2":
        model = transformers.Dinov2Model(
            transformers.Dinov2Config(**small, image_size=28, patch_size=14)
        )
        settings = {"size": {"shortest_edge": 32}, "resample": 3}
        settings |= {"do_center_crop": True, "crop_size": {"height": 28, "width": 28}}
    else:
        vision = {**small, "intermediate_size": 24, "image_size": 32, "patch_size": 8}
        text = {**small, "intermediate_size": 24, "vocab_size": 99}
        model = transformers.CLIPModel(
            transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=8)
        )
        settings = {"size": {"shortest_edge": 32}, "resample": 3}
        settings |= {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}}
    settings |= {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
    settings |= {"do_resize": True, "do_rescale": True, "do_normalize": True}
    model.eval().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    encoder = find_encoder(f"transformers:{tmp_path}", ())
    images = pictures(3)
    processor_of = {
        "vit": "ViTImageProcessorPil",
        "dinov2": "BitImageProcessorPil",
        "clip": "CLIPImageProcessorPil",
    }[kind]
    if not hasattr(transformers, processor_of):
        processor_of = processor_of.removesuffix("Pil")  # before version 5
    processor = getattr(transformers, processor_of)(**settings)
    values = processor(images=images, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        if kind == "clip":
            expected = model.get_image_features(pixel_values=values)
            expected = getattr(expected, "pooler_output", expected)
        else:
            expected = model(pixel_values=values).last_hidden_state[:, 0]
    np.testing.assert_allclose(embedded(encoder, images), expected.numpy(), atol=1e-5)


def test_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, depth=1, img_size=32).eval()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    settings = {"input_size": [3, 32, 32], "crop_pct": 0.9, "interpolation": "bicubic"}
    settings |= {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "crop_mode": "center"}
    settings |= {"num_classes": 3, "first_conv": "patch_embed.proj", "classifier": "head"}
    document = {"architecture": "vit_tiny_patch16_224", "num_classes": 3}
    document |= {"model_args": {"depth": 1, "img_size": 32}, "pretrained_cfg": settings}
    (tmp_path / "config.json").write_text(json.dumps(document))
    encoder = find_encoder(f"timm:local-dir:{tmp_path}", ())
    transform = timm.data.create_transform(
        **timm.data.resolve_data_config(settings), is_training=False
    )
    images = pictures(3)
    with torch.inference_mode():
        values = torch.stack([transform(image) for image in images])
        expected = model.forward_head(model.forward_features(values), pre_logits=True)
    np.testing.assert_allclose(embedded(encoder, images), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "name", ["transformers:no-such/model", "sentence-transformers:no-such/model", "timm:no_such"]
)
def test_what_is_not_there_is_not_downloaded(name: str) -> None:
    pytest.importorskip(name.partition(":")[0].replace("-", "_"))
    before = os.environ.get("HF_HUB_OFFLINE")
    with pytest.raises(SpecError, match="nothing is downloaded"):
        find_encoder(name, ())
    assert os.environ.get("HF_HUB_OFFLINE") == before
