from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_models import linear, lookup
from PIL import Image

from dpgmm_dist.encode.batches import Pipeline, probe_rows, rows_are_independent
from dpgmm_dist.encode.drawn_shapes import drawn_pictures, principal_axes
from dpgmm_dist.encode.options import EncoderOptions
from dpgmm_dist.encode.projection import Projection, rowwise_product
from dpgmm_dist.encode.protocol import Encoder, parse_shape
from dpgmm_dist.encode.raw_rows import raw_batch
from dpgmm_dist.encode.registry import find_encoder
from dpgmm_dist.errors import SpecError

IMAGE = (8, 8, 1)


class Mean:
    """An encoder that is not row-wise: each embedding depends on all rows of the batch."""

    name, digest = "mean", "0" * 64

    def __call__(self, batch: Any) -> np.ndarray:
        rows = np.asarray(batch, dtype=np.float64).reshape(len(batch), -1)
        return rows[:, :2] + 1e-3 * rows.mean()


class Gemm:
    """A floating-point product, whose last bits may depend on the batch."""

    name, digest = "gemm", "0" * 64
    matrix = np.random.default_rng(0).normal(size=(64, 5))

    def __call__(self, batch: Any) -> np.ndarray:
        return np.asarray(batch, dtype=np.float64).reshape(len(batch), -1) @ self.matrix


def lengths(batch: Any) -> np.ndarray:
    return np.array([[len(text), text.count("e")] for text in batch], dtype=np.float32)


def projection_file(path: Path, d: int = 64, p: int = 3) -> Path:
    rng = np.random.default_rng(1)
    np.savez(path, matrix=rng.normal(size=(d, p)), mean=rng.normal(size=d))
    return path


@pytest.mark.parametrize("text", ["pixels", "scattering", "projection"])
@pytest.mark.parametrize("unit_norm", [False, True])
def test_built_in_encoders_keep_every_bit_of_a_row_in_any_company(
    text: str, unit_norm: bool, tmp_path: Path
) -> None:
    if text == "projection":
        text = f"projection:{projection_file(tmp_path / 'p.npz')}"
    encoder = find_encoder(text, IMAGE)
    assert isinstance(encoder, Encoder) and len(encoder.digest) == 64
    d = Pipeline(encoder, IMAGE, 16, unit_norm=unit_norm).width
    projection = Projection(np.random.default_rng(2).normal(size=(d, 4)), np.ones(d))
    pipeline = Pipeline(encoder, IMAGE, 16, projection, unit_norm)
    assert rows_are_independent(pipeline)
    rows = probe_rows(IMAGE, 50, np.random.default_rng(5))
    whole = pipeline.embed(rows)
    assert whole.shape == (50, 4) and whole.dtype == np.float32
    for start, stop in ((0, 1), (3, 20), (49, 50), (7, 7)):
        assert pipeline.embed(rows[start:stop]).tobytes() == whole[start:stop].tobytes()
    if unit_norm:
        np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, rtol=1e-6)


def test_an_encoder_that_mixes_rows_is_found_out_unless_rows_are_alone() -> None:
    assert not rows_are_independent(Pipeline(Mean(), IMAGE, 16))
    assert rows_are_independent(Pipeline(Mean(), IMAGE, 1))
    assert isinstance(rows_are_independent(Pipeline(Gemm(), IMAGE, 16)), bool)


def test_texts_that_share_a_batch_are_tested_though_their_lengths_differ() -> None:
    class Padded:
        name, digest = "padded", "c" * 64

        def __init__(self, mixing: float) -> None:
            self.mixing = mixing

        def groups(self, rows: list[str]) -> np.ndarray:
            return np.array([len(text.split()) for text in rows])

        def __call__(self, batch: list[str]) -> np.ndarray:
            rows = np.array([[len(text), text.find("now")] for text in batch], float)
            return rows + self.mixing * rows.mean(axis=0)

    assert rows_are_independent(Pipeline(Padded(0), (), 8))
    assert not rows_are_independent(Pipeline(Padded(1e-3), (), 8))


def test_batches_have_one_shape_and_padding_is_removed() -> None:
    sizes: list[int] = []

    class Recording(Gemm):
        def __call__(self, batch: Any) -> np.ndarray:
            sizes.append(len(batch))
            return super().__call__(batch)

    pipeline = Pipeline(Recording(), IMAGE, 16)
    embeddings = pipeline.embed(probe_rows(IMAGE, 35, np.random.default_rng(0)))
    assert set(sizes) == {16} and len(embeddings) == 35
    assert pipeline.embed(probe_rows(IMAGE, 0, np.random.default_rng(0))).shape == (0, 5)


