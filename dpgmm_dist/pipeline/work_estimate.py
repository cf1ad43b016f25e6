"""The estimated work of a planned release: tasks, bytes, memory, time.

The estimate is based on a public guess of the number of rows, so it is public too. On request it is
based on the footers of the input, and is for the trusted side only. The kernel is timed on
made-up rows with the queries of the plan. No row of the input is read.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from dpgmm_dist.cores import cores as available_cores
from dpgmm_dist.data.blocks import PlanUnit
from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.data.source import TARGET_BYTES
from dpgmm_dist.engine.memory import memory_plan
from dpgmm_dist.passes.kernel import Kernel
from dpgmm_dist.pipeline.plan import ASSUMED_ROWS, Plan
from dpgmm_dist.pipeline.privacy_units import row_map_of
from dpgmm_dist.pipeline.resolve import open_dataset, problem_of
from dpgmm_dist.privacy.query import PassQuery
from dpgmm_dist.spec.cluster import WorkerRange
from dpgmm_dist.spec.release_spec import ReleaseSpec

READ_BYTES_PER_SECOND = 500_000_000
"""Per core, for uncompressed lists of float32 on a local disk (jobs/benchmarks/throughput.py)."""
_ITEM_BYTES = 4
_MADE_UP_VALUES = 1 << 19
_SEED = 0


@dataclass(frozen=True)
class PassRate:
    """How fast one pass runs."""

    step: str
    rows_per_core_second: float
    """Rows on the lattice and through the kernel; without reading."""


@dataclass(frozen=True)
class PlannedWork:
    """The work of a release."""

    trusted_side: bool
    """True if it is based on the input's footers: then it is NOT for publication."""
    rows: int
    passes: int
    tasks: int
    """Tasks of each pass."""
    bytes_read: int
    """Bytes of feature values that each pass reads, uncompressed."""
    worker_memory: int
    """The most bytes that a worker of one thread needs."""
    driver_memory: int
    """The most bytes that the driver needs, without passes in its own process."""
    cores: int
    pass_seconds: float
    """Time of all passes on ``cores`` cores, if each pass reads each row."""
    driver_seconds: float
    """Time of the driver's own work between passes, on this machine, without drawing noise."""
    read_bytes_per_core_second: int
    """Assumed, not measured."""
    rates: tuple[PassRate, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def plan_work(
    spec: ReleaseSpec, planned: Plan, *, cores: int | None = None, footers: bool = False
) -> PlannedWork:
    """The work of ``planned``, the plan of ``spec``, on ``cores`` cores.

    Raises
    ------
    SpecError, DataError
        With ``footers``, when they cannot be read.
    """
    if footers:
        source = open_dataset(spec.dataset)
        units = source.plan()
        rows = sum(count for footer in source.footers() for count, _ in footer.row_groups)
    else:
        rows = planned.rows or ASSUMED_ROWS
        units = _plan_units(rows * planned.width * _ITEM_BYTES)
    size = sum(unit.bytes for unit in units)
    cores = cores or _cores_of(spec)
    if planned.features is None:
        raise ValueError("the plan has no map of rows to the lattice")
    rates = _rates(planned.queries, planned.features)
    reading = size / READ_BYTES_PER_SECOND
    seconds = sum(reading + rows / rate.rows_per_core_second for rate in rates) / cores
    memory = memory_plan(problem_of(spec, planned.width, planned.rho), units)
    return PlannedWork(
        trusted_side=footers,
        rows=rows,
        passes=len(rates),
        tasks=len(units),
        bytes_read=size,
        worker_memory=memory.worker(1),
        driver_memory=memory.driver,
        cores=cores,
        pass_seconds=seconds,
        driver_seconds=planned.driver_seconds,
        read_bytes_per_core_second=READ_BYTES_PER_SECOND,
        rates=rates,
    )


def _plan_units(size: int) -> list[PlanUnit]:
    """Plan units that together have ``size`` bytes."""
    starts = range(0, max(size, 1), TARGET_BYTES)
    return [PlanUnit(i, (), min(TARGET_BYTES, size - start)) for i, start in enumerate(starts)]


def _cores_of(spec: ReleaseSpec) -> int:
    cluster = spec.cluster
    if cluster.workers is not None:
        workers = cluster.workers
        # The least number of workers: a forecast should not be too short.
        count = workers.minimum if isinstance(workers, WorkerRange) else workers
        return count * (cluster.threads or 1)
    return cluster.threads or available_cores()


def _rates(queries: tuple[PassQuery, ...], features: FeatureMap) -> tuple[PassRate, ...]:
    rows = max(1024, min(1 << 15, _MADE_UP_VALUES // features.width))
    x = _made_up(rows, features)
    with threadpool_limits(1, "blas"):
        return tuple(PassRate(query.step, rows / _seconds(query, features, x)) for query in queries)


def _made_up(rows: int, features: FeatureMap) -> Any:
    """Rows (n, d) in input units, with a length of about a third of the norm bound."""
    samples = np.random.default_rng(_SEED).standard_normal((rows, features.width))
    scale = features.norm / 3 / np.sqrt(features.width)
    return (samples * scale * features.half_widths + features.offset).astype(np.float32)


def _seconds(query: PassQuery, features: FeatureMap, x: Any) -> float:
    """Processor time for one block: that of the second run, whose memory is allocated.

    It is the thread's own, so that other work on the machine does not count.
    """
    kernel = Kernel(query)
    row_map = row_map_of(features, query)
    total = kernel.start()
    labels = np.arange(len(x)) % (int(query.cell_label[-1]) + 1)
    kept = np.ones(len(x), dtype=np.int64) if query.weighted else None
    out = np.empty((len(x), query.width), dtype=np.float32)
    start = 0.0
    for _ in range(2):
        start = time.thread_time()
        u, valid = row_map.to_lattice(x, None, out)
        kernel.accumulate(total, u, np.where(valid, labels, -1), kept)
    return max(time.thread_time() - start, 1e-9)


def render_work(spec: ReleaseSpec, work: PlannedWork) -> str:
    """The work as lines to print."""
    if work.trusted_side:
        origin = "TRUSTED SIDE, not for publication: from the footers of the input"
    else:
        origin = "from a guess of the rows: nothing about the input itself"
    lines = [
        f"Work for {work.rows:,} rows on {work.cores} core(s); {origin}",
        f"  passes  {work.passes}, each of {work.tasks:,} task(s) that read "
        f"{_size(work.bytes_read)} together",
        f"  memory  up to {_size(work.worker_memory)} for a worker of one thread, "
        f"{_size(work.driver_memory)} for the driver",
        f"  time    about {_time(work.pass_seconds)} for the passes, "
        f"{_time(work.driver_seconds)} for the driver",
        "  rates   rows a core second, measured here on made-up rows: " + _grouped(work.rates),
        f"          reading is assumed at {work.read_bytes_per_core_second / 1e6:.0f} MB a core "
        "second; start-up and a slow store come on top",
    ]
    if spec.dataset.privacy_unit is not None:
        lines.append("  units   rows are read once more, and written to scratch, before the passes")
    return "\n".join(lines)


def _grouped(rates: tuple[PassRate, ...]) -> str:
    parts = []
    for stage, group in groupby(rates, lambda rate: rate.step.partition(".")[0]):
        parts.append(f"{stage} {' '.join(f'{rate.rows_per_core_second:,.0f}' for rate in group)}")
    return ", ".join(parts)


def _size(count: int) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count / 1e3:.3g} kB"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"
