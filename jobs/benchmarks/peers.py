"""Time of whole releases compared with fits of the same rows by scikit-learn, in one run.

    python jobs/benchmarks/peers.py [--rows 1000000] [--repeats 3] [--output FILE]

The rows are those of throughput.py. A release of dpgmm is private and runs in a new process; its
time includes start-up, reading and writing. The models of scikit-learn are not private, have their
rows in memory, and use all cores: one EM iteration of GaussianMixture (full covariances), and a
whole KMeans fit with one initialisation. Every repeat runs all cases in turn; compare the ratios.

    python jobs/benchmarks/peers.py --whole [--rows 1000000] [--dimension 16] [--limit 600]
        [--memory 16000] [--google FOLDER]

compares whole fits instead, each in a process of its own: scikit-learn's GaussianMixture and Spark
MLlib's to convergence, dask-ml's KMeans, and Google's private clustering (whole_peers.py).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from whole_peers import NAMES, compare
from whole_release import whole_release
from workload import Workload, bare_pass, workload

REFERENCE_ROWS = 100_000
"""Rows for EM. All rows would take minutes, and its time is linear in the number of rows."""
BARE = "bare pass (reads, nearest centre, X^T X)"
EM = "scikit-learn GaussianMixture, one EM iteration"
KMEANS = "scikit-learn KMeans, whole fit"
RELEASES = {kind: f"dpgmm release, {kind} assignment, whole" for kind in ("hard", "soft")}


def seconds(run: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def em_iteration(load: Workload) -> float:
    """Wall seconds of one EM iteration of scikit-learn with full covariances over all rows.

    Extrapolated from `REFERENCE_ROWS` rows: half the difference between a fit of three iterations
    and a fit of one.
    """
    from sklearn.mixture import GaussianMixture

    rows = min(load.rows, REFERENCE_ROWS)
    x, _ = load.truth.sample(rows, 1)

    def fit(iterations: int) -> float:
        model = GaussianMixture(
            load.truth.n_components,
            max_iter=iterations,
            tol=0.0,
            weights_init=load.truth.weights,
            means_init=load.truth.means,
            precisions_init=np.linalg.inv(load.truth.covariances),
            init_params="random_from_data",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns that the fit has not converged
            return seconds(lambda: model.fit(x))

    one_iteration, three_iterations = fit(1), fit(3)
    return (three_iterations - one_iteration) * load.rows / rows / 2


def kmeans_fit(load: Workload) -> float:
    """Wall seconds of a whole KMeans fit with one initialisation over all rows in float32."""
    from sklearn.cluster import KMeans

    x, _ = load.truth.sample(load.rows, 1)
    x = x.astype(np.float32)
    return seconds(lambda: KMeans(load.truth.n_components, n_init=1, random_state=0).fit(x))


def measure(load: Workload, repeats: int) -> dict[str, list[float]]:
    """Wall seconds of every case; the cases take turns."""
    cases: dict[str, Callable[[], float]] = {
        BARE: lambda: seconds(lambda: bare_pass(load, 2)),
        EM: lambda: em_iteration(load),
        KMEANS: lambda: kmeans_fit(load),
        **{name: lambda k=kind: whole_release(load, k).whole for kind, name in RELEASES.items()},
    }
    bare_pass(load, 2)  # warms up the disk cache
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, run in cases.items():
            times[name].append(run())
    return times


def summary(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Median seconds of each case, and its median ratios to a bare pass and an EM iteration."""

    def ratio(name: str, to: str) -> float:
        return statistics.median(a / b for a, b in zip(times[name], times[to], strict=True))

    return [
        {
            "case": name,
            "seconds": statistics.median(case_times),
            "bare_passes": ratio(name, BARE),
            "em_iterations": ratio(name, EM),
        }
        for name, case_times in times.items()
    ]


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--components", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--scratch", help="directory for the rows; the default is that of the system"
    )
    parser.add_argument("--output", type=Path, default=Path("build/bench/peers.json"))
    whole = parser.add_argument_group("whole fits")
    whole.add_argument("--whole", action="store_true")
    whole.add_argument("--peers", default=",".join(NAMES), help="which, separated by commas")
    whole.add_argument("--limit", type=float, default=600, help="processor seconds of each")
    whole.add_argument("--memory", type=float, default=16_000, help="megabytes of each")
    whole.add_argument("--environments", type=Path, default=Path("build/peers"))
    whole.add_argument("--google", type=Path, help="the folder learning of Google's repository")
    options = parser.parse_args()
    if options.whole:
        with workload(options.rows, options.dimension, options.components, options.scratch) as load:
            write(options, compare(load, options))
        return
    with workload(options.rows, options.dimension, options.components, options.scratch) as load:
        cases = summary(measure(load, options.repeats))
    print(f"{'case':<50}{'wall s':>9}{'bare x':>8}{'EM x':>8}")
    for row in cases:
        print(
            f"{row['case']:<50}{row['seconds']:>9.2f}{row['bare_passes']:>8.2f}"
            f"{row['em_iterations']:>8.2f}"
        )
    write(options, cases)


def write(options: argparse.Namespace, cases: list[dict[str, Any]]) -> None:
    """Write the cases as JSON."""
    result = {
        "rows": options.rows,
        "dimension": options.dimension,
        "components": options.components,
        "repeats": options.repeats,
        "cores": len(os.sched_getaffinity(0)),
        "cases": cases,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
