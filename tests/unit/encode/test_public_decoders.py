"""The decoders ``nearest:`` and ``fit:``, which use public items."""

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

from dpgmm_dist.cli import main as cli
from dpgmm_dist.encode.decode_job import write_images
from dpgmm_dist.encode.decoder_recipe import DecodeOptions
from dpgmm_dist.encode.learned import LearnedDecoder
from dpgmm_dist.encode.neighbours import Search, assign, nearest
from dpgmm_dist.encode.public_items import PublicColumns
from dpgmm_dist.errors import DataError, SpecError


def vectors(rows: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.astype("f4").ravel()), rows.shape[1])


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Public texts, and synthetic rows each very near to one of them, in two files."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 6))
    label = [i % 3 for i in range(30)]
    table = {"text": [f"item {i}" for i in range(30)], "topic": label, "embedding": vectors(X)}
    public = pa.table(table).append_column("n", pa.array(range(30)))
    missing = pa.table({**table, "text": pa.array([None] * 30, pa.string())}).append_column(
        "n", pa.array(range(30))
    )
    pq.write_table(pa.concat_tables([public, missing]), tmp_path / "public.parquet")
    (tmp_path / "rows").mkdir()
    for file, chosen in enumerate(([3, 3, 4], [3, 8])):
        table = {"x": vectors(X[chosen] + 1e-3), "topic": [label[i] for i in chosen]}
        pq.write_table(pa.table(table), tmp_path / "rows" / f"part-{file:05d}.parquet")
    return tmp_path


def decoded(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(p) for p in sorted(folder.glob("part-*.parquet"))])


def test_text_comes_back_as_the_nearest_public_text(texts: Path) -> None:
    done = write_images(
        str(texts / "rows"), str(texts / "out"), decoder=f"nearest:{texts / 'public.parquet'}"
    )
    table = decoded(texts / "out")
    assert table.column_names == ["topic", "text", "public_row"]
    assert table["text"].to_pylist() == ["item 3", "item 3", "item 4", "item 3", "item 8"]
    assert table["public_row"].to_pylist() == [3, 3, 4, 3, 8]
    assert done["decoder"] == "nearest:public.parquet" and done["contact_sheets"] == ["contact.txt"]
    page = (texts / "out" / "contact.txt").read_text()
    assert page.startswith("== 0\nitem 3\nitem 3\nitem 3\n== 1\nitem 4\n")
    assert (texts / "out" / "map.png").read_bytes().startswith(b"\x89PNG")


def test_each_item_is_used_at_most_so_often_over_all_files(texts: Path) -> None:
    def run(name: str, **options: Any) -> list[int]:
        write_images(
            str(texts / "rows"),
            str(texts / name),
            decoder=f"nearest:{texts / 'public.parquet'}",
            options=DecodeOptions(**options),
        )
        return decoded(texts / name)["public_row"].to_pylist()

    once = run("once", repeat=1)
    assert len(set(once)) == 5 and once[0] == 3 and once[2] == 4 and once[4] == 8
    assert run("twice", repeat=2)[:3] == [3, 3, 4]
    same_topic = run("topic", repeat=1, public=PublicColumns(label="topic"))
    assert [i % 3 for i in same_topic] == [0, 0, 1, 0, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": DecodeOptions(repeat=0)}, "--repeat must be"),
        ({"shape": "4x4"}, "holds text: leave --shape out"),
        ({"form": "png"}, "--format png is for pictures"),
        ({"options": DecodeOptions(public=PublicColumns(item="no"))}, "no column 'no'"),
        ({"options": DecodeOptions(save_decoder="x")}, "--save-decoder is for"),
        ({"decoder": "pixels", "options": DecodeOptions(repeat=1)}, "--repeat is for"),
        ({"decoder": "pixels"}, "needs the shape"),
        ({"decoder": "fit:PUBLIC"}, "public items are texts"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_written(
    texts: Path, changes: dict[str, Any], message: str
) -> None:
    public = str(texts / "public.parquet")
    changes = {"decoder": "nearest:PUBLIC"} | changes
    changes["decoder"] = changes["decoder"].replace("PUBLIC", public)
    with pytest.raises((SpecError, DataError), match=message):
        write_images(str(texts / "rows"), str(texts / "out"), **changes)
    assert not (texts / "out").exists()


def test_too_few_items_and_other_widths_are_refused(texts: Path) -> None:
    items = np.eye(3, dtype="f4")
    assert sorted(assign(items, np.zeros((6, 3)), 2).tolist()) == [0, 0, 1, 1, 2, 2]
    pq.write_table(pa.table({"text": ["a"], "e": vectors(np.ones((1, 6)))}), texts / "one.parquet")
    for public, message in (("one", "raise --repeat to 5"), ("wide", "have 5 numbers")):
        if public == "wide":
            table = pa.table({"text": ["a"], "e": vectors(np.ones((1, 5)))})
            pq.write_table(table, texts / "wide.parquet")
        with pytest.raises(SpecError, match=message):
            write_images(
                str(texts / "rows"),
                str(texts / "out"),
                decoder=f"nearest:{texts / public}.parquet",
                options=DecodeOptions(repeat=1),
            )


def test_the_search_by_cells_finds_nearly_all_neighbours() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, 16))
    items = (centres[rng.integers(0, 60, 6000)] + 0.3 * rng.normal(size=(6000, 16))).astype("f4")
    rows = centres[rng.integers(0, 60, 300)] + 0.3 * rng.normal(size=(300, 16))
    exact = nearest(rows, items.astype(float), 3)[1]
    assert (Search(items).nearest(rows, 3) == exact).mean() > 0.999
    near = Search(items, exact=100).nearest(rows, 3)
    assert (near[:, 0] == exact[:, 0]).mean() > 0.97
    assert (near >= 0).all() and all(len(set(row)) == 3 for row in near.tolist())


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, 6, 8, 3) that are nearly linear in embeddings (n, 5)."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(count, 5))
    coarse = np.random.default_rng(9).normal(size=(5, 2, 2, 3))
    basis = coarse.repeat(3, axis=1).repeat(4, axis=2).reshape(5, 144)
    pixels = 127 + 18 * X @ basis + rng.normal(size=(count, 144))
    return X, np.clip(np.rint(pixels), 0, 255).astype(np.uint8).reshape(count, 6, 8, 3)


