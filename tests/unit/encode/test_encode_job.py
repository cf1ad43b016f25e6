from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from dpgmm_dist import ReleaseSpec, release
from dpgmm_dist.cli import main as cli
from dpgmm_dist.data.provenance import FOR_EMBEDDINGS, FOR_RAW_ROWS, METADATA_KEY, from_metadata
from dpgmm_dist.encode.job import COLUMN, write_embeddings
from dpgmm_dist.engine.local import LocalEngine
from dpgmm_dist.engine.tasks import for_each_on
from dpgmm_dist.errors import DataError, SpecError

SHAPE = (8, 8)


def images(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, 64), dtype=np.uint8)


def write_pixels(folder: Path, rows: int = 50, group: int = 20) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = images(rows)
    column = pa.FixedSizeListArray.from_arrays(pa.array(pixels.ravel()), 64)
    table = pa.table(
        {"pixels": column, "label": np.arange(rows) % 3, "id": [f"r{i}" for i in range(rows)]}
    )
    pq.write_table(table, folder / "a.parquet", row_group_size=group)
    return pixels


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()


def read(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(p) for p in sorted(folder.glob("part-*.parquet"))])


def encode(folder: Path, output: Path, **changes: Any) -> pa.Table:
    arguments = {"encoder": "pixels", "column": "pixels", "shape": "8x8"} | changes
    write_embeddings(str(folder), str(output), **arguments)
    return read(output)


def test_embeddings_keep_the_order_and_the_other_columns(tmp_path: Path) -> None:
    pixels = write_pixels(tmp_path / "raw")
    table = encode(tmp_path / "raw", tmp_path / "out")
    assert table.column_names == ["label", "id", COLUMN]
    assert table["id"].to_pylist() == [f"r{i}" for i in range(50)]
    np.testing.assert_allclose(np.array(table[COLUMN].to_pylist()), pixels / 255, atol=1e-7)
    labelled = encode(tmp_path / "raw", tmp_path / "labelled", keep=("label",))
    assert labelled.column_names == ["label", COLUMN]


def test_pieces_and_engines_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pixels(tmp_path / "raw")
    recipe = {"encoder": "scattering", "unit_norm": True}
    axes = str(tmp_path / "axes.npz")
    whole = encode(tmp_path / "raw", tmp_path / "whole", axes=8, save_projection=axes, **recipe)
    recipe["projection"] = axes
    monkeypatch.setattr("dpgmm_dist.encode.job._PIECE_ROWS", 10)
    threads = for_each_on(LocalEngine(threads=2))
    pieces = encode(tmp_path / "raw", tmp_path / "pieces", for_each=threads, batch=7, **recipe)
    assert len(list((tmp_path / "pieces").iterdir())) == 5  # two of each large row group
    assert pieces == whole
    norms = np.linalg.norm(np.array(whole[COLUMN].to_pylist()), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-6)


def test_a_saved_projection_encodes_other_rows_and_decodes(tmp_path: Path) -> None:
    from dpgmm_dist.encode.decode_job import write_images

    pixels = write_pixels(tmp_path / "raw", rows=30)
    path = str(tmp_path / "axes.npz")
    first = encode(tmp_path / "raw", tmp_path / "a", axes=64, save_projection=path)
    again = encode(tmp_path / "raw", tmp_path / "b", projection=path)
    assert first == again
    write_images(
        str(tmp_path / "b"),
        str(tmp_path / "images"),
        decoder=f"projection:{path}",
        shape="8x8",
        column=COLUMN,
        label="label",
    )
    decoded = np.array(read(tmp_path / "images")["image"].to_pylist())
    assert np.abs(decoded.astype(int) - pixels).max() <= 2  # with all 64 axes nothing is lost
    with pytest.raises(SpecError, match="give --project N"):
        encode(tmp_path / "raw", tmp_path / "c", save_projection=path)


