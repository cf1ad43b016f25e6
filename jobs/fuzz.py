"""Damaged input, at random but repeatable: every file that somebody else may have written.

    python jobs/fuzz.py [--seconds 60] [--seed 1] [--kind parquet]

Bytes of sound Parquet files, releases, ledgers, journals and specifications are changed, cut,
repeated and exchanged, and the files are read in a process with limited memory. They may be read,
or refused by a documented error. Another exception, a crash, a wait of more than a minute, memory
beyond the limit and new files are failures: each is printed with the seed that repeats it, and the
exit code is 1.

Arrow itself ends the process (SIGABRT, "terminate called") on some damaged Parquet files, which no
program that reads them in its own process can prevent. These are printed and are no failures.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MEMORY = 3 << 30
SECONDS = 60
KINDS = ("parquet", "release", "ledger", "journal", "specification")
SPEC = """
dataset: {path: data, features: x, width: 3, label: y, labels: [a, b]}
bounds: {norm: 1.0}
privacy: {epsilon: 0.1, delta: 1.0e-6}
model: {components: 1}
"""


def prepare(folder: Path) -> None:
    """Sound files of every kind."""
    from dpgmm_dist.budget.ledger import Ledger
    from dpgmm_dist.pipeline.release import release
    from dpgmm_dist.spec.release_spec import ReleaseSpec

    rng = np.random.default_rng(0)
    (folder / "data").mkdir()
    for part, compression in enumerate(("none", "zstd")):
        x = pa.array(list(rng.normal(size=(60, 3)) / 3), pa.list_(pa.float32()))
        y = pa.array(["a", "b"] * 30).dictionary_encode()
        table = pa.table({"x": x, "y": y, "n": pa.array(rng.normal(size=60))})
        pq.write_table(table, folder / "data" / f"{part}.parquet", compression=compression)
    (folder / "spec.yaml").write_text(SPEC)
    Ledger.init(str(folder / "ledger"), 1.0, 1e-5)
    spec = ReleaseSpec.from_yaml(
        folder / "spec.yaml",
        [f"dataset.path={folder / 'data'}", f"privacy.ledger={folder / 'ledger'}"],
        environ={},
    )
    release(spec, output=str(folder / "out"), release_id="first")


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with some of them changed."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        size = len(out)
        if not size:
            break
        start = int(rng.integers(size))
        end = min(size, start + int(rng.choice([1, 1, 2, 4, 8, 64])))
        how = int(rng.integers(6))
        if how == 0:
            out[start:end] = rng.bytes(end - start)
        elif how == 1:
            del out[start:end]
        elif how == 2:
            out[start:start] = out[start:end] * int(rng.integers(1, 50))
        elif how == 3:
            out[start:end] = b"\xff" * (end - start)
        elif how == 4:
            out[start] ^= 1 << int(rng.integers(8))
        else:
            out[start:end] = bytes(
                rng.choice(list(b'0123456789{}[]":,-.eE\n '), end - start).tolist()
            )
    return bytes(out)


def read(kind: str, folder: Path) -> None:
    """Read what was damaged, as the commands do."""
    from dpgmm_dist.artifact.load import load_release
    from dpgmm_dist.artifact.verify import verify_release
    from dpgmm_dist.budget.journal import Journal
    from dpgmm_dist.budget.ledger import Ledger
    from dpgmm_dist.data.parquet_schema import Columns
    from dpgmm_dist.data.source import ParquetSource
    from dpgmm_dist.privacy.measure import NoisyStatistic
    from dpgmm_dist.privacy.query import PassQuery
    from dpgmm_dist.spec.release_spec import ReleaseSpec
    from dpgmm_dist.storage.parquet_files import Place

    if kind == "parquet":
        place = Place(str(folder / "data"), {})
        for columns in (
            Columns(("x",), False, "y", ("a", "b")),
            Columns(("n",), True, None, (), unit="y"),
        ):
            source = ParquetSource.open(place, columns, width=1 if columns.table else 3)
            for unit in source.plan():
                for _ in source.blocks(unit, 17):
                    pass
    elif kind == "release":
        verify_release(str(folder / "out"))
        load_release(str(folder / "out")).sample(3, seed=1)
    elif kind == "ledger":
        ledger = Ledger.open(str(folder / "ledger"))
        ledger.show()
        ledger.verify()
    elif kind == "journal":
        journal = Journal.locate("first", str(folder / "out"), str(folder / "ledger"))
        journal.meta()
        for step in journal.steps():
            PassQuery.from_bytes(journal.query(step) or b"")
            NoisyStatistic.from_bytes(journal.answer(step) or b"")
        for path in (folder / "ledger" / "journal" / "first").glob("*.bin"):
            # Behind the seal, as a query of another version might be.
            PassQuery.from_bytes(path.read_bytes().partition(b"\n")[2])
    else:
        ReleaseSpec.from_yaml(folder / "spec.yaml", environ={}).digest()


def files_of(kind: str, folder: Path) -> list[Path]:
    """The files of one kind that may be damaged."""
    place = {
        "parquet": folder / "data",
        "release": folder / "out",
        "ledger": folder / "ledger" / "ledger",
        "journal": folder / "ledger" / "journal" / "first",
    }.get(kind)
    if place is None:
        return [folder / "spec.yaml"]
    return sorted(path for path in place.iterdir() if path.is_file())


def attempt(kind: str, sound: Path, seed: int) -> str:
    """Damage a copy and read it: "" if that went as it may, else what happened."""
    from dpgmm_dist.errors import DpgmmError

    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(shutil.copytree(sound, Path(name) / "copy"))
        files = files_of(kind, folder)
        path = files[int(rng.integers(len(files)))]
        path.write_bytes(damaged(path.read_bytes(), rng))
        if path.name == "receipt.json" or (path.suffix == ".parquet" and kind == "release"):
            mend_digest(folder / "out", path)
        before = {str(p) for p in Path(name).rglob("*")}
        try:
            read(kind, folder)
        except DpgmmError as error:
            if not str(error):
                return "an error without words"
        except BaseException as error:  # whatever it is, it should have been another
            return f"{type(error).__name__}: {str(error)[:200]}"
        if {str(p) for p in Path(name).rglob("*")} != before:
            return "it wrote files"
    return ""


def mend_digest(out: Path, path: Path) -> None:
    """Put the digest of a damaged file into the manifest, so that it is read all the same."""
    from dpgmm_dist.artifact.manifest import FileDigest

    manifest = json.loads((out / "release.json").read_bytes())
    digest = FileDigest.of(path.read_bytes())
    manifest["files"][path.name] = {"sha256": digest.sha256, "bytes": digest.size}
    (out / "release.json").write_text(json.dumps(manifest))


def _many(kind: str, sound: Path, seeds: range, until: float, tell: Callable[..., None]) -> None:
    """In a process of its own: many attempts; tells each seed before it is tried."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for seed in seeds:
        if time.monotonic() > until:
            break
        tell((seed, None))
        tell((seed, attempt(kind, sound, seed)))
    tell((None, None))


