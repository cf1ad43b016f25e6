"""Speed of the passes against a bare numpy loop over the same Parquet, in one run.

    python jobs/benchmarks/throughput.py [--rows 1000000] [--repeats 5] [--output FILE]

Rows are drawn from a mixture and written as Parquet (float32 lists); then every case runs in turn,
again and again, so that all of them meet the same machine. The bare loop reads with pyarrow, finds
the nearest centre in numpy, sorts stably and takes float64 X^T X per component: the least that
any such pass can do; "bare soft" weighs by responsibilities instead, and soft passes are compared
with it. Absolute times drift; read the ratios, each taken within one repeat.
"cpu" is processor time of this process, which other work disturbs less than it disturbs "wall"
(that of Dask's workers is not in it). "1->2" is the gain from a second thread or worker, "gain"
that as a share of the bare loop's own. Whole releases run in processes of their own: "start" is
until Python has imported what it needs, "end" what it takes to end after that, "driver" what comes
between and is not inside passes.
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
from workload import HARD, SOFT, Ours, Workload, bare_pass, bare_soft_pass, mixture_of, workload

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
    """Times of every case, interleaved; the first round only warms up the disk cache."""
    ours = Ours.over(load)
    cases: dict[str, Callable[[], object]] = {}
    for threads in (1, 2):
        cases[f"bare/{threads}"] = lambda t=threads: bare_pass(load, t)
        cases[f"bare soft/{threads}"] = lambda t=threads: bare_soft_pass(load, t)
        reading, keeping = LocalEngine(threads, cache_bytes=0), LocalEngine(threads)
        for name in ours.contexts:
            cases[f"{name}/{threads}"] = lambda n=name, e=reading: ours.run(n, e)
        for name in (HARD, SOFT):
            cases[f"{name}, rows kept/{threads}"] = lambda n=name, e=keeping: ours.run(n, e)
        ours.run("moments.sum", keeping)
    with ExitStack() as stack:
        for workers in (1, 2):
            dask = stack.enter_context(open_cluster(ClusterConfig(kind="local", workers=workers)))
            cases[f"{DASK}/{workers}"] = lambda e=dask: ours.run(HARD, e)
        found: dict[str, list[Times]] = {name: [] for name in cases}
        for name, run in cases.items():
            if name.startswith(("bare", DASK)):
                run()
        for _ in range(repeats):
            for name, run in cases.items():
                found[name].append(timed(run))
    return found


def releases(load: Workload, repeats: int) -> dict[str, dict[str, float]]:
    """Whole releases, each in bare passes on two threads of the same repeat."""
    found: dict[str, dict[str, float]] = {}
    for kind in ("hard", "soft"):
        times = []
        for _ in range(repeats):
            bare = timed(lambda: bare_pass(load, 2))[0]
            one = whole_release(load, kind)
            parts = one.whole, one.start, one.end, one.passes, one.driver
            times.append([bare, *(part / bare for part in parts)])
        names = ("bare_seconds", "whole", "start", "end", "passes", "driver")
        found[kind] = dict(
            zip(names, map(statistics.median, zip(*times, strict=True)), strict=True)
        )
    return found


def noise_seconds(load: Workload) -> dict[str, float]:
    """Seconds to draw the noise of one components pass, by each sampler."""
    from dpgmm_dist.privacy.noise import DiscreteGaussian
    from dpgmm_dist.privacy.rounded_gaussian import RoundedGaussian

    d = load.truth.dimension
    samples = load.truth.n_components * (1 + d + d * (d + 1) // 2)
    found = {}
    for name, sampler in (("OpenDP", DiscreteGaussian()), ("rounded", RoundedGaussian())):
        sampler.draw(2.0**30, 10)  # imports and tables, once a process
        found[name] = timed(lambda s=sampler: s.draw(2.0**30, samples))[0]
    return found


def peak_megabytes(options: argparse.Namespace, rows: int) -> float:
    """Peak resident memory of a process that runs one hard pass over ``rows`` rows."""
    with workload(rows, options.dimension, options.components, options.scratch) as load:
        command = [sys.executable, __file__, "--child", str(load.folder), str(load.norm)]
        command += ["--dimension", str(options.dimension)]
        command += ["--components", str(options.components)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def child(options: argparse.Namespace) -> None:
    """One hard pass; prints this process's peak resident megabytes."""
    import resource

    folder, norm = options.child
    load = Workload(Path(folder), mixture_of(options.components, options.dimension), float(norm))
    Ours.over(load).run(HARD, LocalEngine(2, cache_bytes=0))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def summary(found: dict[str, list[Times]]) -> list[dict[str, Any]]:
    """For each case: median seconds, and the median over repeats of its ratio to the bare loop."""
    rows = []
    for name, times in found.items():
        own = "bare soft/" if name.startswith("soft") else "bare/"
        bare = found[own + name.rpartition("/")[2]]
        one = found.get(name.rpartition("/")[0] + "/1")
        row: dict[str, Any] = {"case": name}
        for index, kind in enumerate(("wall", "cpu")):
            row[f"{kind}_seconds"] = statistics.median(t[index] for t in times)
            row[f"{kind}_ratio"] = median_ratio(times, bare, index)
        row["speedup"] = median_ratio(one, times, 0) if one and one is not times else None
        gain = statistics.median(a[0] / b[0] for a, b in zip(*pair(found), strict=True))
        row["gain"] = row["speedup"] / gain if row["speedup"] else None
        rows.append(row)
    return rows


def pair(found: dict[str, list[Times]]) -> tuple[list[Times], list[Times]]:
    """Times of the bare loop on one thread and on two."""
    return found["bare/1"], found["bare/2"]


def median_ratio(times: list[Times], others: list[Times], index: int) -> float:
    """Median over the repeats of the ratio within each."""
    return statistics.median(a[index] / b[index] for a, b in zip(times, others, strict=True))


def show(result: dict[str, Any]) -> None:
    """The table."""
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
        bare, *parts = times.items()
        told = ", ".join(f"{name} {x:.1f}" for name, x in parts)
        print(f"a {kind} release in bare passes on 2 threads, of {bare[1]:.2f} s: {told}")
    for rows, megabytes in result["peak_megabytes"].items():
        print(f"peak memory, hard pass, {rows} rows: {megabytes:.0f} MB")


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
    parser.add_argument("--scratch", help="directory for the rows; the system's own by default")
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