def test_unreadable_pictures_silently_become_null(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pixels = images(4).reshape(4, 8, 8)
    large = Image.fromarray(pixels[2]).resize((16, 16), Image.Resampling.NEAREST)
    data = [png(pixels[0]), b"broken", None, png(np.asarray(large)), png(pixels[1])[:40]]
    (tmp_path / "raw").mkdir()
    for name, column in (
        ("bytes", pa.array(data, pa.binary())),
        ("struct", pa.array([{"bytes": d, "path": "x"} for d in data])),
    ):
        pq.write_table(pa.table({"picture": column}), tmp_path / "raw" / f"{name}.parquet")
    table = encode(tmp_path / "raw", tmp_path / "out", column="picture")
    rows = table[COLUMN].to_pylist()
    assert [row is None for row in rows] == 2 * [False, True, True, False, True]
    np.testing.assert_allclose(rows[0], pixels[0].ravel() / 255, atol=1e-7)
    assert np.abs(np.array(rows[3]) - pixels[2].ravel() / 255).max() < 0.35  # scaled to 8x8 again
    assert rows[:5] == rows[5:]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_text_that_is_no_utf8_silently_becomes_null(
    kind: pa.DataType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    raw = pa.binary() if kind == pa.string() else pa.large_binary()
    text = pa.array([b"ab", b"a\xff", None, b""], raw).view(kind)
    (tmp_path / "raw").mkdir()
    pq.write_table(pa.table({"text": text}), tmp_path / "raw" / "a.parquet")
    name = f"{__name__}:text_lengths"
    table = encode(tmp_path / "raw", tmp_path / "out", encoder=name, column="text", shape=None)
    assert table[COLUMN].to_pylist() == [[2.0, 1.0], None, None, [0.0, 1.0]]
    assert capfd.readouterr() == ("", "")


def text_lengths(batch: list[str]) -> np.ndarray:
    return np.array([[len(text), 1] for text in batch], dtype=np.float32)


def test_text_and_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw").mkdir()
    table = pa.table(
        {
            "text": ["ab", None, ""],
            "v": pa.array([[1.0, 2], [np.inf, 0], [3, 4]], pa.list_(pa.float32(), 2)),
        }
    )
    pq.write_table(table, tmp_path / "raw" / "a.parquet")
    (tmp_path / "my_text_encoder.py").write_text(
        "import numpy as np\n"
        "def lengths(batch):\n    return np.array([[len(t), 1] for t in batch], dtype='f8')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    encoded = encode(
        tmp_path / "raw",
        tmp_path / "out",
        encoder="my_text_encoder:lengths",
        column="text",
        shape=None,
        keep=(),
    )
    assert encoded[COLUMN].to_pylist() == [[2, 1], None, [0, 1]]
    np.savez(tmp_path / "p.npz", matrix=np.array([[1.0], [10.0]]))
    encoded = encode(
        tmp_path / "raw",
        tmp_path / "v",
        encoder=f"projection:{tmp_path / 'p.npz'}",
        column="v",
        shape=None,
    )
    assert encoded[COLUMN].to_pylist() == [[21], None, [43]]


def test_a_partition_key_is_kept_as_a_column(tmp_path: Path) -> None:
    write_pixels(tmp_path / "raw" / "kind=cat")
    write_pixels(tmp_path / "raw" / "kind=dog")
    table = encode(tmp_path / "raw", tmp_path / "out", keep=("kind",))
    assert table["kind"].to_pylist() == ["cat"] * 50 + ["dog"] * 50


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"column": "nope"}, DataError, "no column 'nope'; it has pixels, label, id"),
        ({"keep": ("nope",)}, DataError, "no column 'nope'"),
        ({"shape": "9x9"}, SpecError, "has 64 pixels a row"),
        ({"column": "label"}, DataError, "encode takes text, pictures"),
        ({"column": "id", "shape": "8x8"}, SpecError, "leave --shape out"),
        ({"batch": 0}, SpecError, "--batch must be"),
        ({"encoder": "scattering", "shape": None}, SpecError, "needs images"),
        ({"axes": 3, "projection": "x.npz"}, SpecError, "at most one of"),
    ],
)
def test_wrong_arguments_are_reported_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    write_pixels(tmp_path / "raw")
    with pytest.raises(error, match=message):
        encode(tmp_path / "raw", tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_errors_about_rows_quote_no_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pixels(tmp_path / "raw")

    def quote(*_: Any) -> None:
        raise RuntimeError("pixel 17 is 3.25")

    monkeypatch.setattr("dpgmm_dist.encode.job.raw_batch", quote)
    with pytest.raises(DataError, match=r"cannot encode .*RuntimeError") as caught:
        encode(tmp_path / "raw", tmp_path / "out")
    assert "3.25" not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert list((tmp_path / "out").iterdir()) == []


class Mixing:
    name, digest = "mixing", "b" * 64

    def __call__(self, batch: Any) -> np.ndarray:
        rows = np.asarray(batch, dtype=np.float64).reshape(len(batch), -1)
        return rows[:, :4] / 600 + 1e-3 * rows.mean()


@pytest.mark.parametrize(
    ("encoder", "batch", "guarantee"),
    [("pixels", 64, FOR_RAW_ROWS), ("mix:Mixing", 64, FOR_EMBEDDINGS), ("mix:Mixing", 1, None)],
)
def test_the_receipt_names_the_encoder_and_the_rows_that_the_guarantee_covers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str, batch: int, guarantee: str | None
) -> None:
    import sys
    from types import ModuleType

    module = ModuleType("mix")
    vars(module).update(Mixing=Mixing)
    monkeypatch.setitem(sys.modules, "mix", module)
    write_pixels(tmp_path / "raw")
    encode(tmp_path / "raw", tmp_path / "emb", encoder=encoder, batch=batch, keep=("label",))
    spec = ReleaseSpec.from_dict(
        {
            "dataset": {"path": str(tmp_path / "emb"), "features": COLUMN},
            "bounds": {"norm": 8.0},
            "privacy": {"epsilon": 1.0, "delta": 1e-6},
            "model": {"components": 1, "dimension": 2},
        }
    )
    release(spec, output=str(tmp_path / "release"), insecure_test_noise=1)
    note = json.loads((tmp_path / "release" / "receipt.json").read_text())["input"]["encoder"]
    assert note["name"] == {"pixels": "pixels", "mix:Mixing": "mixing"}[encoder]
    assert len(note["digest"]) == 64 and note["batch"] == batch
    assert note["guarantee"] == guarantee or (
        guarantee is None and "of its own" in note["guarantee"]
    )
    done = CliRunner().invoke(cli.app, ["show", str(tmp_path / "release")])
    assert done.exit_code == 0 and note["name"] in done.stdout


