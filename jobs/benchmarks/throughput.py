"""Speed of passes compared with a bare numpy loop over the same Parquet files, in one run.

    python jobs/benchmarks/throughput.py [--rows 1000000] [--repeats 5] [--output FILE]

Rows are drawn from a mixture and written as Parquet (float32 lists). Then all cases run in turn,
several times, so that they run under the same conditions. The bare loop reads with pyarrow, finds
the nearest centre with numpy, sorts stably and takes float64 X^T X of each component. This is the
least work that such a pass can do. "bare soft" weights by responsibilities instead; soft passes are
compared with it. Absolute times drift, so compare the ratios; each is taken within one repeat.
"cpu" is processor time of this process. Other work on the machine affects it less than "wall". It
does not include the workers of Dask. "1->2" is the speedup from a second thread or worker, and
"gain" is that speedup divided by the speedup of the bare loop. Each whole release runs in a new
process: "start" is the time until Python has imported what it needs, "end" the time that the
process takes to end after the release, and "driver" the time of the release outside of passes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from whole_release import whole_release
from workload import (
    HARD,
    SOFT,
    PreparedPasses,
    Workload,
    bare_pass,
    bare_soft_pass,
    mixture_of,
    workload,
)

from dpgmm_dist.engine.cluster import open_cluster
from dpgmm_dist.engine.config import ClusterConfig
from dpgmm_dist.engine.local import LocalEngine

DASK = "hard, Dask workers"

Times = tuple[float, float]
"""Wall and processor seconds."""


def timed(run: Callable[[], object]) -> Times:
    """Wall and processor seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(load: Workload, repeats: int) -> dict[str, list[Times]]:
    """Times of every case; the cases take turns. A first round warms up the disk cache."""
    passes = PreparedPasses.over(load)
    cases: dict[str, Callable[[], object]] = {}
    for threads in (1, 2):
        cases[f"bare/{threads}"] = lambda t=threads: bare_pass(load, t)
        cases[f"bare soft/{threads}"] = lambda t=threads: bare_soft_pass(load, t)
        uncached, cached = LocalEngine(threads, cache_bytes=0), LocalEngine(threads)
        for name in passes.contexts:
            cases[f"{name}/{threads}"] = lambda n=name, e=uncached: passes.run(n, e)
        for name in (HARD, SOFT):
            cases[f"{name}, rows kept/{threads}"] = lambda n=name, e=cached: passes.run(n, e)
        passes.run("moments.sum", cached)
    with ExitStack() as stack:
        for workers in (1, 2):
            dask = stack.enter_context(open_cluster(ClusterConfig(kind="local", workers=workers)))
            cases[f"{DASK}/{workers}"] = lambda e=dask: passes.run(HARD, e)
        times: dict[str, list[Times]] = {name: [] for name in cases}
        for name, run in cases.items():
            if name.startswith(("bare", DASK)):
                run()
        for _ in range(repeats):
            for name, run in cases.items():
                times[name].append(timed(run))
    return times


def releases(load: Workload, repeats: int) -> dict[str, dict[str, float]]:
    """Times of whole releases in units of a bare pass on two threads in the same repeat."""
    medians: dict[str, dict[str, float]] = {}
    for kind in ("hard", "soft"):
        times = []
        for _ in range(repeats):
            bare = timed(lambda: bare_pass(load, 2))[0]
            release = whole_release(load, kind)
            parts = release.whole, release.start, release.end, release.passes, release.driver
            times.append([bare, *(part / bare for part in parts)])
        names = ("bare_seconds", "whole", "start", "end", "passes", "driver")
        medians[kind] = dict(
            zip(names, map(statistics.median, zip(*times, strict=True)), strict=True)
        )
    return medians


