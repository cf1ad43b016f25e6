"""Processes that race and die on a local ledger: the budget holds, the chain stays intact."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpgmm_dist.budget.budget import Budget
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.budget.records import Charge
from dpgmm_dist.errors import LedgerRefused
from dpgmm_dist.storage import local_file

DIGEST = "d" * 64
FORK = multiprocessing.get_context("fork")
STEPS = ("moments", "cells", "components")
ADMITTED, REFUSED = 0, 3


def charge_of(release_id: str, epsilon: float = 1.0) -> Charge:
    return Charge.of_release(release_id, DIGEST, epsilon, 1e-6, gaussian=False)


def race(work: Callable[[int], int], processes: int = 8) -> list[int]:
    """Run ``work(i)`` in forked processes that start together; return their exit codes."""
    start = FORK.Event()

    def run(me: int) -> None:
        start.wait()
        os._exit(work(me))

    children = [FORK.Process(target=run, args=(me,)) for me in range(processes)]
    for child in children:
        child.start()
    start.set()
    for child in children:
        child.join()
    return [int(child.exitcode or 0) for child in children]


def charge_or_be_refused(url: str, release_id: str) -> int:
    try:
        Ledger.open(url).charge(charge_of(release_id))
    except LedgerRefused:
        return REFUSED
    return ADMITTED


@pytest.mark.parametrize(
    ("epsilon", "delta", "fit"), [(1.0, 1e-6, 1), (1.5, 1e-5, 2), (100.0, 1e-6, 8)]
)
def test_eight_drivers_that_race_never_overspend(
    tmp_path: Path, epsilon: float, delta: float, fit: int
) -> None:
    url = str(tmp_path / "ledger")
    Ledger.init(url, epsilon, delta)
    codes = race(lambda me: charge_or_be_refused(url, f"driver-{me}"))
    assert sorted(codes) == [ADMITTED] * fit + [REFUSED] * (8 - fit)
    ledger = Ledger.open(url)
    assert ledger.verify() == fit
    charged = {record.charge.release_id for record in ledger.records}
    assert charged == {f"driver-{me}" for me, code in enumerate(codes) if code == ADMITTED}
    assert not [name for name in os.listdir(f"{url}/ledger") if name.startswith(".tmp")]


def test_many_charges_by_few_drivers_are_all_kept(tmp_path: Path) -> None:
    url = str(tmp_path / "ledger")
    Ledger.init(url, 100.0, 1e-6)

    def work(me: int) -> int:
        ledger = Ledger.open(url)
        for week in range(10):
            ledger.charge(charge_of(f"driver-{me}-week-{week}", 0.1))
        return 0

    assert race(work, processes=4) == [0] * 4
    assert Ledger.open(url).verify() == 40


def test_eight_drivers_of_one_release_are_charged_once_and_share_the_answers(
    tmp_path: Path,
) -> None:
    url = str(tmp_path / "ledger")
    Ledger.init(url, 1.0, 1e-6)

    def work(me: int) -> int:
        used = release(url, tmp_path)
        (tmp_path / f"used-{me}").write_bytes(b"".join(used))
        return 0

    assert race(work) == [0] * 8
    assert Ledger.open(url).verify() == 1
    assert len({(tmp_path / f"used-{me}").read_bytes() for me in range(8)}) == 1


def release(url: str, folder: Path) -> list[bytes]:
    """Do what a pipeline does with its budget; return the answers it used."""
    budget = Budget.open(charge_of("week-1"), {}, "gaussian", str(folder / "out"), url)
    used = []
    for step, name in enumerate(STEPS):
        budget.journal.put_query(step, name, os.urandom(8))
        answer = budget.journal.answer(step)
        if answer is None:
            budget.charge()
            answer = budget.journal.put_answer(step, name, os.urandom(8))
        # What a driver has used stays known, whatever becomes of it.
        with open(folder / f"step-{step}", "ab") as file:
            file.write(answer)
        used.append(answer)
    budget.journal.finish({})
    return used


def kill_at(call: int) -> None:
    """Make this process kill itself (SIGKILL) at its ``call``-th call that changes the disk."""
    count = 0

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == call:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **options)
            count += 1
            if count == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return run

    for name in ("mkdir", "open", "fdopen", "fsync", "link", "unlink"):
        setattr(local_file.os, name, wrap(getattr(os, name)))


@pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_a_driver_killed_at_any_instant_is_resumed_and_charged_once(
    tmp_path: Path, stride: int
) -> None:
    """Before and after every (eleventh) system call of a release that changes the disk."""
    kills = 0
    for call in range(1, 1000, stride):
        folder = tmp_path / str(call)
        folder.mkdir()
        url = str(folder / "ledger")
        Ledger.init(url, 1.0, 1e-6)

        def work(me: int, call: int = call, url: str = url, folder: Path = folder) -> int:
            kill_at(call)
            release(url, folder)
            return 0

        (code,) = race(work, processes=1)
        used = release(url, folder)
        assert Ledger.open(url).verify() == 1
        for step, answer in enumerate(used):
            seen = (folder / f"step-{step}").read_bytes()
            assert seen in (answer, answer * 2)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert kills > 200 // stride


def test_a_fresh_interpreter_sees_the_same_ledger(tmp_path: Path) -> None:
    """What one process wrote is read by another that shares nothing with it."""
    url = str(tmp_path / "ledger")
    Ledger.init(url, 1.0, 1e-6)
    script = (
        "import sys\n"
        "from dpgmm_dist.budget import Charge, Ledger\n"
        "charge = Charge.of_release(sys.argv[2], 'd' * 64, 1.0, 1e-6, gaussian=False)\n"
        "print(Ledger.open(sys.argv[1]).charge(charge).seq)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, url, "from-elsewhere"], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (0, "1\n"), run.stderr
    assert charge_or_be_refused(url, "here") == REFUSED