def test_metadata_that_encode_did_not_write_is_ignored() -> None:
    key = METADATA_KEY.encode()
    good = {"name": "x", "digest": "a" * 64, "batch": 1, "rows_are_independent": True}
    assert from_metadata({key: json.dumps(good).encode()}) is not None
    assert from_metadata(None) is None and from_metadata({}) is None
    for change in (
        {"name": "row 17 is\n3.25"},
        {"name": "x" * 300},
        {"digest": "zz"},
        {"batch": True},
        {"rows_are_independent": "yes"},
        {"name": 3},
    ):
        assert from_metadata({key: json.dumps(good | change).encode()}) is None
    for data in (b"\xff", b"[1]", b"{}", b"3"):
        assert from_metadata({key: data}) is None


def test_the_command(tmp_path: Path) -> None:
    write_pixels(tmp_path / "raw")
    options = ["--encoder", "pixels", "--column", "pixels", "--shape", "8x8", "--project", "4"]
    output = str(tmp_path / "out")
    done = CliRunner().invoke(
        cli.app, ["encode", str(tmp_path / "raw"), *options, "--unit-norm", "--output", output]
    )
    assert done.exit_code == 0, done.output
    assert "encoder: pixels, projected to 4, unit norm" in done.stdout
    assert "rows are independent: yes" in done.stdout
    assert read(tmp_path / "out")[COLUMN].type == pa.list_(pa.float32(), 4)
