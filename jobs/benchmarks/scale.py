"""The constants of the model in docs/scaling.md, measured on this machine, and what they predict.

    python jobs/benchmarks/scale.py constants     rows a core second, noise, memory of the plan
    python jobs/benchmarks/scale.py predict       the same, and the time and cost of large releases
    python jobs/benchmarks/scale.py cluster [--workers 1000] [--files 100000]

``cluster`` is a Dask scheduler with light workers, whose tasks read nothing: the time and memory
that planning and scheduling take, whatever the rows (simulated_cluster.py).
"""

from __future__ import annotations

import argparse
import resource
import time
import tracemalloc
from dataclasses import dataclass
from typing import Any

import numpy as np
from workload import HARD, SOFT, Ours, plans, workload

from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.data.parquet_schema import Columns, Footer
from dpgmm_dist.data.source import ParquetSource
from dpgmm_dist.engine.local import LocalEngine
from dpgmm_dist.engine.memory import memory_plan
from dpgmm_dist.model.problem import Problem
from dpgmm_dist.passes.kernel import statistic_sizes
from dpgmm_dist.privacy.exact import ExactStatistic
from dpgmm_dist.privacy.measure import measure
from dpgmm_dist.privacy.noise import noise_source
from dpgmm_dist.privacy.query import PassQuery
from dpgmm_dist.storage.parquet_files import FoundFile, Place

SHAPES = ((16, 10), (64, 10), (128, 10), (256, 10))
VALUES = 3_000_000
REPEATS = 3
PASSES = {"moments": 2, "hard": 2, "soft": 3}
"""Of an unlabelled release: two of moments, two of cells, three of components."""
ROW_GROUPS = 8
GROUP_ROWS = 130_000
DIMENSION, COMPONENTS = 64, 10
"""Of the simulated cluster."""
FILES_PER_TASK = 200
"""As footers are read by the package."""
PRICE = 0.05
"""Currency units for a core and an hour: your own price goes here."""


@dataclass(frozen=True)
class Constants:
    """Of one shape (d, K)."""

    dimension: int
    components: int
    rows_per_second: dict[str, float]
    noise_seconds: float
    statistic_bytes: int

    def core_seconds(self, rows: float) -> float:
        return sum(n * rows / self.rows_per_second[name] for name, n in PASSES.items())


def constants(dimension: int, components: int) -> Constants:
    """Passes over rows on local disk, one thread, nothing kept between them."""
    rows = VALUES // dimension
    with workload(rows, dimension, components, None) as load:
        ours = Ours.over(load)
        engine = LocalEngine(threads=1, cache_bytes=0)
        names = {"moments": "moments.second", "hard": HARD, "soft": SOFT}
        speed = {
            name: rows / seconds(lambda step=step: ours.run(step, engine))
            for name, step in names.items()
        }
        query = ours.contexts[SOFT].query
        exact = ours.run(SOFT, engine)
        noise = noise_source("auto")
        drawn = seconds(lambda: measure(exact, query, noise))
        return Constants(dimension, components, speed, drawn, exact.__sizeof__())


def seconds(work: Any) -> float:
    """Processor seconds, the median of a few runs after one that does not count.

    Not the time that passed: other work on the machine would count as ours.
    """
    work()
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return float(np.median(times))


def synthetic(files: int, dimension: int) -> ParquetSource:
    """A source with footers as of ``files`` files of ``GROUP_ROWS`` rows; there are no files."""
    columns = Columns(("x",), False, None, ())
    footers = synthetic_footers(0, files, dimension)
    return ParquetSource(Place("s3://bucket/data", {}), columns, dimension, _footers=footers)


