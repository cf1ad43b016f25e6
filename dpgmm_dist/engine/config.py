"""Where passes run, as the engines take it: small, frozen, and without a specification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TlsFiles:
    """Files in PEM that this client shows, and by which it checks the scheduler."""

    ca_file: str
    cert: str
    key: str


@dataclass(frozen=True)
class ClusterConfig:
    """Which cluster is started or joined.

    Attributes
    ----------
    kind : "threads" of this process, "local" processes, a running "scheduler", or a cluster that
        the job starts: "slurm", "kubernetes", or the processes of one "mpi" run.
    workers : number of workers to start
    threads : threads of each worker, or of this process
    memory : memory of each worker, such as ``4GB``
    address, scheduler_file : the running scheduler
    tls : certificates for a scheduler at ``tls://...``
    options : options of Dask's own class for this kind of cluster
    """

    kind: str = "threads"
    workers: int | None = None
    threads: int | None = None
    memory: str | None = None
    address: str | None = None
    scheduler_file: str | None = None
    tls: TlsFiles | None = None
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
