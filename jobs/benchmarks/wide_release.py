"""Peak memory of driver and worker of a release of many features and labels, beside the forecast.

    python jobs/benchmarks/wide_release.py --features 512 --labels 1000 --rows 20000

Rows are made up: labels with means of their own, and variances that fall along the features. The
release is private and kept nowhere. It has one worker process of one thread. A large epsilon lets
few rows have what takes most memory: covariances of labels.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from dpgmm_dist.engine.memory import memory_plan
from dpgmm_dist.pipeline.release import release
from dpgmm_dist.pipeline.resolve import open_dataset, problem_of
from dpgmm_dist.progress import PassProgress
from dpgmm_dist.spec.release_spec import ReleaseSpec

ROWS_PER_FILE = 4096
MIB = 1 << 20


def write_rows(folder: Path, features: int, labels: int, rows: int) -> None:
    """Files of rows within the unit ball, or nearly so."""
    rng = np.random.default_rng(0)
    means = 0.3 * rng.standard_normal((labels, features), dtype=np.float32) / np.sqrt(features)
    scale = 1 / np.sqrt(1 + np.arange(features) / 20)
    scale = (0.5 * scale / np.linalg.norm(scale)).astype(np.float32)
    for start in range(0, rows, ROWS_PER_FILE):
        count = min(ROWS_PER_FILE, rows - start)
        y = rng.integers(labels, size=count)
        x = means[y] + scale * rng.standard_normal((count, features), dtype=np.float32)
        column = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), features)
        table = pa.table({"embedding": column, "label": pa.array(y)})
        pq.write_table(table, folder / f"part-{start:09d}.parquet")


def specification(folder: Path, arguments: argparse.Namespace) -> ReleaseSpec:
    """The release of the rows in a folder, with one worker."""
    return ReleaseSpec.from_dict(
        {
            "dataset": {
                "path": str(folder),
                "features": "embedding",
                "width": arguments.features,
                "label": "label",
                "labels": list(range(arguments.labels)),
            },
            "bounds": {"norm": 1.0},
            "privacy": {"epsilon": arguments.epsilon, "delta": 1e-6},
            "model": {"dimension": arguments.dimension},
            "cluster": {"kind": "local", "workers": 1, "memory": arguments.memory},
        }
    )


class Peaks:
    """The most memory that this process and its largest child have had."""

    def __init__(self) -> None:
        self.driver = self.worker = 0

    def note(self, _: PassProgress | None = None) -> None:
        """Look once more; the system keeps the peak of each process."""
        this = psutil.Process()
        self.driver = peak(this.pid)
        children = [peak(child.pid) for child in this.children(recursive=True)]
        self.worker = max([self.worker, *children])


def peak(process: int) -> int:
    """The largest resident memory (bytes) of a process, 0 if it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    kilobytes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return 1024 * int(kilobytes[0]) if kilobytes else 0


def main() -> None:
    """Release made-up rows and print what was forecast and what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dimension", type=int)
    parser.add_argument("--epsilon", type=float, default=100.0)
    parser.add_argument("--memory", default="4GB")
    arguments = parser.parse_args()
    peaks = Peaks()
    with TemporaryDirectory() as scratch:
        rows, output = Path(scratch) / "rows", Path(scratch) / "release"
        rows.mkdir()
        write_rows(rows, arguments.features, arguments.labels, arguments.rows)
        spec = specification(rows, arguments)
        problem = problem_of(spec, arguments.features, 1.0)
        plan = memory_plan(problem, open_dataset(spec.dataset).plan())
        start = time.process_time()
        result = release(spec, output=str(output), progress=peaks.note)
        peaks.note()
    notes = result.fitted.notes if result.fitted else {}
    print(notes.get("structure"))
    print(f"driver: {time.process_time() - start:,.0f} processor seconds")
    for name, forecast, found in (
        ("worker", plan.worker(1), peaks.worker),
        ("driver", plan.driver, peaks.driver),
    ):
        print(f"{name}: forecast {forecast / MIB:,.0f} MiB, peak {found / MIB:,.0f} MiB")


if __name__ == "__main__":
    main()
