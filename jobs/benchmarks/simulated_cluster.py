"""A pass over many synthetic files on a scheduler with many light workers, each in its own process.

What is real: the driver's engine and plan, the client, the scheduler, their connections. What is
not: the workers (light_workers.py), which finish every task at once.
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
from scale import FILES_PER_TASK, query_of, statistic, synthetic

from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.engine import cluster
from dpgmm_dist.passes.run import PassContext

HERE = Path(__file__).parent
WAVES = cluster._WAVE_PER_THREAD
ALL_AT_ONCE = 1 << 40
TASKS_KNOWN = lambda dask_scheduler: len(dask_scheduler.tasks)  # noqa: E731 - travels by value
QUIET = {
    # As the engine sets them for schedulers that it starts itself.
    "DASK_DISTRIBUTED__ADMIN__LOG_LENGTH": "0",
    "DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "0",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "null",
    "DASK_LOGGING__DISTRIBUTED": "error",
}


@dataclass
class Used:
    """What a process took between two moments."""

    wall: float
    cpu: float
    before: float
    peak: float
    after: float


class Watch:
    """Wall and processor seconds of a process, and its resident MB, sampled."""

    def __init__(self, process: psutil.Process) -> None:
        self.process = process

    def megabytes(self) -> float:
        return self.process.memory_info().rss / 2**20

    def cpu(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system

    @contextmanager
    def over(self) -> Iterator[Used]:
        stop = threading.Event()
        used = Used(time.perf_counter(), self.cpu(), self.megabytes(), 0.0, 0.0)

        def sample() -> None:
            while not stop.wait(0.05):
                used.peak = max(used.peak, self.megabytes())

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield used
        finally:
            stop.set()
            thread.join()
            used.wall = time.perf_counter() - used.wall
            used.cpu = self.cpu() - used.cpu
            used.after = self.megabytes()
            used.peak = max(used.peak, used.after)


@contextmanager
def processes(workers: int) -> Iterator[tuple[Any, Watch, subprocess.Popen[str]]]:
    """A client, the scheduler's process, and that of the workers, which says when it is ready."""
    import distributed

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scheduler.json"
        scheduler = subprocess.Popen(
            [
                *(sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"),
                *("--port", "0", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"),
                *("--scheduler-file", str(file)),
            ],
            env=os.environ | QUIET,
        )
        try:
            with distributed.Client(scheduler_file=str(file), timeout=60) as client:
                watch = Watch(psutil.Process(scheduler.pid))
                light = subprocess.Popen(
                    [
                        *(sys.executable, str(HERE / "light_workers.py"), str(file)),
                        *(str(workers), str(FILES_PER_TASK)),
                    ],
                    env=os.environ | QUIET,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,  # connections that end with the scheduler
                    text=True,
                )
                try:
                    yield client, watch, light
                    client.close()  # before its workers go, which it would be told of
                finally:
                    light.terminate()
                    light.wait()
        finally:
            scheduler.terminate()
            scheduler.wait()


def simulated(workers: int, files: int, dimension: int) -> None:
    """Footers, then one pass in waves and one flat; prints what they cost the scheduler."""
    start = time.process_time()
    source = synthetic(files, dimension)
    units = source.plan()
    print(
        f"{files:,} footers, d={dimension}: {len(units):,} units, "
        f"planned in {time.process_time() - start:.1f} processor seconds of the driver"
    )
    context = PassContext(source, FeatureMap(dimension, 1.0), query_of(dimension))
    print(f"a statistic has {statistic().__sizeof__() / 2**20:.2f} MB")
    print(
        f"\n{'scheduler':<24}{'tasks':>8}{'known':>8}{'wall s':>8}{'cpu s':>8}"
        f"{'ms/task':>9}{'MB before':>11}{'MB more at peak':>17}{'MB after':>10}"
    )
    with processes(workers) as (client, watch, light):
        engine = cluster.DaskEngine(client)
        with watch.over() as used:
            if light.stdout is None or light.stdout.readline() != "ready\n":
                raise SystemExit("the light workers did not start")
        row(f"{workers:,} workers register", 0, 0, used)

        names = [footer.file for footer in source.footers()]
        parts = [names[i : i + FILES_PER_TASK] for i in range(0, files, FILES_PER_TASK)]
        with watch.over() as used:
            found = engine.gather(len, parts)  # light workers answer with footers to anything
        if sum(map(len, found)) < files:
            raise SystemExit("footers are missing")
        row("footers, in waves", len(parts), 0, used)
        del found

        for name, wave in (("pass, in waves", WAVES), ("pass, flat", ALL_AT_ONCE)):
            cluster._WAVE_PER_THREAD = wave
            known = Known(client)
            with watch.over() as used, known:
                engine.run(context, units, lambda _: None)
            row(name, len(units), known.most, used)


class Known:
    """The most tasks that the scheduler knows, asked a few times a second."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.most = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.ask)

    def ask(self) -> None:
        while not self.stop.wait(0.3):
            self.most = max(self.most, self.client.run_on_scheduler(TASKS_KNOWN))

    def __enter__(self) -> Known:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()


def row(name: str, tasks: int, known: int, used: Used) -> None:
    each = f"{1000 * used.cpu / tasks:.2f}" if tasks else ""
    print(
        f"{name:<24}{tasks:>8,}{known:>8,}{used.wall:>8.1f}{used.cpu:>8.1f}{each:>9}"
        f"{used.before:>11.0f}{used.peak - used.before:>17.0f}{used.after:>10.0f}",
        flush=True,
    )
