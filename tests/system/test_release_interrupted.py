"""Killed and interrupted releases: charged once, resumed under their id, never half there.

Workers that die: test_cluster_faults.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from dpgmm_dist.artifact.verify import verify_release
from dpgmm_dist.budget.ledger import Ledger

from ..variants import mostly_variants, variant
from .command_server import Command
from .releases import Rows, digests, done, dpgmm, environment, labelled, write_spec
from .stopping_driver import stopping
from .troubled import strange

ROWS = Rows.make(100)  # a release of them has four passes


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger"
    Ledger.init(str(path), 1.0, 1e-6)
    return path


@pytest.fixture
def spec(tmp_path: Path, ledger: Path) -> Path:
    data = ROWS.write(tmp_path / "data", files=4)
    return write_spec(
        tmp_path / "spec.yaml", data, dataset=labelled(), privacy={"ledger": str(ledger)}
    )


def charges(ledger: Path) -> int:
    """Releases charged: records of the ledger after its first, which states its terms."""
    return len(list((ledger / "ledger").glob("*.json"))) - 1


def answers(ledger: Path) -> dict[str, bytes]:
    found = (ledger / "journal" / "week-1").glob("answer-*.bin")
    return {path.name: path.read_bytes() for path in found}


def start(spec: Path, *options: object, stop_at: str | None = None) -> Command:
    """The release "week-1", in a process group of its own so that a test can stop all of it.

    With ``stop_at`` it is returned when it has stopped at that moment.
    """
    words = ("release", spec, "--output", spec.parent / "out", "--release-id", "week-1", *options)
    if stop_at is None:
        return Command([*map(str, words)], environment())
    return stopping(stop_at, *words, env=environment())


def kill(process: Command) -> None:
    process.kill()
    process.communicate(timeout=300)


def interrupt(process: Command, whole_group: bool) -> str:
    """Ctrl-C, for a driver that is stopped; what it says then."""
    signalled = os.killpg if whole_group else os.kill
    signalled(process.pid, signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    return process.communicate(timeout=300)[1]


def check_nothing_released(spec: Path) -> None:
    out = spec.parent / "out"
    assert not (out / "release.json").exists()
    assert verify_release(str(out)).exit_code == 4


def check_resumed(spec: Path, ledger: Path, before: dict[str, bytes]) -> None:
    """The same command finishes the release: one charge, stored answers as they were."""
    done("release", spec, "--output", spec.parent / "out", "--release-id", "week-1")
    assert charges(ledger) == 1
    after = answers(ledger)
    assert {name: after[name] for name in before} == before
    assert verify_release(str(spec.parent / "out")).exit_code == 0


# Where the driver is killed: moments of a release, from before its charge to its last answer.
MOMENTS = {
    "the claim": "_claim.json",
    "the charge": "ledger/00000001.json",
    "the last query": "query-0003.bin",
    "the first file": "mixture.parquet",
}


@pytest.mark.parametrize("moment", mostly_variants(MOMENTS, "the charge", "the last query"))
def test_a_killed_release_resumes_and_is_charged_once(moment, spec, ledger):
    kill(start(spec, stop_at=MOMENTS[moment]))
    assert charges(ledger) == (0 if moment == "the claim" else 1)
    before = answers(ledger)
    assert len(before) == {"the last query": 3, "the first file": 4}.get(moment, 0)
    check_nothing_released(spec)
    check_resumed(spec, ledger, before)


def test_a_release_killed_again_and_again_ends_with_one_charge(spec, ledger):
    """Killed later and later, each time under the same id, until it is done."""
    before: dict[str, bytes] = {}
    for index in range(3):
        kill(start(spec, stop_at=f"answer-{index:04d}.bin"))
        after = answers(ledger)
        assert {name: after[name] for name in before} == before
        assert len(after) == index + 1
        before = after
        assert charges(ledger) == 1
    check_resumed(spec, ledger, before)


def test_a_resumed_release_is_the_one_that_would_have_been(tmp_path):
    """With test noise the resumed bytes are those of a run that was never killed."""
    data = ROWS.write(tmp_path / "data", files=4)
    spec = write_spec(tmp_path / "spec.yaml", data, dataset=labelled())
    noise = ("--insecure-test-noise", 7)
    done("release", spec, "--output", tmp_path / "whole", "--release-id", "week-1", *noise)
    kill(start(spec, *noise, stop_at="answer-0002.bin"))
    check_nothing_released(spec)
    done("release", spec, "--output", tmp_path / "out", "--release-id", "week-1", *noise)
    names = ("mixture.parquet", "transform.parquet", "receipt.json")
    assert digests(tmp_path / "out", *names) == digests(tmp_path / "whole", *names)


def test_another_specification_under_a_killed_releases_id_is_refused(spec, ledger):
    kill(start(spec, stop_at=MOMENTS["the charge"]))
    other = ("release", spec, "--output", spec.parent / "elsewhere", "--release-id", "week-1")
    result = dpgmm(*other, "--set", "model.components=2")
    assert result.returncode == 2
    assert "another specification" in result.stderr
    assert "model.components was 1 and is now 2" in result.stderr
    assert charges(ledger) == 1


def test_a_charged_id_without_its_journal_is_refused(spec, ledger):
    kill(start(spec, stop_at="answer-0000.bin"))
    shutil.rmtree(ledger / "journal" / "week-1")
    result = dpgmm("release", spec, "--output", spec.parent / "out", "--release-id", "week-1")
    assert result.returncode == 4
    assert "could be drawn a second time" in result.stderr
    assert charges(ledger) == 1
    check_nothing_released(spec)


@pytest.mark.parametrize("lag", ["together", variant("the charge"), variant("the last query")])
def test_two_drivers_of_one_id_end_with_one_release(lag, spec, ledger):
    """Started at once, or the second while the first is at work: the second joins."""
    first = start(spec, stop_at=MOMENTS.get(lag))
    second = start(spec)
    first.send_signal(signal.SIGCONT)
    for process in (first, second):
        stdout, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        assert "released" in stdout
        assert str(spec.parent / "out") in stdout
    assert charges(ledger) == 1
    assert len(answers(ledger)) == len(list((ledger / "journal/week-1").glob("query-*.bin")))
    assert verify_release(str(spec.parent / "out")).exit_code == 0


def test_two_drivers_of_one_id_and_two_specifications(spec, ledger):
    """One wins; the other stops, and is told how they differ."""
    other = write_spec(
        spec.parent / "other.yaml",
        spec.parent / "data",
        dataset=labelled(),
        privacy={"ledger": str(ledger), "epsilon": 0.5},
    )
    drivers = [start(spec), start(other)]
    errors = [process.communicate(timeout=300)[1] for process in drivers]
    codes = [process.returncode for process in drivers]
    assert sorted(codes) == [0, 2], errors
    assert "specification" in errors[codes.index(2)]
    assert charges(ledger) == 1
    assert verify_release(str(spec.parent / "out")).exit_code == 0


def test_a_changed_input_is_refused_on_resuming(spec, ledger):
    kill(start(spec, stop_at="answer-0000.bin"))
    Rows.make(500, seed=9).write(spec.parent / "data", files=1)
    result = dpgmm("release", spec, "--output", spec.parent / "out", "--release-id", "week-1")
    assert result.returncode == 4
    assert "input changed" in result.stderr
    assert charges(ledger) == 1


@pytest.mark.parametrize(
    ("engine", "whole_group"),
    [
        variant((), False),
        ((), True),
        variant(("--workers", 2), True),
        pytest.param(("--workers", 2), False, marks=pytest.mark.slow),
    ],
)
def test_an_interrupt_leaves_nothing_half_written(engine, whole_group, spec, ledger):
    """Ctrl-C in a terminal reaches every process of the job; kill -INT, the driver alone."""
    process = start(spec, *engine, stop_at="pass 2")
    stderr = interrupt(process, whole_group)
    assert process.returncode == 130, stderr
    assert strange(stderr) == []
    assert stderr.splitlines()[-1] == "dpgmm: interrupted; a release resumes under its release id"
    check_nothing_released(spec)
    assert left_behind(process.pid) == []
    before = answers(ledger)
    assert len(before) == 2
    check_resumed(spec, ledger, before)


def left_behind(group: int) -> list[int]:
    """Processes of a group that are still running, after a moment to end."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        alive = [
            pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if runs(pid, group)
        ]
        if not alive:
            return []
        time.sleep(0.1)
    return alive


