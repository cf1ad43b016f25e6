"""Time to read Parquet from object stores, with the clients of fsspec and of Arrow, in one run.

    tests/external/install_emulators.sh
    python jobs/benchmarks/stores.py [--rows 200000] [--files 4] [--repeats 5]
        [--stores s3,azure,gcs]

Files with rows of 64 float32 are on emulators of the three stores on this machine. One thread reads
them as a pass does. This compares the work of the clients. There is no network in between; with the
latency of a network, fetching ahead gains more. "dpgmm" is how a release reads: files up to 1 MiB
whole and several at a time, larger ones by the faster client. Ratios are to fsspec without fetching
ahead, and each is taken within one repeat.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
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
from dpgmm_dist.storage.parquet_files import FoundFile, Place, list_files, opened
from dpgmm_dist.storage.small_files import with_contents
from tests.external.emulators import EMULATORS, ObjectStore

WIDTH = 64
Client = Callable[[Sequence[FoundFile]], Iterator[pq.ParquetFile]]
"""Opens files, one after the other."""


def main() -> None:
    """Fill each store, read it with every client, print medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--stores", default=",".join(EMULATORS))
    options = parser.parse_args()
    print(f"{'store':6} {'client':24} {'wall s':>7} {'cpu s':>7} {'wall x':>7} {'cpu x':>7}")
    for name in options.stores.split(","):
        with TemporaryDirectory() as folder, EMULATORS[name](Path(folder)) as emulator:
            store = emulator.bucket()
            files = write_files(store, Path(folder), options)
            compare(name, clients(store), files, options)


def write_files(store: ObjectStore, folder: Path, options: Any) -> tuple[FoundFile, ...]:
    """Write files of equal size in two row groups; returns their listing."""
    rng, rows = np.random.default_rng(0), options.rows // options.files
    for i in range(options.files):
        values = pa.array(rng.standard_normal(rows * WIDTH, dtype=np.float32))
        offsets = np.arange(0, (rows + 1) * WIDTH, WIDTH, dtype=np.int32)
        table = pa.table({"x": pa.ListArray.from_arrays(offsets, values)})
        pq.write_table(table, folder / "rows.parquet", row_group_size=max(rows // 2, 1))
        path = store.below(f"rows/{i:06d}.parquet")
        store.fs.pipe_file(path, (folder / "rows.parquet").read_bytes())
    return list_files(Place(store.below("rows"), store.storage_options))


def clients(store: ObjectStore) -> dict[str, Client]:
    """Functions that open Parquet files, by name of the client."""
    fs = store.fs
    arrow = arrow_filesystem(fs) or s3_of(store)

    def by_fsspec(files: Sequence[FoundFile], ahead: bool) -> Iterator[pq.ParquetFile]:
        for file in files:
            with fs.open(file.path, "rb", cache_type="none") as handle:
                yield pq.ParquetFile(handle, pre_buffer=ahead)

    def by_arrow(files: Sequence[FoundFile]) -> Iterator[pq.ParquetFile]:
        for file in files:
            with arrow.open_input_file(file.path) as handle:
                yield pq.ParquetFile(handle, pre_buffer=True)

    def by_dpgmm(files: Sequence[FoundFile]) -> Iterator[pq.ParquetFile]:
        for file, content in with_contents(fs, files):
            with opened(fs, file.path, 1, 1 << 24, content=content) as parquet:
                yield parquet

    return {
        "fsspec": lambda files: by_fsspec(files, False),
        "fsspec, fetching ahead": lambda files: by_fsspec(files, True),
        "Arrow, fetching ahead": by_arrow,
        "dpgmm": by_dpgmm,
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


def compare(
    name: str, by_name: dict[str, Client], files: Sequence[FoundFile], options: Any
) -> None:
    """Time all clients in every repeat, each time in another order; print a line for each."""
    rng = np.random.default_rng(1)
    times: dict[str, list[tuple[float, float]]] = {client: [] for client in by_name}
    for repeat in range(options.repeats + 1):
        for client in rng.permutation(list(by_name)).tolist():
            wall, cpu = time.perf_counter(), time.process_time()
            rows = read(by_name[client], files)
            elapsed = time.perf_counter() - wall, time.process_time() - cpu
            if rows != options.rows // options.files * options.files:
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


def read(client: Client, files: Sequence[FoundFile]) -> int:
    """Read files in batches, as a pass does; returns their number of rows."""
    return sum(
        len(batch)
        for parquet in client(files)
        for batch in parquet.iter_batches(batch_size=1 << 15, use_threads=False)
    )


if __name__ == "__main__":
    main()
