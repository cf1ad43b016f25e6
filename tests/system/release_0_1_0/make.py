"""How the files in this folder were made: by version 0.1.0, and never again by a later one.

    PYTHONPATH=CHECKOUT_OF_0.1.0 python make.py

Rows are made up. `rows.parquet` holds them, and the specifications name it by a relative path, so
the folder may be copied anywhere. What is released from it:

    ledger/, finished/       private noise: the release "finished-1" and its charge
    ledger/, killed/         private noise: "killed-1", killed in its fourth pass
    test-noise/              test noise, no ledger: "week-1", killed in its fourth pass
    test-noise-finished/     the same release, not killed, without its journal
    sample/                  rows drawn from finished/
    made_with.json           what the last bits of floating-point results depend on

A release that is charged to a ledger may be resumed on unchanged input alone. Files are recognised
by path and time, arrays by their content, so these releases are of arrays: a copy of the folder
has other paths and times.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.linalg  # loads its own BLAS, which `arithmetic` must see
from threadpoolctl import threadpool_info

ROWS, WIDTH, LABELS, SEED = 800, 3, (3, 5), 7
KILLED_IN_PASS = 4
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

TEST_NOISE = """\
dataset: {path: rows.parquet, features: x, width: 3, label: y, labels: [3, 5]}
bounds: {norm: 1.5}
privacy: {epsilon: 1.0, delta: 1e-6}
model: {components: 2}
"""
LEDGER = TEST_NOISE.replace("1e-6}", "1e-6, ledger: ledger}")


def write_rows() -> None:
    """Two labels and a value that is none, rows out of bounds and rows that are invalid."""
    rng = np.random.default_rng(0)
    y = rng.choice([*LABELS, 9], ROWS, p=[0.5, 0.4, 0.1])
    x = rng.normal(size=(ROWS, WIDTH)) * 0.25 + (y[:, None] - 4) * 0.3
    x[:5] *= 1e4
    x[::50, 1] = np.nan
    columns = {"x": pa.array(list(x.astype(np.float32)), pa.list_(pa.float32())), "y": pa.array(y)}
    pq.write_table(pa.table(columns), "rows.parquet")


def array_source() -> Any:
    """The rows as arrays."""
    from dpgmm_dist.data.arrays import ArraySource

    table = pq.read_table("rows.parquet")
    x = np.stack(table["x"].to_numpy()).astype(np.float32)
    return ArraySource(x, table["y"].to_numpy(), LABELS)


def release_array(spec: str, output: str, release_id: str, killed: bool) -> None:
    """Release the arrays; a process that is to be killed kills itself, before an answer."""
    from dpgmm_dist import ReleaseSpec, release

    def progress(event: Any) -> None:
        if killed and event.index == KILLED_IN_PASS:
            os.kill(os.getpid(), signal.SIGKILL)

    release(
        ReleaseSpec.from_yaml(Path(spec)),
        output=output,
        release_id=release_id,
        source=array_source(),
        insecure_test_noise=None if spec == "ledger.yaml" else SEED,
        progress=progress,
    )


def arithmetic() -> dict[str, Any]:
    """Versions and processor features that decide the last bits, and how Parquet is written."""
    libraries = (np, pa, scipy)
    blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return {
        "libraries": {library.__name__: library.__version__ for library in libraries},
        "libc": list(platform.libc_ver()),
        "simd": np.show_config(mode="dicts")["SIMD Extensions"]["found"],
        "blas": sorted({f"{pool['version']} {pool['architecture']}" for pool in blas}),
    }


def run(*arguments: object, code: int = 0) -> None:
    """Run Python with one BLAS thread; ends with an error unless the exit code is ``code``."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | ONE_THREAD, check=False)
    if done.returncode != code:
        raise SystemExit(f"{command}: exit code {done.returncode}")


def main() -> None:
    """Make everything anew in this folder."""
    os.chdir(Path(__file__).parent)
    write_rows()
    Path("test-noise.yaml").write_text(TEST_NOISE)
    Path("ledger.yaml").write_text(LEDGER)
    dpgmm = ("-m", "dpgmm_dist.cli")
    run(*dpgmm, "ledger", "init", "ledger", "--epsilon", 4, "--delta", 1e-5)
    killed = -signal.SIGKILL
    run("make.py", "ledger.yaml", "finished", "finished-1", "whole")
    run("make.py", "ledger.yaml", "killed", "killed-1", "killed", code=killed)
    run("make.py", "test-noise.yaml", "test-noise", "week-1", "killed", code=killed)
    noise = ("--release-id", "week-1", "--insecure-test-noise", SEED)
    run(*dpgmm, "release", "test-noise.yaml", "--output", "test-noise-finished", *noise)
    shutil.rmtree("test-noise-finished/_journal")
    run(*dpgmm, "sample", "finished", "--rows", 50, "--seed", 1, "--output", "sample")
    Path("made_with.json").write_text(json.dumps(arithmetic(), indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        release_array(*sys.argv[1:4], killed=sys.argv[4] == "killed")