@pytest.mark.parametrize(
    "output", [np.zeros((4, 2), int), np.zeros((3, 2)), np.zeros(4), np.zeros((4, 2), object)]
)
def test_an_encoder_with_a_wrong_output_is_refused(output: np.ndarray) -> None:
    class Wrong(Gemm):
        def __call__(self, batch: Any) -> np.ndarray:
            return output

    with pytest.raises(SpecError, match=r"must give floats of shape \(4, d\)"):
        Pipeline(Wrong(), IMAGE, 4).embed(probe_rows(IMAGE, 3, np.random.default_rng(0)))


@given(
    rows=st.integers(1, 5), d=st.integers(1, 40), p=st.integers(1, 6), power=st.integers(-30, 30)
)
def test_the_rowwise_product_is_accurate_and_depends_on_its_row_alone(
    rows: int, d: int, p: int, power: int
) -> None:
    rng = np.random.default_rng(rows * d)
    x = rng.normal(size=(rows, d)) * 2.0 ** rng.integers(-power % 20, 20, (rows, 1))
    matrix = rng.normal(size=(d, p)) * 2.0**power
    product = rowwise_product(x, matrix)
    scale = np.abs(x).max(axis=1, keepdims=True) * np.abs(matrix).max() * d
    assert (np.abs(product - x @ matrix) <= 2.0**-19 * scale).all()
    for i in range(rows):
        assert product[i : i + 1].tobytes() == rowwise_product(x[i : i + 1], matrix).tobytes()


def test_a_row_that_is_not_finite_does_not_affect_others() -> None:
    rows = np.ones((3, 2))
    rows[1] = np.inf
    product = rowwise_product(rows, np.eye(2))
    assert product[[0, 2]].tolist() == [[1, 1], [1, 1]] and np.isnan(product[1]).all()


def test_projections_and_their_inverse(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(6, 3)))[0]
    projection = Projection(basis, rng.normal(size=6))
    loaded = Projection.from_bytes(projection.to_bytes(), "saved.npz")
    rows = rng.normal(size=(4, 3)) @ basis.T + projection.mean
    np.testing.assert_allclose(loaded.backward(loaded.forward(rows)), rows, atol=1e-5)
    np.savez(tmp_path / "none.npz", other=np.eye(2))
    with pytest.raises(SpecError, match="not a projection"):
        Projection.from_bytes((tmp_path / "none.npz").read_bytes(), "none.npz")
    np.savez(tmp_path / "bad.npz", matrix=np.eye(2), mean=np.zeros(3))
    with pytest.raises(SpecError, match=r"matrix must be \(d, p\)"):
        Projection.from_bytes((tmp_path / "bad.npz").read_bytes(), "bad.npz")
    np.savez(tmp_path / "object.npz", matrix=np.array([{}]))
    with pytest.raises(SpecError, match="not a projection"):
        Projection.from_bytes((tmp_path / "object.npz").read_bytes(), "object.npz")
    with pytest.raises(SpecError, match="of 6 numbers, but the rows have 5"):
        projection.forward(np.zeros((2, 5)))


def test_axes_of_drawn_shapes_are_orthonormal_and_repeatable() -> None:
    pipeline = Pipeline(find_encoder("pixels", IMAGE), IMAGE, 64)
    axes = principal_axes(pipeline.embed, IMAGE, 10)
    np.testing.assert_allclose(axes.matrix.T @ axes.matrix, np.eye(10), atol=1e-4)
    assert principal_axes(pipeline.embed, IMAGE, 10).to_bytes() == axes.to_bytes()
    assert drawn_pictures(IMAGE, 20).std() > 10
    with pytest.raises(SpecError, match="gives 64 features"):
        principal_axes(pipeline.embed, IMAGE, 65)
    with pytest.raises(SpecError, match="for images"):
        principal_axes(pipeline.embed, (3,), 2)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_encoders.py").write_text(
        "import numpy as np\n"
        "def lengths(batch):\n    return np.array([[len(t)] for t in batch], dtype='f4')\n"
        "class Lengths:\n    name = 'text lengths'\n    digest = 'a' * 64\n"
        "    def __call__(self, batch):\n        return lengths(batch)\n"
        "def make():\n    return Lengths()\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("my_encoders", None)
    return "my_encoders"


def test_python_entry_points(module: str) -> None:
    plain = find_encoder(f"{module}:lengths", ())
    assert plain(["abc", ""]).tolist() == [[3], [0]] and plain.name == "my_encoders:lengths"
    assert len(plain.digest) == 64 and plain.digest != find_encoder(f"{module}:Lengths", ()).digest
    for name in ("Lengths", "make"):
        assert find_encoder(f"{module}:{name}", ()).name == "text lengths"
    assert rows_are_independent(Pipeline(plain, (), 8))
    for text, message in (
        (f"{module}:number", "is not a function"),
        (f"{module}:absent", "has no absent"),
        ("no_such_module_here:x", "cannot import"),
        ("pixel", "use pixels, scattering"),
        ("projection:none.npz", "cannot read none.npz"),
    ):
        with pytest.raises(SpecError, match=message):
            find_encoder(text, ())