def fuzz(kind: str, sound: Path, first: int, seconds: float) -> tuple[int, list[str]]:
    """Attempts made in this time, and one line for each failure."""
    context = multiprocessing.get_context("fork")
    until, tried, failures = time.monotonic() + seconds, 0, []
    while time.monotonic() < until:
        receive, send = context.Pipe(duplex=False)
        process = context.Process(
            target=_many, args=(kind, sound, range(first + tried, 1 << 40), until, send.send)
        )
        process.start()
        send.close()
        seed, ended = first + tried, False
        try:
            while receive.poll(SECONDS):
                reported_seed, found = receive.recv()
                if reported_seed is None:
                    ended = True
                    break
                seed = reported_seed
                if found is not None:
                    tried += 1
                if found:
                    failures.append(f"{kind}, seed {seed}: {found}")
            else:
                failures.append(f"{kind}, seed {seed}: no answer within {SECONDS} seconds")
        except EOFError:
            process.join()
            how = f"{kind}, seed {seed}: the process ended with {process.exitcode}"
            if kind == "parquet" and process.exitcode == -signal.SIGABRT:
                print(f"{how}, by Arrow", flush=True)
            else:
                failures.append(how)
        process.kill()
        process.join()
        if ended:
            break
        tried = seed - first + 1
    return tried, failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS)
    chosen = parser.parse_args()
    kinds = [chosen.kind] if chosen.kind else list(KINDS)
    failures = []
    with tempfile.TemporaryDirectory(prefix="fuzz-sound-") as name:
        prepare(Path(name))
        for kind in kinds:
            tried, failed = fuzz(kind, Path(name), chosen.seed, chosen.seconds / len(kinds))
            print(f"{kind}: {tried:,} damaged inputs, {len(failed)} failures", flush=True)
            failures += failed
    print("\n".join(failures))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
