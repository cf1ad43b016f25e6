"""Failures of clusters: how long a driver waits, and its messages.

A message names the kind of failure and what to do, and quotes nothing: what Dask raises may hold
the arguments of a task.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from dpgmm_dist.errors import ClusterError

NO_WORKERS_SECONDS = 300.0
"""Seconds after which a cluster without any worker is given up: a batch job must not wait for
ever."""
PAUSED_SECONDS = 300.0
"""Seconds after which a pass that waits for a paused worker is given up: Dask starts nothing on a
worker whose process takes more than its pause fraction of memory (80%), and never moves what is
queued there."""
_LOOK_SECONDS = 5.0

_LOST = (
    "the scheduler was lost, or what only lost workers held: see that it runs and can be reached, "
    "or start another"
)
_NO_WORKERS = f"there was no worker for {NO_WORKERS_SECONDS:.0f} s: start workers"
_PAUSED = (
    f"a worker has started nothing for {PAUSED_SECONDS:.0f} s, because its process takes most of "
    "its memory: give workers more memory or fewer threads, or start them again"
)
_WHAT_TO_DO = {
    "KilledWorker": (
        "one task ended several workers in a row, most often because they ran out of memory: give "
        "workers more memory or fewer threads"
    ),
    "FutureCancelledError": _LOST,
    "FuturesCancelledError": _LOST,
    "CancelledError": _LOST,
    "ClosedClientError": _LOST,
    "CommClosedError": _LOST,
    "NoWorkerError": _NO_WORKERS,
    "NoValidWorkerError": _NO_WORKERS,
    "PausedWorkerError": _PAUSED,
}
_OTHERWISE = "look at the workers' and the scheduler's logs"


class GivenUpError(Exception):
    """A cluster that will not finish the pass."""


class NoWorkerError(GivenUpError):
    """No worker for too long (Dask's own is raised by schedulers that are set up for it)."""


class PausedWorkerError(GivenUpError):
    """A worker was paused for too long."""


def cluster_failure(when: str, error: Exception) -> ClusterError:
    """The error for people in place of what Dask raised; ``when`` is a public text."""
    kind = type(error).__name__
    advice = _WHAT_TO_DO.get(kind, _OTHERWISE)
    return ClusterError(
        f"the cluster failed {when} ({kind}): {advice}; then run the same command again"
    )


def wait_for(client: Any, futures: Sequence[Any]) -> None:
    """Wait until all futures are done, or one has failed.

    Raises
    ------
    NoWorkerError
        When the cluster has had no worker for :data:`NO_WORKERS_SECONDS`.
    PausedWorkerError
        When a worker has been paused for :data:`PAUSED_SECONDS`, at every look.
    """
    import distributed  # untyped

    wait: Any = distributed.wait
    alone_since: float | None = None
    paused_since: dict[str, float] = {}
    while True:
        try:
            wait(list(futures), timeout=_LOOK_SECONDS)
            return
        except TimeoutError:
            if any(future.status in ("error", "cancelled", "lost") for future in futures):
                return
        now = time.monotonic()
        alone_since = None if client.nthreads() else alone_since or now
        if alone_since is not None and now - alone_since >= NO_WORKERS_SECONDS:
            raise NoWorkerError
        paused_since = {worker: paused_since.get(worker, now) for worker in _paused(client)}
        if any(now - since >= PAUSED_SECONDS for since in paused_since.values()):
            raise PausedWorkerError


def _paused(client: Any) -> list[str]:
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return [address for address, worker in workers.items() if worker["status"] == "paused"]
