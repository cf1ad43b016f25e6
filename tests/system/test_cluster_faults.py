"""Workers that die, run out of memory or are slow, and a scheduler that goes: codes 0 and 5.

Whatever happens, the ledger holds one charge, the journal is whole, and the same command ends in
the release that an undisturbed run gives, to the byte under test noise.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpgmm_dist.data.arrays import ArraySource
from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.engine import open_engine
from dpgmm_dist.engine.local import LocalEngine
from dpgmm_dist.passes.run import PassContext

from ..queries import integers, real_queries
from .releases import Rows, command, digests, done, environment, labelled, write_spec

NOISE = ("--insecure-test-noise", 7, "--release-id", "faults")
QUERY = real_queries("labelled")[0]


def workers_below(driver: int) -> list[int]:
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (ProcessLookupError, FileNotFoundError):
            continue
        if b"spawn_main" in words and parent == driver:
            found.append(pid)
    return found


@pytest.mark.slow
def test_a_worker_killed_in_every_pass_changes_nothing(tmp_path):
    data = Rows.make(4000).write(tmp_path / "data", files=12)
    spec = write_spec(tmp_path / "spec.yaml", data, dataset=labelled())
    done("release", spec, "--output", tmp_path / "calm", *NOISE)
    output = tmp_path / "out"
    with subprocess.Popen(
        command("release", spec, "--output", output, *NOISE, "--workers", 2),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        killed: set[str] = set()
        while process.poll() is None:
            asked = {path.name for path in output.rglob("query-*.bin")}
            for _ in sorted(asked - killed):
                for worker in workers_below(process.pid)[:1]:
                    os.kill(worker, signal.SIGKILL)
            killed |= asked
            time.sleep(0.002)
        printed = process.stdout.read() if process.stdout else ""
    assert process.returncode == 0, printed
    assert len(killed) > 3
    assert digests(output) == digests(tmp_path / "calm")


@dataclass(frozen=True, repr=False, eq=False)
class Troubled(ArraySource):
    """One unit brings its worker down, or takes its time."""

    trouble: str = "none"

    def blocks(self, unit: Any, max_rows: int) -> Any:
        if unit.index == 2 and self.trouble == "out of memory":
            # What the kernel does to a process that takes more memory than there is.
            os.kill(os.getpid(), signal.SIGKILL)
        if unit.index == 2 and self.trouble == "too large":
            raise MemoryError("could not allocate for row 123.4")
        if unit.index == 2 and self.trouble == "slow":
            time.sleep(3)
        return super().blocks(unit, max_rows)


def context_of(trouble: str) -> PassContext:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3000, QUERY.width)) * 0.3
    source = Troubled(x, rng.integers(0, 3, 3000), (0, 1, 2), 500, trouble=trouble)
    return PassContext(source, FeatureMap(QUERY.width, 1.0), QUERY)


@pytest.fixture(scope="module")
def engine():
    with open_engine(workers=2) as found:
        yield found


def test_a_slow_worker_is_waited_for(engine):
    calm, slow = context_of("none"), context_of("slow")
    want = LocalEngine(2).run(calm, calm.source.plan(), lambda _: None)
    assert integers(engine.run(slow, slow.source.plan(), lambda _: None)) == integers(want)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [("too large", "ran out of memory in unit 2"), ("out of memory", "KilledWorker")],
)
def test_a_unit_that_no_worker_survives_is_exit_code_5(engine, trouble, words):
    context = context_of(trouble)
    with pytest.raises(Exception, match=words) as caught:
        engine.run(context, context.source.plan(), lambda _: None)
    assert caught.value.exit_code == 5
    assert "123.4" not in str(caught.value)
    # The cluster is still good for the next pass.
    calm = context_of("none")
    want = LocalEngine(2).run(calm, calm.source.plan(), lambda _: None)
    assert integers(engine.run(calm, calm.source.plan(), lambda _: None)) == integers(want)


SCHEDULER = """
import sys, time
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as c:
        print(c.scheduler_address, flush=True)
        time.sleep(600)
"""


@pytest.mark.slow
def test_a_scheduler_that_goes_is_exit_code_5_and_the_job_resumes(tmp_path):
    script = tmp_path / "cluster.py"
    script.write_text(SCHEDULER)
    data = Rows.make(4000).write(tmp_path / "data", files=12)
    spec = write_spec(tmp_path / "spec.yaml", data, dataset=labelled())
    output = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as cluster:
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        with subprocess.Popen(
            command("release", spec, "--output", output, *NOISE, "--scheduler", address),
            env=environment(),
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            while process.poll() is None and not list(output.rglob("answer-0000*")):
                time.sleep(0.01)
            os.killpg(cluster.pid, signal.SIGKILL)
            _, stderr = process.communicate(timeout=200)
    assert process.returncode == 5, stderr
    assert stderr.splitlines()[-1].startswith("dpgmm: ")
    assert not (output / "release.json").exists()
    done("release", spec, "--output", output, *NOISE)
    done("release", spec, "--output", tmp_path / "calm", *NOISE)
    assert digests(output) == digests(tmp_path / "calm")
