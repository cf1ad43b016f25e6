"""Where passes run: threads of this process or a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dpgmm_dist.cores import cores
from dpgmm_dist.engine.base import Engine
from dpgmm_dist.engine.config import ClusterConfig, Elastic
from dpgmm_dist.errors import SpecError

__all__ = ["Engine", "engine_in_use", "open_engine"]


@contextmanager
def open_engine(
    workers: int | str | None = None,
    scheduler: str | None = None,
    scheduler_file: str | None = None,
    cluster: ClusterConfig | None = None,
) -> Iterator[Engine]:
    """Open an engine: threads of this process, local processes, or any Dask cluster.

    The first three arguments take precedence over ``cluster``. At most one of them may be given.

    Parameters
    ----------
    workers : start this many single-threaded worker processes on this machine; "auto" for one to
        one for each core, as the work calls for
    scheduler : address of a running Dask scheduler, such as ``tcp://10.0.0.5:8786``
    scheduler_file : path of a Dask scheduler file
    cluster : which cluster to start or connect to; threads of this process by default

    Raises
    ------
    SpecError
        If more than one of the first three is given, or the number of workers is not positive.
    ClusterError
        If the cluster cannot be reached, or its workers have another version.
    """
    given = [value for value in (workers, scheduler, scheduler_file) if value is not None]
    if len(given) > 1:
        raise SpecError("give at most one of --workers, --scheduler and --scheduler-file")
    config = cluster or ClusterConfig()
    if workers is not None:
        config = ClusterConfig(kind="local", workers=_local_workers(workers))
    elif given:
        config = ClusterConfig("scheduler", address=scheduler, scheduler_file=scheduler_file)
    if config.kind == "threads":
        from dpgmm_dist.engine.local import LocalEngine

        yield LocalEngine(config.threads)
        return
    from dpgmm_dist.engine.cluster import open_cluster

    with open_cluster(config) as engine:
        yield engine


def _local_workers(workers: int | str) -> int | Elastic:
    if workers == "auto":
        return Elastic(1, cores())
    try:
        count = int(workers)
    except ValueError:
        count = 0
    if count < 1:
        raise SpecError(f"--workers must be a number of at least 1, or auto; got {workers}")
    return count


def engine_in_use() -> Engine | None:
    """Return the cluster of Dask's current client in this process; None if there is no client.

    Raises
    ------
    ClusterError
        If its workers have another version, or do not answer.
    """
    import sys

    if "distributed" not in sys.modules:  # then there is no client
        return None
    from dpgmm_dist.engine.cluster import current_cluster

    return current_cluster()
