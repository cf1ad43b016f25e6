"""The cost of work: processor seconds, memory, retries. PRIVATE: it depends on the data.

Each task measures itself, so its figures arrive even if its worker is lost later.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from dpgmm_dist.opaque import Opaque

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Usage(Opaque):
    """Resources used by some tasks. Addition is associative and commutative."""

    tasks: int = 0
    processor_seconds: float = 0.0
    retries: int = 0
    """Reads that were repeated, and tasks that failed and ran again."""
    peaks: dict[str, int] = field(default_factory=dict)
    """Peak memory in bytes of each process that took part, by host and process id."""
    joined: int = 0
    lost: int = 0
    """Workers that joined and left meanwhile."""

    def merge(self, other: Usage) -> Usage:
        """Add what both used."""
        peaks = dict(self.peaks)
        for process, peak in other.peaks.items():
            peaks[process] = max(peak, peaks.get(process, 0))
        return Usage(
            self.tasks + other.tasks,
            self.processor_seconds + other.processor_seconds,
            self.retries + other.retries,
            peaks,
            self.joined + other.joined,
            self.lost + other.lost,
        )


def measured(work: Callable[[], T]) -> tuple[T, Usage]:
    """Return the result of a task and what it used; a task runs on one thread.

    The failure of a task is reported by the next task of the same process.
    """
    begun = time.thread_time()
    try:
        result = work()
    except BaseException:
        count_retry()
        raise
    seconds = time.thread_time() - begun
    return result, Usage(1, seconds, take_retries(), {_process(): peak_memory()})


class _Retries:
    """The retries of this process that no task has reported yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def add(self) -> None:
        with self._lock:
            self._count += 1

    def take(self) -> int:
        with self._lock:
            count, self._count = self._count, 0
            return count


_retries = _Retries()


def count_retry() -> None:
    """Count something of this process that is tried again."""
    _retries.add()


def take_retries() -> int:
    """Return how often this process tried something again since this was last called."""
    return _retries.take()


def peak_memory() -> int:
    """Peak resident memory of this process in bytes; 0 where the system does not say."""
    with suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            # Not getrusage: its peak is inherited from the process that started this one.
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
