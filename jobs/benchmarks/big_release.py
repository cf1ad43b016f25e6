r"""One large release on local workers: what it takes beside what `dpgmm plan --footers` forecasts.

    python jobs/benchmarks/scale.py release --rows 100000000 --dimension 16
    python jobs/benchmarks/scale.py release --rows 5000000 --row-group 5000000 --files 1
    python jobs/benchmarks/scale.py release --rows 10000000 --row-group 100 --files 100
    python jobs/benchmarks/scale.py release --rows 1000000 --dimension 4 --files 20000 --store s3 \
        --twin

The rows are of three Gaussians, in float32, uncompressed; they are deleted at the end. The release
is private, and runs in a process of its own, as ``dpgmm release`` does. ``--store s3`` puts the
rows on the emulator of tests/external/install_emulators.sh. With ``--twin`` they are released twice
more, in a few passes with test noise: from where they are, and from one local file with the same
rows. The two releases must be the same byte for byte.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.budget.runs import runs
from dpgmm_dist.pipeline.plan import plan
from dpgmm_dist.pipeline.work_estimate import PlannedWork, plan_work
from dpgmm_dist.spec.release_spec import ReleaseSpec
from dpgmm_dist.storage.store import open_store

ROOT = Path(__file__).parents[2]
COMPONENTS = 3
WRITTEN_AT_ONCE = 1 << 22
"""Numbers that are made up at once."""
MIB = 1 << 20


def run_release(options: Namespace) -> None:
    """Write the rows, forecast, release, print both."""
    with TemporaryDirectory(dir=options.scratch) as temporary, rows_in(options, temporary) as rows:
        ledger = f"{temporary}/ledger"
        Ledger.init(ledger, 2.0, 1e-5)
        document = specification(options, rows, ledger)
        spec = ReleaseSpec.from_dict(document)
        forecast = plan_work(spec, plan(spec, rows=options.rows), footers=True)
        begun, asked = processor_seconds(), requests(temporary)
        release_files(document, Path(temporary) / "release")
        (record,) = runs(open_store(ledger))
        show(options, forecast, record)
        print(f"processor seconds of all processes: {processor_seconds() - begun:,.1f}")
        if options.store == "s3":
            print(f"requests: {requests(temporary) - asked:,}")
        if options.twin:
            compare_with_local(document, Path(temporary))


def processor_seconds() -> float:
    """Processor seconds of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def requests(temporary: str) -> int:
    """How many requests the emulator of S3 has answered."""
    log = Path(temporary) / "moto.log"
    return log.read_bytes().count(b" HTTP/1.") if log.exists() else 0


def release_files(document: dict[str, Any], output: Path, *options: str) -> dict[str, bytes]:
    """Release in a process of its own; return the files of the mixture."""
    file = output.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(document))
    words = ["release", str(file), "--output", str(output), *options]
    subprocess.run(
        [sys.executable, "-m", "dpgmm_dist.cli", *words], check=True, capture_output=True
    )
    return {path.name: path.read_bytes() for path in output.glob("*.parquet")}


def compare_with_local(document: dict[str, Any], folder: Path) -> None:
    """Release the rows and a local copy of them in one file, both with the same test noise.

    One component takes the fewest passes.
    """
    (folder / "one").mkdir()
    rows = pa.concat_tables(pq.read_table(path) for path in sorted((folder / "rows").iterdir()))
    pq.write_table(rows, folder / "one" / "all.parquet")
    privacy = {**document["privacy"], "ledger": None}
    document = {**document, "privacy": privacy, "model": {"components": 1}}
    local = {**document["dataset"], "path": str(folder / "one"), "storage_options": {}}
    same = ("--insecure-test-noise", "5", "--release-id", "same")
    there, local = (
        release_files({**document, "dataset": dataset}, folder / name, *same)
        for name, dataset in (("there", document["dataset"]), ("here", local))
    )
    if there != local:
        raise SystemExit("the release differs from that of one local file")
    print(f"{', '.join(sorted(there))}: byte for byte those of one local file")


