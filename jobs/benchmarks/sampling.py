"""Seconds and peak memory of `dpgmm sample` for several numbers of rows.

    python jobs/benchmarks/sampling.py RELEASE [--rows 1e6,1e7,1e8] [--partitions 100] [--workers N]

Each size runs in a new process and writes to build/bench/samples, which is deleted afterwards.
Memory is the largest resident size of any process of the run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

OUTPUT = Path("build/bench/samples")


def run(release: str, rows: int, partitions: int, workers: int | None) -> tuple[float, float, int]:
    """Run once; returns seconds, peak MB and bytes written."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    command = [
        *(sys.executable, "-m", "dpgmm_dist.cli", "sample", release, "--rows", str(rows)),
        *("--partitions", str(partitions), "--seed", "1", "--output", str(OUTPUT)),
        *(() if workers is None else ("--workers", str(workers))),
    ]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status != 0:
        raise SystemExit(f"failed: {' '.join(command)}")
    written = sum(path.stat().st_size for path in OUTPUT.glob("part-*.parquet"))
    shutil.rmtree(OUTPUT)
    return seconds, usage.ru_maxrss / 1024, written


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("release")
    parser.add_argument(
        "--rows", type=lambda s: [int(float(n)) for n in s.split(",")], default=[10**6, 10**7]
    )
    parser.add_argument("--partitions", type=int, default=100)
    parser.add_argument("--workers", type=int, default=None)
    args = parser.parse_args()
    print(f"{'rows':>13} {'seconds':>9} {'rows/s':>12} {'peak MB':>8} {'GB written':>11}")
    for rows in args.rows:
        seconds, peak, written = run(args.release, rows, args.partitions, args.workers)
        print(
            f"{rows:>13,} {seconds:>9.1f} {rows / seconds:>12,.0f} {peak:>8.0f} "
            f"{written / 1e9:>11.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
