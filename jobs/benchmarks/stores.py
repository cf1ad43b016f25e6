"""Time to read Parquet from object stores, with the clients of fsspec and of Arrow, in one run.

    tests/external/install_emulators.sh
    python jobs/benchmarks/stores.py [--rows 200000] [--repeats 5] [--stores s3,azure,gcs]

Four files with rows of 64 float32 are on emulators of the three stores on this machine. One thread
reads them as a pass does. This compares the work of the clients. There is no network in between;
with the latency of a network, fetching ahead gains more. "dpgmm" is the client that a release uses.
Ratios are to fsspec without fetching ahead, and each is taken within one repeat.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[2]))
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

from dpgmm_dist.storage.arrow_stores import arrow_filesystem
from dpgmm_dist.storage.parquet_files import opened
from tests.external.emulators import EMULATORS, ObjectStore

WIDTH, FILES = 64, 4
Open = Callable[[str], Any]


def main() -> None:
    """Fill each store, read it with every client, print medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--stores", default=",".join(EMULATORS))
    options = parser.parse_args()
    print(f"{'store':6} {'client':24} {'wall s':>7} {'cpu s':>7} {'wall x':>7} {'cpu x':>7}")
    for name in options.stores.split(","):
        with TemporaryDirectory() as folder, EMULATORS[name](Path(folder)) as emulator:
            store = emulator.bucket()
            paths = write_files(store, Path(folder), options.rows // FILES)
            compare(name, clients(store), paths, options)


def write_files(store: ObjectStore, folder: Path, rows: int) -> list[str]:
    """Write files of ``rows`` rows in two row groups; returns their paths."""
    rng, paths = np.random.default_rng(0), []
    for i in range(FILES):
        values = pa.array(rng.standard_normal(rows * WIDTH, dtype=np.float32))
        offsets = np.arange(0, (rows + 1) * WIDTH, WIDTH, dtype=np.int32)
        table = pa.table({"x": pa.ListArray.from_arrays(offsets, values)})
        pq.write_table(table, folder / "rows.parquet", row_group_size=max(rows // 2, 1))
        path = f"{store.url.partition('://')[2]}/{i}.parquet"
        store.fs.pipe_file(path, (folder / "rows.parquet").read_bytes())
        paths.append(path)
    return paths


def clients(store: ObjectStore) -> dict[str, Open]:
    """Functions that open a Parquet file, by name of the client."""
    fs = store.fs
    arrow = arrow_filesystem(fs) or s3_of(store)

    @contextmanager
    def by_fsspec(path: str, ahead: bool) -> Iterator[Any]:
        with fs.open(path, "rb", cache_type="none") as handle:
            yield pq.ParquetFile(handle, pre_buffer=ahead)

    @contextmanager
    def by_arrow(path: str) -> Iterator[Any]:
        with arrow.open_input_file(path) as handle:
            yield pq.ParquetFile(handle, pre_buffer=True)

    return {
        "fsspec": lambda path: by_fsspec(path, False),
        "fsspec, fetching ahead": lambda path: by_fsspec(path, True),
        "Arrow, fetching ahead": by_arrow,
        "dpgmm": lambda path: opened(fs, path, 1, 1 << 24),
    }


def s3_of(store: ObjectStore) -> Any:
    """The S3 client of Arrow, which releases do not use."""
    options = store.storage_options
    return pafs.S3FileSystem(
        access_key=options["key"],
        secret_key=options["secret"],
        endpoint_override=options["endpoint_url"],
        region=options["client_kwargs"]["region_name"],
    )


def compare(name: str, openers: dict[str, Open], paths: list[str], options: Any) -> None:
    """Time all clients in every repeat, each time in another order; print a line for each."""
    rng = np.random.default_rng(1)
    times: dict[str, list[tuple[float, float]]] = {client: [] for client in openers}
    for repeat in range(options.repeats + 1):
        for client in rng.permutation(list(openers)).tolist():
            wall, cpu = time.perf_counter(), time.process_time()
            rows = sum(read(openers[client], path) for path in paths)
            elapsed = time.perf_counter() - wall, time.process_time() - cpu
            if rows != options.rows // FILES * FILES:
                raise SystemExit(f"{name}, {client}: {rows} rows read of {options.rows}")
            if repeat:  # the first round includes connecting
                times[client].append(elapsed)
    for client, pairs in times.items():
        wall, cpu = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
        ratios = [
            statistics.median(a[i] / b[i] for a, b in zip(pairs, times["fsspec"], strict=True))
            for i in (0, 1)
        ]
        print(f"{name:6} {client:24} {wall:7.3f} {cpu:7.3f} {ratios[0]:7.2f} {ratios[1]:7.2f}")


def read(open_file: Open, path: str) -> int:
    """Read a file in batches, as a pass does; returns its number of rows."""
    with open_file(path) as file:
        batches = file.iter_batches(batch_size=1 << 15, use_threads=False)
        return sum(len(batch) for batch in batches)


if __name__ == "__main__":
    main()
