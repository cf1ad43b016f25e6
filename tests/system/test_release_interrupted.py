"""Killed and interrupted releases: charged once, resumed under their id, never half there.

Workers that die: test_cluster_faults.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dpgmm_dist.artifact.verify import verify_release
from dpgmm_dist.budget.ledger import Ledger

from .releases import Rows, command, digests, done, dpgmm, environment, labelled, write_spec
from .troubled import strange

ROWS = Rows.make(3000)


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


def start(spec: Path, *options: object) -> subprocess.Popen[str]:
    """The release "week-1", in a process group of its own so that a test can stop all of it."""
    return subprocess.Popen(
        command(
            "release", spec, "--output", spec.parent / "out", "--release-id", "week-1", *options
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
        # A shell's background job, such as a whole test run, would hand down "ignore Ctrl-C".
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def when(
    happens: Callable[[], bool], process: subprocess.Popen[str], patience: float = 120
) -> bool:
    """Wait until something is seen; False when the process ended first."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if happens():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.001)
    raise AssertionError("nothing happened")


def stop(process: subprocess.Popen[str], number: int, whole_group: bool = False) -> str:
    if whole_group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    return stderr


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


# What the killer waits for: moments of a release, from before its charge to its last answer.
MOMENTS: dict[str, Callable[[Path, Path], bool]] = {
    "the claim": lambda out, ledger: (out / "_claim.json").exists(),
    "the charge": lambda out, ledger: charges(ledger) > 0,
    "the last query": lambda out, ledger: (ledger / "journal/week-1/query-0005.bin").exists(),
    "the first file": lambda out, ledger: (out / "mixture.parquet").exists(),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_release_resumes_and_is_charged_once(moment, spec, ledger):
    process = start(spec)
    out = spec.parent / "out"
    assert when(lambda: MOMENTS[moment](out, ledger), process)
    stop(process, signal.SIGKILL)
    assert charges(ledger) <= 1
    if moment == "the charge":
        assert charges(ledger) == 1
    before = answers(ledger)
    if not (out / "release.json").exists():  # killed too late to matter
        check_nothing_released(spec)
    check_resumed(spec, ledger, before)


def test_a_release_killed_again_and_again_ends_with_one_charge(spec, ledger):
    """Killed later and later, each time under the same id, until it is done."""
    before: dict[str, bytes] = {}
    for index in range(0, 12, 2):
        process = start(spec)
        done_already = not when(lambda i=index: len(answers(ledger)) > i, process)
        stop(process, signal.SIGKILL)
        after = answers(ledger)
        assert {name: after[name] for name in before} == before
        before = after
        assert charges(ledger) == 1
        if done_already:
            break
    check_resumed(spec, ledger, before)


def test_a_resumed_release_is_the_one_that_would_have_been(tmp_path):
    """With test noise the resumed bytes are those of a run that was never killed."""
    data = ROWS.write(tmp_path / "data", files=4)
    spec = write_spec(tmp_path / "spec.yaml", data, dataset=labelled())
    noise = ("--insecure-test-noise", 7)
    done("release", spec, "--output", tmp_path / "whole", "--release-id", "week-1", *noise)
    process = start(spec, *noise)
    journal = tmp_path / "out" / "_journal" / "week-1"
    assert when(lambda: len(list(journal.glob("answer-*.bin"))) > 2, process)
    stop(process, signal.SIGKILL)
    check_nothing_released(spec)
    done("release", spec, "--output", tmp_path / "out", "--release-id", "week-1", *noise)
    names = ("mixture.parquet", "transform.parquet", "receipt.json")
    assert digests(tmp_path / "out", *names) == digests(tmp_path / "whole", *names)


def test_another_specification_under_a_killed_releases_id_is_refused(spec, ledger):
    process = start(spec)
    assert when(lambda: charges(ledger) > 0, process)
    stop(process, signal.SIGKILL)
    other = ("release", spec, "--output", spec.parent / "elsewhere", "--release-id", "week-1")
    result = dpgmm(*other, "--set", "model.components=2")
    assert result.returncode == 2
    assert "another specification" in result.stderr
    assert "model.components was 1 and is now 2" in result.stderr
    assert charges(ledger) == 1


def test_a_charged_id_without_its_journal_is_refused(spec, ledger):
    process = start(spec)
    assert when(lambda: len(answers(ledger)) > 0, process)
    stop(process, signal.SIGKILL)
    shutil.rmtree(ledger / "journal" / "week-1")
    result = dpgmm("release", spec, "--output", spec.parent / "out", "--release-id", "week-1")
    assert result.returncode == 4
    assert "could be drawn a second time" in result.stderr
    assert charges(ledger) == 1
    check_nothing_released(spec)


@pytest.mark.parametrize("lag", ["together", "the charge", "the last query"])
def test_two_drivers_of_one_id_end_with_one_release(lag, spec, ledger):
    """Started at once, or the second while the first is at work: the second joins."""
    first = start(spec)
    if lag != "together":
        assert when(lambda: MOMENTS[lag](spec.parent / "out", ledger), first)
    second = start(spec)
    for process in (first, second):
        stdout, stderr = process.communicate(timeout=120)
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
    both = [start(spec), start(other)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 2], errors
    assert "specification" in errors[codes.index(2)]
    assert charges(ledger) == 1
    assert verify_release(str(spec.parent / "out")).exit_code == 0


def test_a_changed_input_is_refused_on_resuming(spec, ledger):
    process = start(spec)
    assert when(lambda: len(answers(ledger)) > 0, process)
    stop(process, signal.SIGKILL)
    Rows.make(500, seed=9).write(spec.parent / "data", files=1)
    result = dpgmm("release", spec, "--output", spec.parent / "out", "--release-id", "week-1")
    assert result.returncode == 4
    assert "input changed" in result.stderr
    assert charges(ledger) == 1


@pytest.mark.parametrize("engine", [(), ("--workers", 2)])
@pytest.mark.parametrize("whole_group", [False, True])
def test_an_interrupt_leaves_nothing_half_written(engine, whole_group, spec, ledger):
    """Ctrl-C in a terminal reaches every process of the job; kill -INT, the driver alone."""
    process = start(spec, *engine)
    assert when(lambda: len(answers(ledger)) > 1, process)
    stderr = stop(process, signal.SIGINT, whole_group)
    assert process.returncode == 130, stderr
    assert strange(stderr) == []
    assert stderr.splitlines()[-1] == "dpgmm: interrupted; a release resumes under its release id"
    check_nothing_released(spec)
    assert left_behind(process.pid) == []
    check_resumed(spec, ledger, answers(ledger))


def left_behind(group: int) -> list[int]:
    """Processes of a group that are still running, after a moment to end."""
    deadline = time.monotonic() + 20
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
