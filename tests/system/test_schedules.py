"""The scheduled flow and the command lines of deploy/: run as they are, tried again, kept apart."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dpgmm_dist.artifact.verify import verify_release
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.spec.release_spec import ReleaseSpec

from ..variants import variant
from .releases import Rows, environment, write_spec

ROOT = Path(__file__).resolve().parents[2]
WEEK = "2026-W48"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder as the schedules expect it: jobs/, an environment, a ledger."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    shutil.copy(ROOT / "jobs" / "weekly_flow.py", tmp_path / "jobs")
    Ledger.init(str(tmp_path / "ledger"), 1.0, 1e-6, "365d")
    write_spec(
        tmp_path / "jobs" / "weekly.yaml",
        Rows.make(200).write(tmp_path / "data"),
        privacy={"ledger": "ledger"},
        output={"path": "releases/{date:%G-W%V}", "release_id": "weekly-{date:%G-W%V}"},
    )
    return tmp_path


def flow(home: Path, *options: str, python: str = sys.executable) -> subprocess.CompletedProcess:
    return subprocess.run(
        [python, "jobs/weekly_flow.py", "--wait", "0", *options],
        cwd=home,
        env=environment({"PYTHONPATH": ROOT}),
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
    )


def test_a_week_is_released_once_whatever_day_it_runs(home: Path) -> None:
    for day, status in (("2026-11-25", "released"), ("2026-11-28", "already_done")):
        done = flow(home, "--date", day)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {
            "status": status,
            "release_id": f"weekly-{WEEK}",
            "release": f"releases/{WEEK}",
        }
    assert Ledger.open(str(home / "ledger")).verify() == 1
    assert verify_release(str(home / "releases" / WEEK)).exit_code == 0
    refused = flow(home, "--date", "2026-12-02", "--attempts", "3")
    assert refused.returncode == 3
    assert "attempt" not in refused.stderr  # trying again would not help
    assert "The same release fits from" in refused.stderr


def test_failures_are_tried_again_and_mistakes_are_not(home: Path) -> None:
    shutil.move(home / "data", home / "late")
    missing = flow(home, "--date", "2026-11-25", "--attempts", "2")
    assert missing.returncode == 4
    assert missing.stderr.count("attempt 1 ended with exit code 4; trying again") == 1
    assert "attempt 2" not in missing.stderr
    wrong = flow(home, "--date", "2026-11-25", "--", "--set", "model.components=-1")
    assert wrong.returncode == 2
    assert "attempt" not in wrong.stderr
    assert Ledger.open(str(home / "ledger")).verify() == 0


def cron_command() -> str:
    """What cron runs: the sixth field and all after it, without the escapes."""
    lines = (ROOT / "deploy" / "cron" / "dpgmm-weekly").read_text().splitlines()
    [line] = [line for line in lines if re.match(r"[\d*]+ ", line)]
    return line.split(maxsplit=5)[5].replace(r"\%", "%")


def systemd_command() -> str:
    text = (ROOT / "deploy" / "systemd" / "dpgmm-weekly.service").read_text()
    found = re.search(r"^ExecStart=/bin/sh -c '(.*)'$", text, re.MULTILINE)
    assert found is not None
    return found[1].replace("%%", "%")


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock (util-linux) is not installed")
@pytest.mark.parametrize(
    "command", [cron_command(), variant(systemd_command())], ids=["cron", "systemd"]
)
def test_the_command_lines_of_schedules(command: str, home: Path) -> None:
    """They release the week of yesterday; while another run holds the lock they do nothing."""
    run = ["sh", "-c", command]
    given = {"DPGMM_HOME": home, "PYTHONPATH": ROOT}
    options = {"cwd": home, "env": environment(given), "timeout": 1000, "capture_output": True}
    held = subprocess.run(["flock", "weekly.lock", *run], check=False, **options)
    assert held.returncode == 1
    assert not (home / "releases").exists()
    done = subprocess.run(run, check=False, text=True, **options)
    assert done.returncode == 0, done.stderr
    [release] = (home / "releases").iterdir()
    assert re.fullmatch(r"\d{4}-W\d\d", release.name)
    assert verify_release(str(release)).exit_code == 0


@pytest.mark.parametrize("name", ["weekly", "weekly_window"])
def test_the_specifications_in_jobs_are_right(name: str) -> None:
    path = ROOT / "jobs" / f"{name}.yaml"
    spec = ReleaseSpec.from_yaml(path, environ=os.environ, date="2026-11-25")
    assert spec.output.release_id is not None
    assert spec.output.release_id.endswith(WEEK)
    for command in re.findall(r"^#   (?:dpgmm|python) .*", path.read_text(), re.MULTILINE):
        assert "ledger init build/weekly/ledger" in command or "--date 2026-11-25" in command


@pytest.mark.slow
def test_the_weekly_specification_runs_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    Ledger.init(str(tmp_path / "build" / "weekly" / "ledger"), 4.0, 1e-5, "365d")
    done = flow(tmp_path, "--date", "2026-11-25")
    assert done.returncode == 0, done.stderr
    assert verify_release(str(tmp_path / "build/weekly/releases" / WEEK)).exit_code == 0