def test_onnx_models(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    matrix = np.random.default_rng(0).normal(size=(64, 5))
    path = tmp_path / "tiny.onnx"
    path.write_bytes(linear(matrix, ("n", 1, 8, 8)))
    encoder = find_encoder(f"onnx:{path}", IMAGE)
    assert encoder.name == "onnx:tiny.onnx"
    rows = probe_rows(IMAGE, 10, np.random.default_rng(0))
    pipeline = Pipeline(encoder, IMAGE, 16)
    expected = np.asarray(rows).reshape(10, -1) / 255 @ matrix
    np.testing.assert_allclose(pipeline.embed(rows), expected, rtol=1e-4, atol=1e-4)
    assert rows_are_independent(pipeline)
    path.write_bytes(b"not a model")
    from dpgmm_dist.encode import protocol

    protocol.file_bytes.cache_clear()
    with pytest.raises(SpecError, match="not an ONNX model"):
        find_encoder(f"onnx:{path}", IMAGE)
    with pytest.raises(SpecError, match="check --shape"):
        encoder(np.zeros((2, 9, 9, 1), np.uint8))
    with pytest.raises(SpecError, match="takes no tokens"):
        encoder(["text"])


def test_onnx_models_of_pictures_read_the_configuration_beside_them(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "onnx").mkdir()
    matrix = np.random.default_rng(0).normal(size=(3 * 4 * 4, 5))
    path = tmp_path / "onnx" / "model.onnx"
    path.write_bytes(linear(matrix, ("n", 3, 4, 4)))
    settings = {"size": {"shortest_edge": 6}, "crop_size": 4, "do_center_crop": True}
    settings |= {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.5], "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    encoder = find_encoder(f"onnx:{path}", ())
    pixels = np.random.default_rng(1).integers(0, 256, (9, 6, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    rows, readable = raw_batch(pa.array([out.getvalue(), None]), (4, 4, 3), encoder.picture)
    assert readable.tolist() == [True, False]
    cut = pixels[2:6, 1:5] / 255  # 9 x 6 already has the shorter side of 6
    expected = ((cut - [0.5, 0.4, 0.3]) / [0.2, 0.2, 0.5]).transpose(2, 0, 1).ravel() @ matrix
    np.testing.assert_allclose(Pipeline(encoder, (4, 4, 3), 4).embed(rows)[0], expected, atol=1e-4)
    turned = find_encoder(f"onnx:{path}", (), EncoderOptions(channels="bgr"))
    assert turned.digest != encoder.digest and turned.picture != encoder.picture
    assert rows_are_independent(Pipeline(turned, (4, 4, 3), 8))


def test_onnx_models_of_texts(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "parcel", "arrives", "now"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    path = tmp_path / "model.onnx"
    table = np.random.default_rng(0).normal(size=(len(words), 4))
    path.write_bytes(lookup(table))
    with pytest.raises(SpecError, match=r"no tokenizer\.json beside it"):
        find_encoder(f"onnx:{path}", ())
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    mean = find_encoder(f"onnx:{path}", ())
    texts = ["the parcel arrives now", "now", "", "the the the the the the"]
    pipeline = Pipeline(mean, (), 4)
    rows = [[2, 4, 5, 6, 7, 3], [2, 7, 3], [2, 3], [2, 4, 4, 4, 4, 4, 4, 3]]
    expected = np.array([table[row].mean(axis=0) for row in rows])
    np.testing.assert_allclose(pipeline.embed(texts), expected, atol=1e-6)
    assert rows_are_independent(pipeline)
    encode = find_encoder(f"onnx:{path}", (), EncoderOptions(pooling="first", max_tokens=4))
    np.testing.assert_allclose(encode(texts), np.tile(table[2], (4, 1)), atol=1e-6)
    assert encode.digest != mean.digest
    with pytest.raises(SpecError, match="--resize does nothing"):
        find_encoder(f"onnx:{path}", (), EncoderOptions(resize="4"))
    with pytest.raises(SpecError, match="takes text, not pictures"):
        Pipeline(mean, IMAGE, 4).embed(probe_rows(IMAGE, 1, np.random.default_rng(0)))


def test_options_of_models_are_refused_elsewhere() -> None:
    with pytest.raises(SpecError, match="--pooling does nothing with pixels"):
        find_encoder("pixels", IMAGE, EncoderOptions(pooling="mean"))


def test_onnx_without_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(SpecError, match=r"dpgmm-dist\[encode\]"):
        find_encoder(f"onnx:{tmp_path / 'a.onnx'}", IMAGE)


def test_shapes() -> None:
    assert parse_shape("28x28") == (28, 28, 1) and parse_shape("32X16x3") == (32, 16, 3)
    assert parse_shape(None) == ()
    for text in ("28", "0x5", "axb", "5x5x2"):
        with pytest.raises(SpecError, match="--shape"):
            parse_shape(text)
