"""Whole runs of a job, each with its own queries, and the likelihoods of their answers."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from dpgmm_dist.audit.game import Floats
from dpgmm_dist.audit.job import BASE, Job
from dpgmm_dist.audit.neighbours import WORST
from dpgmm_dist.spec.release_spec import ReleaseSpec

SIDES = ((BASE, WORST), (WORST, BASE))
"""What a run is about, and the neighbour that it is compared with."""
_job: Job | None = None
"""The job of a process that makes runs for another."""


def rerun(job: Job, reruns: int, processes: int, report: Callable[[str, float], None]) -> Floats:
    """Log likelihood ratios of whole runs, (2, reruns): about the base, about the worst neighbour.

    Parameters
    ----------
    processes : how many make runs at a time, each with noise of its own. With one, this one does.
    report : called with "runs" and the fraction that is done.
    """
    sides = [side for _ in range(reruns) for side in range(len(SIDES))]
    ratios = []
    for ratio in _ratios(job, sides, min(processes, len(sides))):
        ratios.append(ratio)
        report("runs", len(ratios) / len(sides))
    return np.array(ratios).reshape(reruns, 2).T


def _ratios(job: Job, sides: list[int], processes: int) -> Iterator[float]:
    if processes < 2:
        yield from (_log_ratio(job, side) for side in sides)
        return
    # Spawned, not forked: a fork would inherit the threads of the passes half-way.
    context = multiprocessing.get_context("spawn")
    given = (job.spec.public_dict(), job.rows, job.scratch)
    with ProcessPoolExecutor(processes, context, _open, given) as pool:
        yield from pool.map(_of_process, sides, chunksize=4)


def _log_ratio(job: Job, side: int) -> float:
    about, other = SIDES[side]
    return job.run((other,), about).log_ratio()


def _open(document: dict[str, object], rows: int, scratch: str | None) -> None:
    global _job
    _job = Job.of(ReleaseSpec.from_dict(document), rows, None, scratch, None)


def _of_process(side: int) -> float:
    if _job is None:
        raise RuntimeError("a process that makes runs was not given its job")
    return _log_ratio(_job, side)
