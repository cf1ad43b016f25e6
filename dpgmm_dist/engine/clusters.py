"""Clusters that a job starts for itself or joins: TLS, Slurm, Kubernetes, MPI.

Each function returns a client; what was started ends with the stack. Dask's own libraries do the
work, and only the kind that is asked for is imported.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from dpgmm_dist.engine.config import ClusterConfig, Elastic, TlsFiles
from dpgmm_dist.engine.slurm_jobs import ended_jobs_replaced
from dpgmm_dist.errors import ClusterError, SpecError

_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
}
"""Of workers on other machines. They have one thread each, and Dask's profiler is off, as it is on
this machine (`dpgmm_dist.engine.cluster.open_cluster`)."""
_MEMORY = "4GB"
_LOOK_SECONDS = 2
"""How often an elastic cluster compares its workers with the work."""
_IDLE_SECONDS = 60
_TEN_YEARS = "3650 days"


def security_of(tls: TlsFiles | None) -> Any | None:
    """Certificates for Dask, none without ``cluster.tls`` (Dask's configuration may have them)."""
    if tls is None:
        return None
    missing = [path for path in (tls.ca_file, tls.cert, tls.key) if not os.path.isfile(path)]
    if missing:
        raise SpecError(f"cluster.tls: no file {missing[0]}; give the PEM files of this client")
    return _distributed().Security(
        tls_ca_file=tls.ca_file,
        tls_client_cert=tls.cert,
        tls_client_key=tls.key,
        require_encryption=True,
    )


def start_slurm(stack: ExitStack, wanted: ClusterConfig) -> Any:
    """Workers as Slurm jobs, which end with this process; those that end earlier are replaced."""
    jobqueue = _imported("dask_jobqueue", "cluster")
    # Dask would cancel the job of a lost worker, which may be one that replaces it and still waits.
    stack.enter_context(dask_settings({"distributed.deploy.lost-worker-timeout": _TEN_YEARS}))
    threads = wanted.threads or 1
    options: dict[str, Any] = {
        "cores": threads,
        "processes": 1,
        "memory": wanted.memory or _MEMORY,
        "job_script_prologue": [f"export {name}={value}" for name, value in _ENVIRONMENT.items()],
        # No dashboard: it shows the cluster's memory and tasks to whoever can reach its port.
        "scheduler_options": {"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        **wanted.options,
    }
    cluster = stack.enter_context(jobqueue.SLURMCluster(**options))
    if isinstance(wanted.workers, Elastic):
        scale(cluster, wanted.workers)
    else:
        cluster.scale(jobs=wanted.workers)
    stack.enter_context(ended_jobs_replaced(cluster))
    return stack.enter_context(_distributed().Client(cluster))


def start_kubernetes(stack: ExitStack, wanted: ClusterConfig) -> Any:
    """A DaskCluster of the operator; the scheduled form is deploy/kubernetes/daskjob.yaml."""
    operator = _imported("dask_kubernetes.operator", "cluster")
    memory = wanted.memory or _MEMORY
    share = {"cpu": str(wanted.threads or 1), "memory": memory.replace("GB", "G")}
    options: dict[str, Any] = {
        "n_workers": least(wanted.workers),
        "resources": {"requests": share, "limits": share},
        "env": dict(_ENVIRONMENT),
        "quiet": True,
        **wanted.options,
    }
    cluster = stack.enter_context(operator.KubeCluster(**options))
    if isinstance(wanted.workers, Elastic):
        scale(cluster, wanted.workers)
    return stack.enter_context(_distributed().Client(cluster))


def least(workers: int | Elastic | None) -> int | None:
    """Return how many workers are started at once."""
    return workers.minimum if isinstance(workers, Elastic) else workers


def scale(cluster: Any, workers: Elastic) -> None:
    """Let the number of workers follow the work, between its bounds.

    At the end of a pass idle workers stay for a minute: the next pass needs them again.
    """
    cluster.adapt(
        minimum=workers.minimum,
        maximum=workers.maximum,
        interval=f"{_LOOK_SECONDS}s",
        wait_count=_IDLE_SECONDS // _LOOK_SECONDS,
    )


def dask_settings(settings: Mapping[str, Any]) -> Any:
    """Dask's configuration with these values while the context is open."""
    import dask  # untyped

    return dask.config.set(dict(settings))


def join_mpi(stack: ExitStack, wanted: ClusterConfig) -> Any:
    """Join the processes of ``mpirun``: rank 0 schedules, 1 drives, the others work.

    Ranks other than 1 never come back from here: they serve until the driver is done.
    """
    mpi = _imported("dask_mpi", "mpi")
    size = _imported("mpi4py.MPI", "mpi").COMM_WORLD.Get_size()
    if size < 3:
        raise SpecError(
            f"cluster.kind mpi: mpirun started {size} process(es); at least 3 are needed: a "
            "scheduler, a driver and a worker"
        )
    for name in ("core", "scheduler", "worker", "batched", "comm", "nanny"):
        logging.getLogger(f"distributed.{name}").setLevel(logging.CRITICAL)
    mpi.initialize(nthreads=1, dashboard=False, **wanted.options)
    # Its own end opens a client by settings that are gone by then, and leaves the others waiting.
    atexit.unregister(_imported("dask_mpi.execute", "mpi").send_close_signal)
    client = stack.enter_context(_distributed().Client())
    stack.callback(client.shutdown)
    return client


def _distributed() -> Any:
    import distributed  # untyped

    return distributed


def _imported(module: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise ClusterError(
            f"{module.partition('.')[0]} is not installed: pip install 'dpgmm-dist[{extra}]'"
        ) from None
