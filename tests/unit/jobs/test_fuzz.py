"""The fuzzer: a short run with a fixed seed finds nothing, and it would find what it is for."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def fuzz() -> Any:
    found = importlib.util.spec_from_file_location("fuzz_job", ROOT / "jobs" / "fuzz.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["fuzz_job"] = module
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sound(fuzz, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    fuzz.prepare(folder)
    return folder


@pytest.mark.parametrize("kind", ["parquet", "release", "ledger", "journal", "specification"])
def test_damaged_input_is_read_or_refused(kind, fuzz, sound):
    for seed in range(12):
        assert fuzz.attempt(kind, sound, seed) == "", seed


def test_most_damage_changes_what_is_read(fuzz):
    import numpy as np

    data = bytes(range(256)) * 4
    changed = [fuzz.damaged(data, np.random.default_rng(seed)) != data for seed in range(50)]
    assert sum(changed) > 45


def test_another_exception_is_a_failure(fuzz, sound, monkeypatch):
    def wrong(kind: str, folder: Path) -> None:
        raise KeyError("width")

    monkeypatch.setattr(fuzz, "read", wrong)
    assert fuzz.attempt("ledger", sound, 1) == "KeyError: 'width'"


def test_a_file_that_appears_is_a_failure(fuzz, sound, monkeypatch):
    monkeypatch.setattr(fuzz, "read", lambda kind, folder: (folder / "new").write_text(""))
    assert fuzz.attempt("ledger", sound, 1) == "it wrote files"