def write_pictures(path: Path, count: int, *, files: bool) -> None:
    X, images = pictures(count, 1)
    if files:
        out = [io.BytesIO() for _ in images]
        for image, file in zip(images, out, strict=True):
            Image.fromarray(image).save(file, format="PNG")
        column: Any = pa.array([{"bytes": file.getvalue(), "path": "x"} for file in out])
    else:
        column = pa.FixedSizeListArray.from_arrays(pa.array(images.ravel()), 144)
    pq.write_table(pa.table({"picture": column, "embedding": vectors(X)}), path)


@pytest.mark.parametrize("files", [True, False])
def test_a_ridge_is_learned_from_public_pictures_kept_and_used_again(
    tmp_path: Path, files: bool
) -> None:
    write_pictures(tmp_path / "public.parquet", 300, files=files)
    X, images = pictures(40, 2)
    (tmp_path / "rows").mkdir()
    pq.write_table(pa.table({"x": vectors(X)}), tmp_path / "rows" / "part-00000.parquet")
    write_images(
        str(tmp_path / "rows"),
        str(tmp_path / "out"),
        decoder=f"fit:{tmp_path / 'public.parquet'}",
        shape="6x8x3",
        options=DecodeOptions(save_decoder=str(tmp_path / "kept.npz")),
    )
    found = np.array(decoded(tmp_path / "out")["image"].to_pylist())
    error = np.abs(found - images.reshape(40, -1).astype(int)).mean()
    assert error < 2 < 10 < np.abs(images - images.mean(axis=0)).mean()
    options = ["--decoder", f"learned:{tmp_path / 'kept.npz'}", "--output", str(tmp_path / "again")]
    done = CliRunner().invoke(cli.app, ["decode", str(tmp_path / "rows"), *options, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["decoder"] == "learned:kept.npz"
    assert decoded(tmp_path / "again") == decoded(tmp_path / "out")
    with pytest.raises(SpecError, match="gives pictures of the shape"):
        write_images(
            str(tmp_path / "rows"),
            str(tmp_path / "no"),
            decoder=f"learned:{tmp_path / 'kept.npz'}",
            shape="8x6x3",
        )


def test_public_pictures_come_back_as_they_are(tmp_path: Path) -> None:
    write_pictures(tmp_path / "public.parquet", 20, files=True)
    X, images = pictures(20, 1)
    (tmp_path / "rows").mkdir()
    pq.write_table(pa.table({"x": vectors(X[[7, 2]])}), tmp_path / "rows" / "part-00000.parquet")
    write_images(
        str(tmp_path / "rows"),
        str(tmp_path / "out"),
        decoder=f"nearest:{tmp_path / 'public.parquet'}",
        shape="6x8x3",
    )
    found = np.array(decoded(tmp_path / "out")["image"].to_pylist(), np.uint8)
    assert (found == images[[7, 2]].reshape(2, -1)).all()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_network_is_learned_where_torch_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from dpgmm_dist.encode.learned import learn
    from dpgmm_dist.encode.public_items import read_public_items

    write_pictures(tmp_path / "public.parquet", 300, files=False)
    items = read_public_items(str(tmp_path / "public.parquet"), PublicColumns(), (6, 8, 3))
    decoder = learn(items, "network")
    X, images = pictures(40, 2)
    loaded = LearnedDecoder.from_bytes(decoder.to_bytes(), "kept")
    found = loaded(X) * 255
    flat = images.reshape(40, -1)
    assert np.abs(found - flat).mean() < 0.6 * np.abs(flat - flat.mean(axis=0)).mean()
    assert (found == decoder(X) * 255).all()


def test_a_network_without_torch_and_files_that_are_no_decoders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from dpgmm_dist.encode.learned import learn
    from dpgmm_dist.encode.public_items import read_public_items

    write_pictures(tmp_path / "public.parquet", 20, files=False)
    items = read_public_items(str(tmp_path / "public.parquet"), PublicColumns(), (6, 8, 3))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SpecError, match=r"dpgmm-dist\[torch\]"):
        learn(items, "network")
    with pytest.raises(SpecError, match="must be ridge or network"):
        learn(items, "forest")
    with pytest.raises(SpecError, match="x is not a decoder"):
        LearnedDecoder.from_bytes(b"nothing", "x")