def runs(pid: int, group: int) -> bool:
    try:
        if os.getpgid(pid) != group:
            return False
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


def test_a_ledger_admits_exactly_one_release_of_all_it_has(spec, ledger):
    first = done(
        "release", spec, "--output", spec.parent / "out", "--release-id", "week-1", "--json"
    )
    assert json.loads(first.stdout)["epsilon"] <= 1.0
    second = dpgmm("release", spec, "--output", spec.parent / "second", "--release-id", "week-2")
    assert second.returncode == 3
    assert "Traceback" not in second.stderr
    line = second.stderr.splitlines()[-1]
    for words in (
        "refuses release 'week-2'",
        "Requested: epsilon 1",
        "Spent by 1 release",
        "Remaining",
    ):
        assert words in line
    assert not (spec.parent / "second").exists()
    assert charges(ledger) == 1
    # What remains is not nothing, but less than any useful epsilon; the first is still there.
    again = done("release", spec, "--output", spec.parent / "out", "--release-id", "week-1")
    assert "already released" in again.stdout
    assert charges(ledger) == 1


def test_smaller_releases_fit_until_they_do_not(spec, ledger):
    codes = []
    for index in range(5):
        result = dpgmm(
            *("release", spec, "--output", spec.parent / f"out-{index}"),
            *("--set", "privacy.epsilon=0.5", "--release-id", f"day-{index}"),
        )
        codes.append(result.returncode)
    # Costs add in rho, where half an epsilon is about a quarter of the whole.
    assert codes == sorted(codes)
    assert set(codes) == {0, 3}
    assert codes.count(0) == charges(ledger) in (3, 4)
