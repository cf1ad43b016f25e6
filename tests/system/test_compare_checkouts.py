"""`jobs/compare_checkouts.py` finds equal what is equal, and tells what differs."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from .releases import environment

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "jobs" / "compare_checkouts.py"
RELEASE = Path(__file__).parent / "release_0_1_0" / "finished"
CASE = ("--only", "plane-labelled")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("compare_checkouts")


def compared(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=540, env=environment(), check=False
    )


def tampered(folder: Path, file: str, old: str, new: str) -> Path:
    """A checkout with one change in its package."""
    shutil.copytree(ROOT / "dpgmm_dist", folder / "dpgmm_dist")
    path = folder / "dpgmm_dist" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return folder


@pytest.mark.parametrize(
    ("name", "dimension", "labels"),
    [("plane-labelled", 2, 3), ("table", 3, 3), ("dask-array", 10, 3)],
)
@pytest.mark.slow  # what it compares is tested below
def test_a_checkout_is_equal_to_itself(name: str, dimension: int, labels: int) -> None:
    result = compared(ROOT, ROOT, "--only", name)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert lines[1].split() == [name, "6000", str(dimension), str(labels), "5", "equal"]
    assert lines[2] == "specifications: 1, different: 0"


@pytest.mark.slow  # that files differ is tested below
def test_a_checkout_with_another_number_in_it_is_different(tmp_path: Path) -> None:
    """A weight that is larger by its last bit."""
    other = tampered(
        tmp_path,
        "artifact/schema.py",
        "mixture.weights[order])",
        "np.nextafter(mixture.weights[order], 2))",
    )
    result = compared(ROOT, other, *CASE)
    assert result.returncode == 1, result.stderr
    assert result.stdout.splitlines()[1].endswith("DIFFERENT: mixture.parquet")


@pytest.mark.slow
def test_a_checkout_that_cannot_release_is_no_success(tmp_path: Path) -> None:
    failing = tampered(
        tmp_path / "failing", "pipeline/measuring.py", "fit(problem,", "1 / 0 + fit("
    )
    result = compared(failing, ROOT, *CASE)
    assert result.returncode == 1
    assert "a process failed" in result.stderr
    (tmp_path / "empty").mkdir()
    result = compared(ROOT, tmp_path / "empty", *CASE)
    assert result.returncode == 1
    assert "empty" in result.stderr


@pytest.mark.parametrize("name", ["mixture.parquet", "transform.parquet"])
def test_one_bit_of_a_file_is_a_difference(script: ModuleType, tmp_path: Path, name: str) -> None:
    other = tmp_path / "other"
    shutil.copytree(RELEASE, other)
    assert script.differences(RELEASE, other) == []
    data = bytearray((other / name).read_bytes())
    data[len(data) // 2] ^= 1
    (other / name).write_bytes(bytes(data))
    assert script.differences(RELEASE, other) == [name]


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ('"radius": 65536', '"radius": 65537', ["queries"]),
        ('"release_id": "finished-1"', '"release_id": "other"', []),
    ],
)
def test_a_receipt_is_compared_by_its_queries(
    script: ModuleType, tmp_path: Path, old: str, new: str, found: list[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(RELEASE, other)
    text = (other / "receipt.json").read_text()
    assert old in text
    (other / "receipt.json").write_text(text.replace(old, new, 1))
    assert script.differences(RELEASE, other) == found


def test_the_cases_are_what_they_are_called(script: ModuleType) -> None:
    """Every dimension, labels or none, both assignments, and every kind of rows."""
    cases = script.CASES.values()
    assert {case.dimension for case in cases} == {2, 10, 32, 128, 384}
    for dimension in (2, 10, 32, 128, 384):
        alike = [case for case in cases if case.dimension == dimension]
        assert {"labels" in case.dataset for case in alike} == {True, False}
        assert {case.model.get("assignment", "soft") for case in alike} == {"hard", "soft"}
    units = [case.dataset["privacy_unit"] for case in cases if "privacy_unit" in case.dataset]
    assert {unit["aggregate"] for unit in units} == {"rows", "weight", "mean"}
    assert any(case.dask_array for case in cases)
    assert any("columns" in case.bounds for case in cases)


@pytest.mark.slow
def test_whole_releases_are_timed(script: ModuleType, monkeypatch, capsys) -> None:
    monkeypatch.setattr(script, "TIMED_ROWS", 3000)
    assert script.main([str(ROOT), str(ROOT), "--time", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        [assignment, kind] for assignment in ("hard", "soft") for kind in ("wall", "processor")
    ]
