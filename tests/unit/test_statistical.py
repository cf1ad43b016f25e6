"""A statistical test that fails is run once more; any other is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

TESTS = """
import pytest

runs = []


def fails_at_first(name, times):
    runs.append(name)
    assert runs.count(name) > times, "an unlucky draw"


@pytest.mark.statistical
def test_fails_once():
    fails_at_first("once", 1)


@pytest.mark.statistical
def test_fails_twice():
    fails_at_first("twice", 2)


def test_unmarked():
    fails_at_first("unmarked", 1)


def test_runs():
    assert runs == ["once"] * 2 + ["twice"] * 2 + ["unmarked"]
"""


def test_only_statistical_tests_are_run_again(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path)
    (tmp_path / "test_luck.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = statistical\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "-rA"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    outcomes = [line.split(" - ")[0] for line in done.stdout.splitlines() if "::" in line]
    assert "PASSED test_luck.py::test_fails_once" in outcomes
    assert "FAILED test_luck.py::test_fails_twice" in outcomes
    assert "FAILED test_luck.py::test_unmarked" in outcomes
    assert "PASSED test_luck.py::test_runs" in outcomes
    assert done.stdout.count("failed and is run once more: an unlucky draw") == 2
