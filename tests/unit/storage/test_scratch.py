"""Scratch storage is private; it is removed when its run ends, or by a later run."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest

from dpgmm_dist.errors import DataError
from dpgmm_dist.storage.scratch import PREFIX, open_scratch


def folders(base):
    return sorted(path.name for path in base.glob(f"{PREFIX}*"))


def test_only_its_owner_can_read_it_and_it_is_removed_at_the_end(tmp_path):
    with open_scratch(str(tmp_path / "new"), "id") as place:
        folder = Path(place.resolve()[1])
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "rows").write_text("private")
        assert folders(tmp_path / "new")
    assert not folders(tmp_path / "new")


def test_it_is_removed_after_a_failure(tmp_path):
    with pytest.raises(RuntimeError), open_scratch(str(tmp_path), "id"):
        raise RuntimeError
    assert not folders(tmp_path)


HOLD = """
import sys, time
from dpgmm_dist.storage.scratch import open_scratch
with open_scratch(sys.argv[1], "id") as place:
    open(place.resolve()[1] + "/rows", "w").write("private")
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_later_run_removes_the_folder_of_a_killed_run_and_not_that_of_a_live_one(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        live = folders(tmp_path)
        with open_scratch(str(tmp_path), "id"):
            assert set(live) < set(folders(tmp_path))
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert folders(tmp_path) == live
    time.sleep(0.1)
    with open_scratch(str(tmp_path), "another"):
        assert not set(live) & set(folders(tmp_path))
    assert not folders(tmp_path)


def test_nothing_else_there_is_touched(tmp_path):
    (tmp_path / "precious").write_text("x")
    (tmp_path / f"{PREFIX}file").write_text("x")
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path)
    (tmp_path / f"{PREFIX}without-lock").mkdir()
    with open_scratch(str(tmp_path), "id"):
        pass
    assert len(list(tmp_path.iterdir())) == 4


def test_a_store_is_cleaned_by_the_next_run_of_the_release():
    fs = fsspec.filesystem("memory")
    with open_scratch("memory://bucket/scratch", "id") as place:
        first = place.resolve()[1]
        fs.pipe_file(f"{first}/spread/a.parquet", b"private")
        with open_scratch("memory://bucket/scratch", "another"):
            assert fs.exists(f"{first}/spread/a.parquet")
        with open_scratch("memory://bucket/scratch", "id") as again:
            assert again.resolve()[1] != first
            assert not fs.exists(f"{first}/spread/a.parquet")
    assert not fs.find("bucket/scratch")


def test_an_unusable_place_is_a_data_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="scratch"), open_scratch(str(tmp_path / "file"), "id"):
        pass
