from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx_models import linear
from PIL import Image
from typer.testing import CliRunner

from dpgmm_dist.cli import main as cli
from dpgmm_dist.encode.contact_sheets import contact_sheet, file_name
from dpgmm_dist.encode.decode_job import write_images
from dpgmm_dist.encode.decoders import Decoder, find_decoder, pictures
from dpgmm_dist.encode.projection import Projection
from dpgmm_dist.errors import DataError, SpecError


def write_rows(folder: Path, rows: np.ndarray, **columns: Any) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    pq.write_table(pa.table({"x": column, **columns}), folder / "part-00000.parquet")
    return rows


def pixels(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, 12), dtype=np.uint8)


def open_png(path: Path) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())))


def decode(folder: Path, output: Path, **changes: Any) -> Any:
    arguments = {"decoder": "pixels", "shape": "3x4"} | changes
    return write_images(str(folder), str(output), **arguments)


@pytest.mark.parametrize("kind", ["uint8", "int16", "int64", "float32"])
def test_pixels_are_0_to_255_in_integers_and_0_to_1_in_others(tmp_path: Path, kind: str) -> None:
    images = pixels(6)
    rows = images.astype(kind) if kind != "float32" else (images / 255).astype(kind)
    write_rows(tmp_path / "rows", rows, label=[0, 1, 0, 1, 0, 1])
    decode(tmp_path / "rows", tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "part-00000.parquet")
    assert table.column_names == ["label", "image"]
    assert table["image"].type == pa.list_(pa.uint8(), 12)
    assert np.array(table["image"].to_pylist()).tolist() == images.tolist()


def test_values_out_of_range_are_clipped() -> None:
    decoder = find_decoder("pixels")
    assert isinstance(decoder, Decoder)
    images = pictures(decoder, np.array([[-1.0, 0.5, 2.0, np.nan]]), (2, 2, 1))
    assert images.ravel().tolist() == [0, 128, 255, 0]
    assert pictures(decoder, np.empty((0, 4)), (2, 2, 1)).shape == (0, 2, 2, 1)


def test_a_projection_is_decoded_by_its_linear_inverse(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    projection = Projection(basis, np.full(12, 0.5))
    (tmp_path / "p.npz").write_bytes(projection.to_bytes())
    images = pixels(5)
    rows = projection.forward(images / 255)
    decoded = pictures(find_decoder(f"projection:{tmp_path / 'p.npz'}"), rows, (3, 4, 1))
    assert np.abs(decoded.reshape(5, 12).astype(int) - images).max() <= 1
    with pytest.raises(SpecError, match="has 12 coordinates"):
        pictures(find_decoder(f"projection:{tmp_path / 'p.npz'}"), rows[:, :5], (3, 4, 1))


def test_onnx_and_python_decoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_decoder.py").write_text(
        "import numpy as np\n"
        "def channels_first(rows):\n    return np.stack([rows.reshape(-1, 2, 2)] * 3, axis=1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = np.array([[0.0, 1, 1, 0]])
    images = pictures(find_decoder("my_decoder:channels_first"), rows, (2, 2, 3))
    assert images.tolist() == [[[[0] * 3, [255] * 3], [[255] * 3, [0] * 3]]]
    pytest.importorskip("onnxruntime")
    (tmp_path / "d.onnx").write_bytes(linear(np.eye(4), ("n", 4)))
    images = pictures(find_decoder(f"onnx:{tmp_path / 'd.onnx'}"), rows, (2, 2, 1))
    assert images.ravel().tolist() == [0, 255, 255, 0]


def test_contact_sheets_by_label(tmp_path: Path) -> None:
    rows = np.repeat(np.array([[0], [100], [200]], np.uint8), 12, axis=1)
    order = np.array([2, 0, 1] * 40)
    write_rows(tmp_path / "rows", rows[order], label=[10 * int(i) for i in order])
    done = decode(tmp_path / "rows", tmp_path / "out")
    expected = ["contact.png", "contact-0.png", "contact-10.png", "contact-20.png"]
    assert done["contact_sheets"] == expected
    sheet = open_png(tmp_path / "out" / "contact.png")
    assert sheet.shape == (3 * 4 + 1, 10 * 5 + 1)
    # A row for each label, in numerical order: 0, 10, 20.
    assert [int(sheet[4 * i + 2, 2]) for i in range(3)] == [0, 100, 200]
    assert open_png(tmp_path / "out" / "contact-10.png").shape == (4 * 4 + 1, 51)  # 40 pictures


def test_png_files_in_a_folder_for_each_label(tmp_path: Path) -> None:
    images = write_rows(tmp_path / "rows", pixels(3), label=["a/b", "c", "c"])
    decode(tmp_path / "rows", tmp_path / "out", form="png")
    assert sorted(p.name for p in (tmp_path / "out" / "c").iterdir()) == [
        "00000-0000001.png",
        "00000-0000002.png",
    ]
    first = open_png(tmp_path / "out" / "a_b" / "00000-0000000.png")
    assert first.tolist() == images[0].reshape(3, 4).tolist()


def test_rows_without_labels_and_colour(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows", pixels(2))
    done = decode(tmp_path / "rows", tmp_path / "out", shape="2x2x3")
    assert done["contact_sheets"] == ["contact.png", "contact-all.png"]
    assert open_png(tmp_path / "out" / "contact.png").shape == (4, 7, 3)
    assert contact_sheet([[np.zeros((2, 2, 1), np.uint8)]]).shape == (4, 4, 1)
    assert file_name("../x") == "_x" and file_name("") == "_"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"decoder": "pixel"}, SpecError, "use pixels, projection:PATH"),
        ({"shape": "5x5"}, SpecError, "needs 25: make them agree"),
        ({"form": "gif"}, SpecError, "parquet or png"),
        ({"column": "label"}, DataError, "no fixed-size list column 'label'"),
        ({"label": "nope"}, DataError, "no column 'nope'"),
    ],
)
def test_wrong_arguments_are_reported_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    write_rows(tmp_path / "rows", pixels(4), label=[0, 1, 0, 1])
    with pytest.raises(error, match=message):
        decode(tmp_path / "rows", tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows", pixels(4), label=[0, 1, 0, 1])
    options = ["--decoder", "pixels", "--shape", "3x4", "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.app, ["decode", str(tmp_path / "rows"), *options])
    assert done.exit_code == 0, done.output
    assert "contact sheets: contact.png, contact-0.png, contact-1.png" in done.stdout