def noise_seconds(load: Workload) -> dict[str, float]:
    """Seconds to draw the noise of one components pass with each sampler."""
    from dpgmm_dist.privacy.noise import DiscreteGaussian
    from dpgmm_dist.privacy.rounded_gaussian import RoundedGaussian

    d = load.truth.dimension
    samples = load.truth.n_components * (1 + d + d * (d + 1) // 2)
    seconds = {}
    for name, sampler in (("OpenDP", DiscreteGaussian()), ("rounded", RoundedGaussian())):
        sampler.draw(2.0**30, 10)  # for imports and tables, which a process loads once
        seconds[name] = timed(lambda s=sampler: s.draw(2.0**30, samples))[0]
    return seconds


def peak_megabytes(options: argparse.Namespace, rows: int) -> float:
    """Peak resident memory of a process that runs one hard pass over ``rows`` rows."""
    with workload(rows, options.dimension, options.components, options.scratch) as load:
        command = [sys.executable, __file__, "--child", str(load.folder), str(load.norm)]
        command += ["--dimension", str(options.dimension)]
        command += ["--components", str(options.components)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def child(options: argparse.Namespace) -> None:
    """Run one hard pass; print the peak resident megabytes of this process."""
    import resource

    folder, norm = options.child
    load = Workload(Path(folder), mixture_of(options.components, options.dimension), float(norm))
    PreparedPasses.over(load).run(HARD, LocalEngine(2, cache_bytes=0))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def summary(times: dict[str, list[Times]]) -> list[dict[str, Any]]:
    """For each case: median seconds, and the median over repeats of its ratio to the bare loop."""
    bare_speedup = median_ratio(times["bare/1"], times["bare/2"], 0)
    rows = []
    for name, case_times in times.items():
        case, _, threads = name.rpartition("/")
        bare = times[f"bare soft/{threads}" if name.startswith("soft") else f"bare/{threads}"]
        row: dict[str, Any] = {"case": name}
        for index, kind in enumerate(("wall", "cpu")):
            row[f"{kind}_seconds"] = statistics.median(pair[index] for pair in case_times)
            row[f"{kind}_ratio"] = median_ratio(case_times, bare, index)
        single = times.get(f"{case}/1")
        has_speedup = single is not None and single is not case_times
        row["speedup"] = median_ratio(single, case_times, 0) if has_speedup else None
        row["gain"] = row["speedup"] / bare_speedup if has_speedup else None
        rows.append(row)
    return rows


def median_ratio(times: list[Times], others: list[Times], index: int) -> float:
    """Median over the repeats of the ratio of wall (0) or processor (1) seconds in each."""
    return statistics.median(a[index] / b[index] for a, b in zip(times, others, strict=True))


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    columns = ("wall s", "cpu s", "wall x", "cpu x", "1->2", "gain")
    print(f"{'case / threads':<30}" + "".join(f"{name:>8}" for name in columns))
    for row in result["cases"]:
        speedup = "" if row["speedup"] is None else f"{row['speedup']:>8.2f}{row['gain']:>8.2f}"
        print(
            f"{row['case']:<30}{row['wall_seconds']:>8.3f}{row['cpu_seconds']:>8.3f}"
            f"{row['wall_ratio']:>8.2f}{row['cpu_ratio']:>8.2f}{speedup}"
        )
    noise = ", ".join(f"{name} {1e3 * s:.1f} ms" for name, s in result["noise_seconds"].items())
    print(f"noise of one components pass: {noise}")
    for kind, times in result["releases"].items():
        parts = ", ".join(f"{name} {x:.1f}" for name, x in times.items() if name != "bare_seconds")
        bare = times["bare_seconds"]
        print(f"a {kind} release, in bare passes on 2 threads of {bare:.2f} s each: {parts}")
    for rows, megabytes in result["peak_megabytes"].items():
        print(f"peak memory of a hard pass over {rows} rows: {megabytes:.0f} MB")


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--components", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--release-repeats", type=int, default=3)
    parser.add_argument("--memory-rows", type=int, nargs="*", default=[1_000_000, 4_000_000])
    parser.add_argument(
        "--scratch", help="directory for the rows; the default is that of the system"
    )
    parser.add_argument("--output", type=Path, default=Path("build/bench/throughput.json"))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    shape = options.rows, options.dimension, options.components
    with workload(*shape, options.scratch) as load:
        cases = summary(measure(load, options.repeats))
        whole = releases(load, options.release_repeats)
        noise = noise_seconds(load)
    result = {
        "rows": options.rows,
        "dimension": options.dimension,
        "components": options.components,
        "repeats": options.repeats,
        "cores": len(os.sched_getaffinity(0)),
        "cases": cases,
        "releases": whole,
        "noise_seconds": noise,
        "peak_megabytes": {str(n): peak_megabytes(options, n) for n in options.memory_rows},
    }
    show(result)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
