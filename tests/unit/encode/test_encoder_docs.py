"""The commands of docs/encoders.md, on small models and files of the names that it shows."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import onnx_models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from dpgmm_dist.cli import main as cli

pytest.importorskip("onnxruntime")
tokenizers = pytest.importorskip("tokenizers")
Image = pytest.importorskip("PIL.Image")

PAGE = Path(__file__).parents[3] / "docs" / "encoders.md"
ROWS, WIDTH = 40, 6
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "card", "lost", "refund", "late", "parcel"]


def commands() -> list[list[str]]:
    """The commands of the page, without ``dpgmm``."""
    lines = re.findall(r"^\$ dpgmm (.*)$", PAGE.read_text(), re.MULTILINE)
    return [shlex.split(line) for line in lines]


def vectors(rows: int, seed: int) -> pa.Array:
    values = np.random.default_rng(seed).normal(size=(rows, WIDTH)).astype("f4")
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), WIDTH)


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()


def write_models(folder: Path) -> None:
    """Folders ``dinov2`` and ``minilm`` as they are exported, with models of a few weights."""
    rng = np.random.default_rng(0)
    (folder / "dinov2" / "onnx").mkdir(parents=True)
    picture = onnx_models.linear(rng.normal(size=(3 * 8 * 8, WIDTH)), ("n", 3, 8, 8))
    (folder / "dinov2" / "onnx" / "model.onnx").write_bytes(picture)
    settings = {"size": {"height": 8, "width": 8}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "dinov2" / "preprocessor_config.json").write_text(json.dumps(settings))
    (folder / "minilm" / "onnx").mkdir(parents=True)
    text = onnx_models.lookup(rng.normal(size=(len(WORDS), WIDTH)))
    (folder / "minilm" / "onnx" / "model.onnx").write_bytes(text)
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "minilm" / "tokenizer.json"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the page names."""
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(WORDS[4:], rng.integers(1, 5))) for _ in range(ROWS)]
    label = pa.array(np.arange(ROWS) % 2)
    files = [png(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)) for _ in range(ROWS)]
    pq.write_table(pa.table({"image": pa.array(files)}), tmp_path / "photos.parquet")
    pq.write_table(pa.table({"text": texts}), tmp_path / "mails.parquet")
    pq.write_table(pa.table({"text": texts, "label": label}), tmp_path / "public.parquet")
    pictures = [png(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(ROWS)]
    public = {"embedding": vectors(ROWS, 2), "picture": pa.array(pictures)}
    pq.write_table(pa.table(public), tmp_path / "public-pictures")
    synthetic = {"embedding": vectors(ROWS, 3), "label": label}
    pq.write_table(pa.table(synthetic), tmp_path / "synthetic")
    write_models(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_of_the_page_run(folder: Path) -> None:
    ran = set()
    for number, arguments in enumerate(commands()):
        encoder = next((a for a in arguments if a.startswith("timm:")), None)
        if encoder or arguments[0] not in ("encode", "decode"):
            continue  # its weights are not here; and evaluate and report have tests of their own
        output = arguments.index("--output") + 1
        name = arguments[output]
        ran.add(f"{arguments[0]} {name}")
        if name != "public":  # read by a later command
            arguments[output] = f"{name}-{number}"
        done = CliRunner().invoke(cli.app, arguments)
        assert done.exit_code == 0, (arguments, done.output)
    assert ran == {
        "encode embeddings",
        "encode public",
        "decode texts",
        "decode pictures",
    }
    names = pq.read_schema(next((folder / "public").glob("part-*.parquet"))).names
    assert set(names) == {"text", "label", "embedding"}
    assert (folder / "decoder.npz").stat().st_size > 1000


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_without_its_library_an_encoder_of_the_page_says_what_to_install(folder: Path) -> None:
    [arguments] = [c for c in commands() if any(a.startswith("timm:") for a in c)]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 2
    assert "pip install 'dpgmm-dist[torch]'" in done.output
