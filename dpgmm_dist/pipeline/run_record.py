"""The record of a run: versions, engine, and time, memory and work of each pass.

Sizes, times and numbers of tasks depend on the data. So the record is PRIVATE, and is kept only
beside a ledger. :meth:`RunRecord.public` has the rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, TypeVar

from dpgmm_dist.artifact.receipt import library_versions
from dpgmm_dist.budget.runs import keep_run
from dpgmm_dist.data.blocks import PlanUnit
from dpgmm_dist.engine.base import Engine
from dpgmm_dist.errors import DataError
from dpgmm_dist.opaque import Opaque
from dpgmm_dist.storage.store import Store
from dpgmm_dist.tracing import span
from dpgmm_dist.usage import peak_memory

STALL_SECONDS = 60.0
"""Seconds without progress after which a pass counts as stalled once."""

Report = Callable[[float], None]
T = TypeVar("T")
_log = logging.getLogger("dpgmm_dist.engine")  # the one whose events the command shows


class RunRecord(Opaque):
    """The record of one run, filled while it goes on."""

    def __init__(self, run: str | None = None) -> None:
        self.run = run or token_hex(8)
        self._began = time.monotonic()
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._engine = "none"
        self._replayed = 0
        self._passes: list[dict[str, Any]] = []
        self._store: Store | None = None

    def keep_in(self, store: Store | None) -> None:
        """Keep the record in this store at the end of the run; it must be private storage."""
        self._store = store

    def uses(self, engine: Engine) -> None:
        """Note where the passes run."""
        self._engine = engine.name

    def replayed(self) -> None:
        """Note a pass whose answer was stored already."""
        self._replayed += 1

    def summed(
        self,
        step: str,
        units: Sequence[PlanUnit],
        report: Report,
        engine: Engine,
        work: Callable[[Report], T],
    ) -> T:
        """Return the sums that ``work`` makes on ``engine``, and note time, memory and work."""
        waits = _Waits(report)
        begun, driver = time.monotonic(), time.process_time()
        sums = work(waits.report)
        wall, driver = time.monotonic() - begun, time.process_time() - driver
        used = engine.usage()
        self._passes.append(
            {
                "step": step,
                "wall_seconds": round(wall, 3),
                "processor_seconds": round(used.processor_seconds, 6),
                "driver_processor_seconds": round(driver, 6),
                "tasks": used.tasks,
                "bytes": sum(unit.bytes for unit in units),
                "retries": used.retries,
                "stalls": waits.stalls,
                "longest_wait_seconds": round(waits.longest, 3),
                "workers": len(used.peaks),
                "workers_joined": used.joined,
                "workers_lost": used.lost,
                "worker_peak_bytes": max(used.peaks.values(), default=0),
                "driver_peak_bytes": peak_memory(),
            }
        )
        return sums

    def public(self) -> dict[str, Any]:
        """The parts that do not depend on the data, for anyone who may see the release."""
        return {"run": self.run, "engine": self._engine, "libraries": library_versions()}

    @contextmanager
    def noted(self, release_id: str) -> Iterator[None]:
        """Note how the run ends, and keep the record where :meth:`keep_in` says."""
        outcome = "done"
        try:
            with span("dpgmm.release", release_id=release_id, run=self.run):
                yield
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            self._keep(release_id, outcome)

    def _keep(self, release_id: str, outcome: str) -> None:
        if self._store is None:
            return
        record = {
            "schema": 1,
            "kind": "run",
            "release_id": release_id,
            **self.public(),
            "started": self._started,
            "outcome": outcome,
            "wall_seconds": round(time.monotonic() - self._began, 3),
            "driver_peak_bytes": peak_memory(),
            "passes_replayed": self._replayed,
            "passes": self._passes,
        }
        try:
            keep_run(self._store, record)
        except DataError:
            # The release is what counts; it may be published already.
            _log.warning(
                "the record of this run could not be written beside the ledger",
                extra={"event": "warning"},
            )


class _Waits:
    """How long a pass was without progress."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._last = time.monotonic()
        self.longest = 0.0
        self.stalls = 0

    def report(self, fraction: float) -> None:
        now = time.monotonic()
        self.longest = max(self.longest, now - self._last)
        self.stalls += now - self._last >= STALL_SECONDS
        self._last = now
        self._report(fraction)
