"""The simulated cluster of docs/scaling.md, small: the scheduler knows few tasks in waves."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .releases import environment

ROOT = Path(__file__).resolve().parents[2]
WORKERS, FILES = 3, 1500


@pytest.mark.slow  # test_many_files.py has the same waves on a cluster
def test_a_small_cluster_runs_to_its_end() -> None:
    result = subprocess.run(
        [
            *(sys.executable, "jobs/benchmarks/scale.py", "cluster"),
            *("--workers", str(WORKERS), "--files", str(FILES)),
        ],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    rows = {
        name.strip(): [float(number.replace(",", "")) for number in numbers.split()]
        for name, numbers in re.findall(r"^(\D.*?)  +(\d[\d., -]*)$", result.stdout, re.MULTILINE)
    }
    assert set(rows) == {"footers, in waves", "pass, in waves", "pass, flat"}
    tasks, known_in_waves = rows["pass, in waves"][:2]
    assert rows["footers, in waves"][0] == -(-FILES // 200)
    assert tasks == rows["pass, flat"][0] > 300
    # Two waves of 4 tasks a worker with their reduction, and some that are being forgotten; flat,
    # most of the pass at once.
    few = 4 * (4 * WORKERS + 3)
    assert 0 < known_in_waves <= few
    assert rows["pass, flat"][1] > 2 * few
