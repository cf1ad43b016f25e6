"""The configuration of engines: small, frozen, and independent of a specification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: the certificate and key of this client, and the authority of the scheduler's."""

    ca_file: str
    cert: str
    key: str


@dataclass(frozen=True)
class Elastic:
    """A number of workers that follows the work, between two bounds."""

    minimum: int
    maximum: int

    def __str__(self) -> str:
        return f"{self.minimum} to {self.maximum}"


@dataclass(frozen=True)
class ClusterConfig:
    """Which cluster is started or connected to.

    Attributes
    ----------
    kind : "threads" (of this process), "local" (processes on this machine), "scheduler" (one that
        is running), or a cluster that the job starts: "slurm", "kubernetes", or "mpi" (the
        processes of one MPI run).
    workers : number of workers to start, or its bounds
    threads : threads of each worker, or of this process
    memory : memory of each worker, such as ``4GB``
    address, scheduler_file : where the running scheduler is
    tls : certificates for a scheduler at ``tls://...``
    options : options of Dask's class for this kind of cluster
    """

    kind: str = "threads"
    workers: int | Elastic | None = None
    threads: int | None = None
    memory: str | None = None
    address: str | None = None
    scheduler_file: str | None = None
    tls: TlsFiles | None = None
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
