"""Measure the constants of the model in docs/scaling.md on this machine, and predict with them.

    python jobs/benchmarks/scale.py constants     rows per core-second, noise, memory of the plan
    python jobs/benchmarks/scale.py predict       the same, and the time and cost of large releases
    python jobs/benchmarks/scale.py cluster [--workers 1000] [--files 100000]
    python jobs/benchmarks/scale.py release [--rows 1000000] [--dimension 16] [--files 8] ...

``release`` releases so many rows, and compares what it takes with the forecast (big_release.py).
``cluster`` runs a Dask scheduler with light workers, whose tasks read nothing. It measures the time
and memory of planning and scheduling, which do not depend on the rows (simulated_cluster.py).
"""

from __future__ import annotations

import argparse
import resource
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from big_release import run_release
from simulated_cluster import simulate
from synthetic_files import FLOAT32_BYTES, source_of
from workload import HARD, SOFT, PreparedPasses, workload

from dpgmm_dist.engine.local import LocalEngine
from dpgmm_dist.engine.memory import memory_plan
from dpgmm_dist.model.problem import Problem
from dpgmm_dist.privacy.measure import measure
from dpgmm_dist.privacy.noise import noise_source

SHAPES = ((16, 10), (64, 10), (128, 10), (256, 10))
"""Shapes (d, K) that are measured."""
VALUES = 3_000_000
"""Numbers in the rows of a measurement: fewer rows in more dimensions."""
REPEATS = 3
PASSES = {"moments": 2, "hard": 2, "soft": 3}
"""Passes of an unlabelled release: two for moments, two for cells, three for components."""
PRICE = 0.05
"""Price of a core-hour in currency units; replace it by your own with --price."""


@dataclass(frozen=True)
class Constants:
    """The constants of one shape (d, K)."""

    dimension: int
    components: int
    rows_per_second: dict[str, float]
    """Rows per processor second of each kind of pass."""
    noise_seconds: float
    statistic_bytes: int

    def core_seconds(self, rows: float) -> float:
        """Processor seconds of all passes of a release."""
        return sum(n * rows / self.rows_per_second[name] for name, n in PASSES.items())


def constants(dimension: int, components: int) -> Constants:
    """Measure passes over rows on local disk with one thread, without a cache of rows."""
    rows = VALUES // dimension
    with workload(rows, dimension, components, None) as load:
        passes = PreparedPasses.over(load)
        engine = LocalEngine(threads=1, cache_bytes=0)
        names = {"moments": "moments.second", "hard": HARD, "soft": SOFT}
        speed = {
            name: rows / seconds(lambda step=step: passes.run(step, engine))
            for name, step in names.items()
        }
        query = passes.contexts[SOFT].query
        exact = passes.run(SOFT, engine)
        noise = noise_source("auto")
        noise_seconds = seconds(lambda: measure(exact, query, noise))
        return Constants(dimension, components, speed, noise_seconds, exact.__sizeof__())


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds of a call: the median of a few runs after one to warm up.

    Processor time is used because wall time includes other work on the machine.
    """
    work()
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return float(np.median(times))


def planning(files: int, dimension: int) -> tuple[float, float, int]:
    """Processor seconds to plan, MB of footers and plan on the driver, and number of units."""
    source = source_of(files, dimension)
    start = time.process_time()
    source.plan()
    plan_seconds = time.process_time() - start
    del source
    tracemalloc.start()  # not while timing: it makes planning ten times slower
    source = source_of(files, dimension)
    units = source.plan()
    megabytes = tracemalloc.get_traced_memory()[0] / 2**20
    tracemalloc.stop()
    return plan_seconds, megabytes, len(units)


def show_constants(shapes: tuple[tuple[int, int], ...]) -> list[Constants]:
    """Measure and print the constants of each shape (d, K)."""
    print(
        "rows per processor second of each pass; seconds of noise; MB of a statistic, of a worker"
    )
    print(
        f"{'d':>4}{'K':>4}{'moments':>10}{'hard':>10}{'soft':>10}"
        f"{'noise s':>9}{'MB':>7}{'worker MB':>11}"
    )
    measured = []
    for dimension, components in shapes:
        found = constants(dimension, components)
        measured.append(found)
        problem = Problem(width=dimension, norm=1.0, rho=0.1, components=components)
        plan = memory_plan(problem, source_of(1, dimension).plan())
        speed = "".join(f"{found.rows_per_second[name]:>10,.0f}" for name in PASSES)
        print(
            f"{dimension:>4}{components:>4}{speed}{found.noise_seconds:>9.3f}"
            f"{found.statistic_bytes / 2**20:>7.2f}{plan.worker(1) / 2**20:>11.0f}"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this process: {peak:,.0f} MB")
    plan_seconds, megabytes, units = planning(100_000, 64)
    print(f"100,000 footers: planned in {plan_seconds:.1f} s, {megabytes:.0f} MB, {units:,} units")
    return measured


def predict(measured: list[Constants], cores: int, price: float) -> None:
    """Print the time and cost of large releases."""
    print(f"\na release on {cores} cores at {price} per core-hour; every pass reads every row once")
    print(f"{'rows':>8}{'d':>5}{'K':>4}{'core-hours':>12}{'minutes':>9}{'cost':>8}{'TB read':>9}")
    passes = sum(PASSES.values())
    for rows in (1e8, 1e10):
        for shape in measured:
            core = shape.core_seconds(rows)
            driver = shape.noise_seconds * passes
            terabytes = rows * shape.dimension * FLOAT32_BYTES * passes / 1e12
            print(
                f"{rows:>8.0e}{shape.dimension:>5}{shape.components:>4}{core / 3600:>12,.1f}"
                f"{(core / cores + driver) / 60:>9,.1f}{core / 3600 * price:>8,.2f}"
                f"{terabytes:>9,.2f}"
            )


def main() -> None:
    """Measure and print what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task", choices=["constants", "predict", "cluster", "release"])
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--files", type=int)
    parser.add_argument("--cores", type=int, default=100)
    parser.add_argument("--price", type=float, default=PRICE)
    of_release = parser.add_argument_group("of a release")
    of_release.add_argument("--rows", type=int, default=1_000_000)
    of_release.add_argument("--dimension", type=int, default=16)
    of_release.add_argument("--row-group", type=int, default=1 << 16)
    of_release.add_argument("--local-workers", type=int, default=2)
    of_release.add_argument("--memory", default="2GB", help="limit of each worker")
    of_release.add_argument("--store", choices=["local", "s3"], default="local")
    of_release.add_argument(
        "--twin", action="store_true", help="compare with a release of one local file"
    )
    of_release.add_argument("--scratch", help="directory for the rows")
    arguments = parser.parse_args()
    if arguments.task == "cluster":
        simulate(arguments.workers, arguments.files or 100_000)
        return
    if arguments.task == "release":
        arguments.files = arguments.files or 8
        run_release(arguments)
        return
    measured = show_constants(SHAPES)
    if arguments.task == "predict":
        predict(measured, arguments.cores, arguments.price)


if __name__ == "__main__":
    main()