@contextmanager
def rows_in(options: Namespace, temporary: str) -> Iterator[dict[str, Any]]:
    """The keys of ``dataset`` that say where the rows are."""
    folder = Path(temporary) / "rows"
    write_rows(folder, options)
    if options.store == "local":
        yield {"path": str(folder)}
        return
    sys.path.insert(0, str(ROOT))
    from tests.external.emulators import EMULATORS

    with EMULATORS[options.store](Path(temporary)) as emulator:
        bucket = emulator.bucket()
        url = bucket.upload(folder, "rows")
        yield {"path": url, "storage_options": bucket.storage_options}


def write_rows(folder: Path, options: Namespace) -> None:
    """Files of nearly equal size, each in row groups of at most ``options.row_group`` rows."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    d = options.dimension
    means = rng.standard_normal((COMPONENTS, d), dtype=np.float32)
    schema = pa.schema([("x", pa.list_(pa.float32(), d))])
    ends = [options.rows * file // options.files for file in range(options.files + 1)]
    for file in range(options.files):
        path = folder / f"part-{file:06d}.parquet"
        with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
            for start in range(ends[file], ends[file + 1], options.row_group):
                group = min(options.row_group, ends[file + 1] - start)
                writer.write_table(made_up(rng, means, group, schema), row_group_size=group)


def made_up(rng: np.random.Generator, means: Any, rows: int, schema: pa.Schema) -> pa.Table:
    """Rows of the mixture; whole blocks of them are of one component."""
    d = means.shape[1]
    x = rng.standard_normal((rows, d), dtype=np.float32)
    step = max(1, min(WRITTEN_AT_ONCE // d, rows // COMPONENTS))
    for number, start in enumerate(range(0, rows, step)):
        x[start : start + step] += means[number % COMPONENTS]
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), d)
    return pa.table([column], schema=schema)


def specification(options: Namespace, rows: dict[str, Any], ledger: str) -> dict[str, Any]:
    """A release with hard assignments on local workers of one thread."""
    workers = {"workers": options.local_workers, "memory": options.memory}
    return {
        "dataset": {**rows, "features": "x", "width": options.dimension},
        "bounds": {"norm": 2.0 * options.dimension**0.5},
        "privacy": {"epsilon": 1.0, "delta": 1e-6, "ledger": ledger},
        "model": {"components": COMPONENTS, "assignment": "hard"},
        "cluster": {"kind": "local", **workers},
    }


def show(options: Namespace, forecast: PlannedWork, record: dict[str, Any]) -> None:
    """Print what was measured, and the forecast beside it."""
    passes = record["passes"]
    wall = sum(done["wall_seconds"] for done in passes)
    processor = sum(done["processor_seconds"] for done in passes)
    worker = max(done["worker_peak_bytes"] for done in passes)
    read = options.rows * len(passes)
    print(
        f"{options.rows:,} rows of {options.dimension} features in {options.files:,} file(s) with "
        f"row groups of {options.row_group:,} rows, {options.local_workers} workers of one thread"
    )
    print(
        f"{len(passes)} passes of {passes[-1]['tasks']:,} tasks: {read / wall:,.0f} rows a second, "
        f"{read / processor:,.0f} a processor second"
    )
    print(f"{'':28}{'forecast':>10}{'measured':>10}{'ratio':>8}")
    lines = (
        (
            "whole run, s",
            forecast.pass_seconds + forecast.driver_seconds,
            record["wall_seconds"],
        ),
        ("passes, s", forecast.pass_seconds, wall),
        ("passes, processor s", forecast.pass_seconds * forecast.cores, processor),
        ("peak of a worker, MiB", forecast.worker_memory / MIB, worker / MIB),
        (
            "peak of the driver, MiB",
            forecast.driver_memory / MIB,
            record["driver_peak_bytes"] / MIB,
        ),
    )
    for name, expected, found in lines:
        print(f"{name:28}{expected:>10,.1f}{found:>10,.1f}{expected / found:>8.2f}")
