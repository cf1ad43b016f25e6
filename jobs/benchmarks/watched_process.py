"""A command, and what it and all processes that it starts take: seconds and memory."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile

import psutil

_LOOK_SECONDS = 0.1


class Failed(Exception):
    """A command ended without a result, and why."""


@dataclass(frozen=True)
class Took:
    """What a command took."""

    wall: float
    processor: float
    """Seconds of all its processes."""
    megabytes: float
    """The most that its processes held together, as they were seen ten times a second."""
    said: str
    """The last line of its output."""


def watched(command: Sequence[str], limit: float, memory: float) -> Took:
    """Run a command to its end.

    Raises
    ------
    Failed
        When it fails, or its processes have used ``limit`` processor seconds or hold more than
        ``memory`` megabytes.
    """
    start = time.monotonic()
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, text=True)
        seconds: dict[int, float] = {}
        most = 0.0
        while process.poll() is None:
            most = max(most, _look(process.pid, seconds))
            used = sum(seconds.values())
            if used > limit or most > memory:
                _end(process)
                reason = "not done after" if used > limit else "too much memory after"
                raise Failed(f"{reason} {used:,.0f} processor s, {most:,.0f} MB")
            time.sleep(_LOOK_SECONDS)
        wall = time.monotonic() - start
        out.seek(0)
        err.seek(0)
        if process.returncode:
            lines = [line for line in err.read().splitlines() if line.strip()]
            raise Failed(f"failed: {lines[-1][:120] if lines else process.returncode}")
        said = out.read().strip().splitlines()
    return Took(wall, sum(seconds.values()), most, said[-1] if said else "")


def _look(root: int, seconds: dict[int, float]) -> float:
    """Note the processor seconds of each process; return the megabytes of all now."""
    total = 0
    try:
        this = psutil.Process(root)
        for process in (this, *this.children(recursive=True)):
            times = process.cpu_times()
            seconds[process.pid] = times.user + times.system
            total += process.memory_info().rss
    except psutil.Error:
        pass  # one has just ended
    return total / 2**20


def _end(process: subprocess.Popen[str]) -> None:
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()
    process.wait()
