"""The ``cluster`` section: where a release runs.

It does not affect what is released, so it is in no receipt, journal or digest. A job that was begun
on a laptop may be finished on Slurm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from dpgmm_dist.spec import fields
from dpgmm_dist.spec.section import Read, Section

Kind = Literal["threads", "local", "scheduler", "slurm", "kubernetes", "mpi"]
KINDS: tuple[Kind, ...] = ("threads", "local", "scheduler", "slurm", "kubernetes", "mpi")
_STARTED: tuple[Kind, ...] = ("local", "slurm", "kubernetes")
_USED_BY: dict[str, tuple[Kind, ...]] = {
    "workers": _STARTED,
    "threads": ("threads", "slurm", "kubernetes"),
    "memory": ("local", "slurm", "kubernetes"),
    "address": ("scheduler",),
    "scheduler_file": ("scheduler",),
    "tls": ("scheduler",),
    "options": ("slurm", "kubernetes", "mpi"),
}

_count = fields.whole(1, 100_000)
_Text = Annotated[str | None, Read(fields.optional(fields.text))]


class TlsSpec(Section):
    """PEM files for connections to a scheduler.

    Attributes
    ----------
    ca_file : certificate of the authority that is trusted.
    cert, key : this client's certificate and key.
    """

    ca_file: Annotated[str, Read(fields.text)]
    cert: Annotated[str, Read(fields.text)]
    key: Annotated[str, Read(fields.text)]


@dataclass(frozen=True)
class WorkerRange:
    """Bounds on a number of workers that follows the work."""

    minimum: int
    maximum: int


def _workers(value: object) -> int | WorkerRange:
    """Read a number of workers, or ``{minimum, maximum}``."""
    if isinstance(value, WorkerRange):
        return value
    if not isinstance(value, Mapping):
        return _count(value)
    if set(value) - {"minimum", "maximum"} or "maximum" not in value:
        raise ValueError("must be a number, or {minimum: 1, maximum: 8}")
    bounds = WorkerRange(_count(value.get("minimum", 1)), _count(value["maximum"]))
    if bounds.minimum > bounds.maximum:
        raise ValueError(
            f"got a minimum of {bounds.minimum} and a maximum of {bounds.maximum}; the minimum "
            "must not be larger"
        )
    return bounds


class ClusterSpec(Section):
    """Where the passes run.

    Attributes
    ----------
    kind : threads of this process, local processes, a running scheduler, or a cluster that the
        job starts: Slurm, Kubernetes, or the processes of one ``mpirun``.
    workers : how many workers are started (local, slurm, kubernetes), or ``{minimum, maximum}``:
        workers are added and removed as the work calls for.
    threads : threads of each worker, or of this process.
    memory : memory of each worker, such as ``4GB``.
    address, scheduler_file : the running scheduler, by one of the two.
    tls : certificates for a scheduler at ``tls://...``.
    options : passed on to dask-jobqueue's SLURMCluster (``queue``, ``walltime``, ...), to
        dask-kubernetes' KubeCluster (``image``, ``namespace``, ...) or to dask-mpi's initialize
        (``interface``, ``local_directory``, ...).
    """

    kind: Annotated[Kind, Read(fields.choice(*KINDS))] = "threads"
    workers: Annotated[int | WorkerRange | None, Read(fields.optional(_workers))] = None
    threads: Annotated[int | None, Read(fields.optional(fields.whole(1, 1024)))] = None
    memory: _Text = None
    address: _Text = None
    scheduler_file: _Text = None
    tls: TlsSpec | None = None
    options: Annotated[dict[str, Any], Read(fields.storage_options)] = Field(
        default_factory=dict, repr=False
    )

    def problems(self) -> list[str]:
        """Return a line for each contradiction between the keys."""
        lines = [
            f"cluster.{key}: belongs to kind {' or '.join(kinds)}; remove it, kind is {self.kind}"
            for key, kinds in _USED_BY.items()
            if getattr(self, key) not in (None, {}) and self.kind not in kinds
        ]
        if self.kind in _STARTED and self.workers is None:
            lines.append("cluster.workers: missing; give the number of workers to start")
        if self.kind == "scheduler" and (self.address is None) == (self.scheduler_file is None):
            lines.append(
                "cluster.address: kind scheduler needs address or scheduler_file, one of them"
            )
        if self.tls is not None and not (self.address or "tls://").startswith("tls://"):
            lines.append(
                f"cluster.address: got {fields.show(self.address)}; with cluster.tls it must "
                "begin with tls://"
            )
        return lines
