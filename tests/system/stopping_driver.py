"""The command, in a process that stops itself at a moment that a test chose.

A moment is a record or file of the release by the end of its name, such as "answer-0002.bin": the
driver stops once it has made it. "pass 2" is the third pass, with some of its tasks done. Whoever
waits for :func:`stopped` then kills, interrupts or continues a release that is at that very moment,
however busy the machine is. A driver that is continued does not stop again.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dpgmm_dist.engine.cluster import DaskEngine
from dpgmm_dist.engine.local import LocalEngine
from dpgmm_dist.storage.store import FsspecStore

from .command_server import Command


def stopping(moment: str, *arguments: object, env: dict[str, str]) -> Command:
    """A driver that has stopped at ``moment``."""
    driver = Command([*map(str, arguments)], env, partial(stop_at, moment))
    _wait_until_stopped(driver)
    return driver


def _wait_until_stopped(process: Command, patience: float = 300) -> None:
    """Wait for the moment; the time is only for when it never comes."""
    deadline = time.monotonic() + patience
    while not stopped(process.pid):
        assert process.poll() is None, f"it ended with code {process.returncode}"
        assert time.monotonic() < deadline, f"waited {patience:g} s for the moment"
        time.sleep(0.02)


def stopped(process: int) -> bool:
    """Whether a process has been stopped, and may be continued."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def stop_at(moment: str) -> None:
    """Let this process stop at ``moment``."""
    if moment.startswith("pass "):
        _stop_in_pass(int(moment.removeprefix("pass ")))
    else:
        _stop_when_made(moment)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _stop_when_made(name: str) -> None:
    create, waiting = FsspecStore.create, [name]

    def create_and_stop(store: FsspecStore, created: str, data: bytes) -> None:
        create(store, created, data)
        if waiting and created.endswith(waiting[0]):
            waiting.clear()
            _stop()

    FsspecStore.create = create_and_stop  # type: ignore[method-assign]


def _stop_in_pass(number: int) -> None:
    passes = iter(range(number + 1))

    def wrapped(run: Callable[..., Any]) -> Callable[..., Any]:
        def run_and_stop(engine: Any, context: Any, units: Any, report: Any) -> Any:
            waiting = [True] if next(passes, None) == number else []

            def report_and_stop(fraction: float) -> None:
                if waiting:
                    waiting.clear()
                    _stop()
                report(fraction)

            return run(engine, context, units, report_and_stop)

        return run_and_stop

    for engine in (LocalEngine, DaskEngine):
        engine.run = wrapped(engine.run)  # type: ignore[method-assign]
