"""A pass over many synthetic files on a scheduler with many light workers.

The driver, the scheduler and all workers together have a process each. The engine, the plan, the
client, the scheduler and the connections are real. The workers (light_workers.py) are not: they
finish every task at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from synthetic_files import DIMENSION, FILES_PER_TASK, empty_statistic, query_of, source_of

from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.engine import cluster
from dpgmm_dist.engine.memory import tasks_per_thread
from dpgmm_dist.passes.run import PassContext

FOLDER = Path(__file__).parent
WAVE = tasks_per_thread(0)
"""Tasks per thread of a wave, as releases use it where results are small."""
ALL_AT_ONCE = 1 << 40
"""Tasks per thread of a wave that holds the whole pass."""
KNOWN_TASKS = lambda dask_scheduler: len(dask_scheduler.tasks)  # noqa: E731 - pickled by value
SETTINGS = {
    # Those that the engine uses for the schedulers that it starts.
    "DASK_DISTRIBUTED__ADMIN__LOG_LENGTH": "0",
    "DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "0",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "null",
    "DASK_LOGGING__DISTRIBUTED": "error",
}


@dataclass
class Usage:
    """Time and memory of a process during an interval."""

    wall: float
    """Seconds."""
    cpu: float
    """Processor seconds."""
    before: float
    """Resident MB at the beginning."""
    peak: float
    """Most resident MB during the interval."""
    after: float
    """Resident MB at the end."""


class Watch:
    """Measures the time and memory of a process. Its memory is sampled 20 times a second."""

    def __init__(self, process: psutil.Process) -> None:
        self.process = process

    def megabytes(self) -> float:
        return self.process.memory_info().rss / 2**20

    def cpu(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system

    @contextmanager
    def during(self) -> Iterator[Usage]:
        """Measure while the block runs; the usage is complete when it ends."""
        stop = threading.Event()
        usage = Usage(time.perf_counter(), self.cpu(), self.megabytes(), 0.0, 0.0)

        def sample() -> None:
            while not stop.wait(0.05):
                usage.peak = max(usage.peak, self.megabytes())

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield usage
        finally:
            stop.set()
            thread.join()
            usage.wall = time.perf_counter() - usage.wall
            usage.cpu = self.cpu() - usage.cpu
            usage.after = self.megabytes()
            usage.peak = max(usage.peak, usage.after)


@contextmanager
def processes(workers: int) -> Iterator[tuple[Any, Watch, subprocess.Popen[str]]]:
    """Start a scheduler and light workers.

    Yields a client, a watch on the scheduler, and the process of the workers, which prints "ready"
    when all of them are registered.
    """
    import distributed

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scheduler.json"
        scheduler = subprocess.Popen(
            [
                *(sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"),
                *("--port", "0", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"),
                *("--scheduler-file", str(file)),
            ],
            env=os.environ | SETTINGS,
        )
        try:
            with distributed.Client(scheduler_file=str(file), timeout=60) as client:
                watch = Watch(psutil.Process(scheduler.pid))
                light = subprocess.Popen(
                    [
                        *(sys.executable, str(FOLDER / "light_workers.py"), str(file)),
                        *(str(workers), str(FILES_PER_TASK)),
                    ],
                    env=os.environ | SETTINGS,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,  # connections fail when the scheduler ends
                    text=True,
                )
                try:
                    yield client, watch, light
                    client.close()  # first, because it reports workers that leave
                finally:
                    light.terminate()
                    light.wait()
        finally:
            scheduler.terminate()
            scheduler.wait()


def simulate(workers: int, files: int) -> None:
    """Read footers, then run a pass in waves and a pass without; print the cost of each."""
    start = time.process_time()
    source = source_of(files)
    units = source.plan()
    print(
        f"{files:,} footers, d={DIMENSION}: {len(units):,} units, "
        f"planned in {time.process_time() - start:.1f} processor seconds of the driver"
    )
    context = PassContext(source, FeatureMap(DIMENSION, 1.0), query_of())
    print(f"a statistic has {empty_statistic().__sizeof__() / 2**20:.2f} MB")
    print(
        f"\n{'scheduler':<24}{'tasks':>8}{'known':>8}{'wall s':>8}{'cpu s':>8}"
        f"{'ms/task':>9}{'MB before':>11}{'MB more at peak':>17}{'MB after':>10}"
    )
    with processes(workers) as (client, watch, light):
        engine = cluster.DaskEngine(client)
        with watch.during() as usage:
            if light.stdout is None or light.stdout.readline() != "ready\n":
                raise SystemExit("the light workers did not start")
        print_row(f"{workers:,} workers register", 0, 0, usage)

        names = [footer.file for footer in source.footers()]
        parts = [names[i : i + FILES_PER_TASK] for i in range(0, files, FILES_PER_TASK)]
        with watch.during() as usage:
            footers = engine.gather(len, parts)  # light workers answer any such task with footers
        if sum(map(len, footers)) < files:
            raise SystemExit("footers are missing")
        print_row("footers, in waves", len(parts), 0, usage)
        del footers

        for name, wave in (("pass, in waves", WAVE), ("pass, flat", ALL_AT_ONCE)):
            cluster.tasks_per_thread = lambda _, wave=wave: wave
            known = KnownTasks(client)
            with watch.during() as usage, known:
                engine.run(context, units, lambda _: None)
            print_row(name, len(units), known.most, usage)


class KnownTasks:
    """The largest number of tasks that the scheduler knows, sampled three times a second."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.most = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.sample)

    def sample(self) -> None:
        """Ask the scheduler until `stop` is set."""
        while not self.stop.wait(0.3):
            self.most = max(self.most, self.client.run_on_scheduler(KNOWN_TASKS))

    def __enter__(self) -> KnownTasks:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()


def print_row(name: str, tasks: int, known: int, usage: Usage) -> None:
    """Print a line of the table."""
    per_task = f"{1000 * usage.cpu / tasks:.2f}" if tasks else ""
    print(
        f"{name:<24}{tasks:>8,}{known:>8,}{usage.wall:>8.1f}{usage.cpu:>8.1f}{per_task:>9}"
        f"{usage.before:>11.0f}{usage.peak - usage.before:>17.0f}{usage.after:>10.0f}",
        flush=True,
    )