def synthetic_footers(first: int, count: int, dimension: int = DIMENSION) -> tuple[Footer, ...]:
    """Footers as of files that do not exist."""
    groups = tuple((GROUP_ROWS // ROW_GROUPS, 0) for _ in range(ROW_GROUPS))
    return tuple(
        Footer(
            FoundFile(f"bucket/data/part-{i:06d}.parquet", 1, f"etag:{i:032x}", ()),
            dimension,
            4,
            groups,
        )
        for i in range(first, first + count)
    )


def planning(files: int, dimension: int) -> tuple[float, float, int]:
    """Processor seconds to plan, MB of footers and plan on the driver, and units."""
    source = synthetic(files, dimension)
    start = time.process_time()
    source.plan()
    taken = time.process_time() - start
    del source
    tracemalloc.start()  # it makes planning ten times as slow
    source = synthetic(files, dimension)
    units = source.plan()
    held = tracemalloc.get_traced_memory()[0] / 2**20
    tracemalloc.stop()
    return taken, held, len(units)


def show_constants(shapes: tuple[tuple[int, int], ...]) -> list[Constants]:
    print("rows a processor second, by pass; seconds of noise; MB of a statistic, and of a worker")
    print(
        f"{'d':>4}{'K':>4}{'moments':>10}{'hard':>10}{'soft':>10}"
        f"{'noise s':>9}{'MB':>7}{'worker MB':>11}"
    )
    found = []
    for dimension, components in shapes:
        one = constants(dimension, components)
        found.append(one)
        problem = Problem(width=dimension, norm=1.0, rho=0.1, components=components)
        plan = memory_plan(problem, synthetic(1, dimension).plan())
        speed = "".join(f"{one.rows_per_second[name]:>10,.0f}" for name in PASSES)
        print(
            f"{dimension:>4}{components:>4}{speed}{one.noise_seconds:>9.3f}"
            f"{one.statistic_bytes / 2**20:>7.2f}{plan.worker(1) / 2**20:>11.0f}"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this process over all of it: {peak:,.0f} MB")
    taken, held, units = planning(100_000, 64)
    print(f"100,000 footers: planned in {taken:.1f} s, {held:.0f} MB, {units:,} units")
    return found


def predict(found: list[Constants], cores: int, price: float) -> None:
    print(f"\na release on {cores} cores at {price} a core-hour, reading each row once a pass")
    print(f"{'rows':>8}{'d':>5}{'K':>4}{'core-hours':>12}{'minutes':>9}{'cost':>8}{'TB read':>9}")
    for rows in (1e8, 1e10):
        for one in found:
            core = one.core_seconds(rows)
            driver = one.noise_seconds * sum(PASSES.values())
            terabytes = rows * one.dimension * 4 * sum(PASSES.values()) / 1e12
            print(
                f"{rows:>8.0e}{one.dimension:>5}{one.components:>4}{core / 3600:>12,.1f}"
                f"{(core / cores + driver) / 60:>9,.1f}{core / 3600 * price:>8,.2f}"
                f"{terabytes:>9,.2f}"
            )


def query_of(dimension: int, components: int = COMPONENTS) -> PassQuery:
    """A soft pass."""
    from workload import mixture_of

    from dpgmm_dist.model.plan import Latent
    from dpgmm_dist.pipeline.compile import compile_pass

    plan = plans(mixture_of(components, dimension), 1.0)[SOFT]
    return compile_pass(plan, Latent(dimension), FeatureMap(dimension, 1.0).step)


def statistic(dimension: int = DIMENSION) -> ExactStatistic:
    """What a task of that pass returns, of no rows."""
    query = query_of(dimension)
    return ExactStatistic.zeros(query.step, statistic_sizes(query))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["constants", "predict", "cluster"])
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--cores", type=int, default=100)
    parser.add_argument("--price", type=float, default=PRICE)
    arguments = parser.parse_args()
    if arguments.what == "cluster":
        from simulated_cluster import simulated

        simulated(arguments.workers, arguments.files, DIMENSION)
        return
    found = show_constants(SHAPES)
    if arguments.what == "predict":
        predict(found, arguments.cores, arguments.price)


if __name__ == "__main__":
    main()
