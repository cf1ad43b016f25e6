"""The command, in a process that stops itself at a moment that a test chose.

    python stopping_driver.py MOMENT ARGUMENT...

A moment is a record or file of the release by the end of its name, such as "answer-0002.bin": the
driver stops once it has made it. "pass 2" is the third pass, with some of its tasks done. Whoever
waits for :func:`stopped` then kills, interrupts or continues a release that is at that very moment,
however busy the machine is. A driver that is continued does not stop again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpgmm_dist.cli.main import main
from dpgmm_dist.engine.cluster import DaskEngine
from dpgmm_dist.engine.local import LocalEngine
from dpgmm_dist.storage.store import FsspecStore


def stopping(moment: str, *arguments: object) -> list[str]:
    """The command line of a driver that stops at ``moment``."""
    return [sys.executable, __file__, moment, *map(str, arguments)]


def wait_until_stopped(process: subprocess.Popen[Any], patience: float = 300) -> None:
    """Wait for the moment; the time is only for when it never comes."""
    deadline = time.monotonic() + patience
    while not stopped(process.pid):
        assert process.poll() is None, f"it ended with code {process.returncode}"
        assert time.monotonic() < deadline, f"waited {patience:g} s for the moment"
        time.sleep(0.02)


def stopped(process: int) -> bool:
    """Whether a process has been stopped, and may be continued."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"


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


if __name__ == "__main__":
    moment = sys.argv[1]
    if moment.startswith("pass "):
        _stop_in_pass(int(moment.removeprefix("pass ")))
    else:
        _stop_when_made(moment)
    main(sys.argv[2:])
