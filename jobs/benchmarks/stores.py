"""Reading Parquet from object stores: by fsspec's clients and by Arrow's own, in one run.

    tests/external/install_emulators.sh
    python jobs/benchmarks/stores.py [--rows 200000] [--repeats 5] [--stores s3,azure,gcs]

Rows of 64 float32 in four files on emulators of the three stores on this machine, one thread, as a
pass reads them. What is compared is the clients' own work: there is no network between, and on one
with latency what is fetched ahead counts for more. "ours" is the path that a release takes; each
ratio to fsspec without fetching ahead is taken within one repeat.
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
    """Fill each store, read it in every way, print medians."""
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
            paths = filled(store, Path(folder), options.rows // FILES)
            compare(name, ways(store), paths, options)


def filled(store: ObjectStore, folder: Path, rows: int) -> list[str]:
    """Paths of files of ``rows`` rows each, two row groups in each."""
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


def ways(store: ObjectStore) -> dict[str, Open]:
    """Contexts of an open Parquet file, by what reads it."""
    fs = store.fs

    @contextmanager
    def by_fsspec(path: str, ahead: bool) -> Iterator[Any]:
        with fs.open(path, "rb", cache_type="none") as handle:
            yield pq.ParquetFile(handle, pre_buffer=ahead)

    @contextmanager
    def by_arrow(path: str) -> Iterator[Any]:
        with own.open_input_file(path) as handle:
            yield pq.ParquetFile(handle, pre_buffer=True)

    found: dict[str, Open] = {
        "fsspec": lambda path: by_fsspec(path, False),
        "fsspec, fetching ahead": lambda path: by_fsspec(path, True),
    }
    own = arrow_filesystem(fs) or s3_of(store)
    found["Arrow, fetching ahead"] = by_arrow
    found["ours"] = lambda path: opened(fs, path, 1, 1 << 24)
    return found


def s3_of(store: ObjectStore) -> Any:
    """Arrow's client of S3, which releases do not use."""
    given = store.storage_options
    return pafs.S3FileSystem(
        access_key=given["key"],
        secret_key=given["secret"],
        endpoint_override=given["endpoint_url"],
        region=given["client_kwargs"]["region_name"],
    )


def compare(name: str, found: dict[str, Open], paths: list[str], options: Any) -> None:
    """Time all ways in every repeat, in an order of its own."""
    rng = np.random.default_rng(1)
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in found}
    for repeat in range(options.repeats + 1):
        for way in rng.permutation(list(found)).tolist():
            wall, cpu = time.perf_counter(), time.process_time()
            rows = sum(read(found[way], path) for path in paths)
            took = time.perf_counter() - wall, time.process_time() - cpu
            if rows != options.rows // FILES * FILES:
                raise SystemExit(f"{name}, {way}: {rows} rows read of {options.rows}")
            if repeat:  # the first connects
                times[way].append(took)
    for way, taken in times.items():
        wall, cpu = (statistics.median(one) for one in zip(*taken, strict=True))
        ratios = [
            statistics.median(a[i] / b[i] for a, b in zip(taken, times["fsspec"], strict=True))
            for i in (0, 1)
        ]
        print(f"{name:6} {way:24} {wall:7.3f} {cpu:7.3f} {ratios[0]:7.2f} {ratios[1]:7.2f}")


def read(way: Open, path: str) -> int:
    """Rows of a file, read in batches as a pass does."""
    with way(path) as file:
        return sum(len(one) for one in file.iter_batches(batch_size=1 << 15, use_threads=False))


if __name__ == "__main__":
    main()
