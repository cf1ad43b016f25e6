"""The bundled data set is what its README says, and its script chooses rows by number only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[3]
DEMO_DATA = ROOT / "jobs" / "demo_data"
SLICE = DEMO_DATA / "fashion_scatter128"
SCRIPT = ROOT / "jobs" / "data" / "make_demo_slice.py"

ROWS = {"train": 30_000, "test": 4_000}
FILES = {"train": 4, "test": 1}
FLOAT16_ERROR = 2.0**-11  # relative error of rounding a number to float16


def rows_of(table: pa.Table) -> np.ndarray:
    """Return the ``embedding`` column as float64 (rows, width)."""
    column = table["embedding"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, column.type.list_size).astype(np.float64)


@pytest.fixture(scope="module", params=["train", "test"])
def split(request: pytest.FixtureRequest) -> tuple[str, pa.Table]:
    name: str = request.param
    return name, pq.read_table(SLICE / name)


def test_schema_and_counts(split: tuple[str, pa.Table]) -> None:
    name, table = split
    assert table.schema.field("embedding").type == pa.list_(pa.field("element", pa.float16()), 128)
    assert table.schema.field("label").type == pa.int16()
    assert table.num_rows == ROWS[name]
    assert table["embedding"].null_count == 0
    assert table["embedding"].combine_chunks().flatten().null_count == 0


def test_files_hold_several_row_groups_and_one_schema(split: tuple[str, pa.Table]) -> None:
    name, table = split
    files = sorted((SLICE / name).iterdir())
    assert [file.name for file in files] == [f"part-{i:04d}.parquet" for i in range(FILES[name])]
    for file in files:
        assert pq.read_schema(file) == table.schema
        assert pq.read_metadata(file).num_row_groups > 1


def test_norms_are_one_within_the_rounding(split: tuple[str, pa.Table]) -> None:
    norms = np.linalg.norm(rows_of(split[1]), axis=1)
    assert np.abs(norms - 1.0).max() <= FLOAT16_ERROR + 1e-5


def test_every_label_occurs_about_equally_often(split: tuple[str, pa.Table]) -> None:
    name, table = split
    values, counts = np.unique(table["label"].to_numpy(), return_counts=True)
    assert values.tolist() == list(range(10))
    assert np.abs(counts / ROWS[name] - 0.1).max() < 0.01


def test_labels_belong_to_the_rows() -> None:
    """The nearest label mean of the train rows predicts the label of most test rows."""
    train, test = pq.read_table(SLICE / "train"), pq.read_table(SLICE / "test")
    label = train["label"].to_numpy()
    embedding = rows_of(train)
    means = np.stack([embedding[label == k].mean(axis=0) for k in range(10)])
    scores = rows_of(test) @ means.T - 0.5 * (means**2).sum(axis=1)
    assert (scores.argmax(axis=1) == test["label"].to_numpy()).mean() > 0.65


def test_bundled_data_is_small_and_states_its_licence() -> None:
    total = sum(file.stat().st_size for file in DEMO_DATA.rglob("*") if file.is_file())
    assert total <= 8_000_000
    readme = (SLICE / "README.md").read_text(encoding="utf-8")
    assert "Copyright (c) 2017 Zalando SE" in readme
    assert "30,000" in readme and "4,000" in readme


def write_source(folder: Path, embedding: np.ndarray) -> None:
    """Write ``embedding`` as both splits, with its row number as the label."""
    folder.mkdir()
    lists = pa.FixedSizeListArray.from_arrays(pa.array(embedding.ravel()), embedding.shape[1])
    label = pa.array(np.arange(len(embedding), dtype=np.int16))
    for name in ("train", "test"):
        pq.write_table(pa.table({"label": label, "embedding": lists}), folder / f"{name}.parquet")


def cut(source: Path, target: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(source), str(target), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_script_chooses_rows_by_number_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    chosen = []
    for name in ("a", "b"):
        embedding = rng.normal(size=(200, 8)).astype(np.float32)
        write_source(tmp_path / name, embedding)
        out = tmp_path / f"{name}-slice"
        result = cut(tmp_path / name, out, "--train-rows", "90", "--test-rows", "10")
        assert result.returncode == 0, result.stderr
        train = pq.read_table(out / "train")
        rows = train["label"].to_numpy()
        assert len(np.unique(rows)) == 90
        np.testing.assert_array_equal(rows_of(train), embedding[rows].astype(np.float16))
        assert pq.read_table(out / "test").num_rows == 10
        chosen.append(rows)
    np.testing.assert_array_equal(chosen[0], chosen[1])
    assert (chosen[0] != np.arange(90)).any()


def test_the_script_refuses_a_source_that_is_too_small(tmp_path: Path) -> None:
    write_source(tmp_path / "a", np.ones((20, 4), dtype=np.float32))
    result = cut(tmp_path / "a", tmp_path / "out", "--train-rows", "21", "--test-rows", "5")
    assert result.returncode != 0
    assert "train has 20 rows, which is fewer than 21" in result.stderr


@pytest.mark.parametrize(("split", "rows"), [("train", 40_000), ("test", 10_000)])
def test_flights_are_what_their_page_says(split: str, rows: int) -> None:
    table = pq.read_table(DEMO_DATA / "flights" / f"{split}.parquet")
    assert table.num_rows == rows
    names = ["hour", "dep_delay", "arr_delay", "air_time", "distance", "carrier", "origin"]
    assert table.column_names == names
    assert table["hour"].type == pa.int8() and table["carrier"].type == pa.string()
    assert table["arr_delay"].null_count > 0 and table["hour"].null_count == 0
    assert set(table["origin"].to_pylist()) == {"EWR", "JFK", "LGA"}
