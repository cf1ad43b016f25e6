"""Releases on clusters whose workers, scheduler or store meet trouble in the middle of a pass."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.data.source import ParquetSource
from dpgmm_dist.pipeline import release as story
from dpgmm_dist.pipeline.release import release
from dpgmm_dist.privacy.noise import insecure_noise
from dpgmm_dist.spec.release_spec import ReleaseSpec

from .command_server import Command
from .releases import Rows, digests, environment, labelled, write_spec

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ID = "week-1"
ROWS = Rows.make(3000)
FILES = 12
SEED = 7

THREADS = tuple(
    word
    for key in ("kind=threads", "workers=null", "memory=null")
    for word in ("--set", f"cluster.{key}")
)
"""A job may be finished elsewhere than where it was begun."""

_PLUGIN = "[fsspec.specs]\ntroubled = troubled_store:TroubledStore\n"


def _be_driver(plugin: str, patch: Callable[[], None] | None) -> None:
    """Prepare a process for the command.

    With test noise and a ledger nevertheless, which refuses it otherwise: so one run shows what was
    charged and the bytes that were released. Each small file is a task, as if large.
    """
    sys.path.insert(0, plugin)  # workers find the plug-in by the environment and its metadata
    fsspec.register_implementation("troubled", "troubled_store.TroubledStore")
    ParquetSource.plan.__defaults__ = (1,)
    story.noise_for = lambda privacy, _: insecure_noise(privacy.noise, SEED)
    if patch is not None:
        patch()


def trouble(
    kind: str, passes: Sequence[int] | None = None, file: str | None = None, times: int = 1
) -> dict[str, Any]:
    """Trouble at a read of ``file`` (any) in each of ``passes`` (all), from 0, so many times."""
    return {"trouble": kind, "passes": passes, "file": file, "times": times}


@dataclass
class Job:
    """A release of some thousand rows in several files, on a store that makes trouble."""

    folder: Path
    env: dict[str, str]
    spec: Path
    unit: str
    patch: Callable[[], None] | None

    @classmethod
    def make(
        cls,
        folder: Path,
        patch: Callable[[], None] | None = None,
        unit: str = "null",
        **cluster: Any,
    ) -> Job:
        """With the keys of ``cluster`` given, on two local workers by default.

        The driver calls ``patch`` first. ``unit`` is the privacy unit in YAML.
        """
        data = _write_rows(folder / "data")
        shutil.copytree(data, folder / "backup")
        Ledger.init(str(folder / "ledger"), 1.0, 1e-6)
        plugin = folder / "plugin"
        about = plugin / "troubled_store-0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: troubled-store\nVersion: 0\n")
        (about / "entry_points.txt").write_text(_PLUGIN)
        shutil.copy(HERE / "troubled_store.py", plugin)
        options = {"storage_options": {"orders": str(folder / "orders")}}
        spec = write_spec(
            folder / "spec.yaml",
            data,
            dataset={**_dataset(unit), "path": f"troubled://{data}", **options},
            privacy={"ledger": str(folder / "ledger")},
            cluster={"kind": "local", "workers": 2, **cluster},
        )
        job = cls(folder, environment({"PYTHONPATH": f"{plugin}:{ROOT}"}), spec, unit, patch)
        job.order()
        return job

    @property
    def orders(self) -> Path:
        return self.folder / "orders"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def journal(self) -> Path:
        return self.folder / "ledger" / "journal" / ID

    def order(self, *troubles: dict[str, Any]) -> None:
        """What happens from now on; what happened is forgotten."""
        shutil.rmtree(self.orders, ignore_errors=True)
        self.orders.mkdir()
        document = {"journal": str(self.journal), "troubles": troubles}
        (self.orders / "orders.json").write_text(json.dumps(document))

    def put_back(self) -> None:
        """The very input files, with their times."""
        shutil.rmtree(self.folder / "data")
        shutil.copytree(self.folder / "backup", self.folder / "data")

    def reads(self) -> list[tuple[int, str, int]]:
        """Pass, file and process of each read."""
        log = self.orders / "reads"
        lines = log.read_text().splitlines() if log.exists() else []
        found = [line.split() for line in lines]
        return [(int(now), file, int(process)) for now, file, process in found]

    def happened(self) -> list[tuple[int, int]]:
        """Pass and process of each trouble that came, in order of passes."""
        notes = [(note.name.split("-")[2], note.read_text()) for note in self.orders.glob("done-*")]
        return sorted((int(now), int(process)) for now, process in notes if process)

    @contextmanager
    def running(self, *arguments: object) -> Iterator[Command]:
        """The release as a process; ended if the test ends first."""
        words = ("release", self.spec, "--output", self.out, "--release-id", ID, *arguments)
        be_driver = partial(_be_driver, str(self.folder / "plugin"), self.patch)
        process = Command([*map(str, words)], self.env, be_driver)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        with self.running(*arguments) as process:
            return ended(process)

    def answers(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.journal.glob("answer-*.bin")}

    def charges(self) -> int:
        return Ledger.open(str(self.folder / "ledger")).verify()

    def require_done(self, result: subprocess.CompletedProcess[str]) -> None:
        """The release that nothing disturbs, charged once; nothing strange on stderr."""
        assert result.returncode == 0, result.stderr
        assert not strange(result.stderr), strange(result.stderr)
        assert digests(self.out) == calm(self.unit)
        assert self.charges() == 1

    def require_failed(
        self,
        result: subprocess.CompletedProcess[str],
        code: int,
        *words: str,
        resume: Sequence[object] = THREADS,
    ) -> None:
        """The code, one error that says ``words``, nothing released, nothing spent twice.

        And the same command then ends in the release that nothing disturbs, by the same answers: on
        threads of one process, unless ``resume`` says where.
        """
        assert result.returncode == code, result.stderr
        assert not strange(result.stderr), strange(result.stderr)
        errors = [line for line in result.stderr.splitlines() if line.startswith("dpgmm: error")]
        assert len(errors) == 1, result.stderr
        for word in words:
            assert word in errors[0]
        assert not (self.out / "release.json").exists()
        before = self.answers()
        assert self.charges() == (1 if before else 0)
        self.order()
        self.require_done(self.run(*resume))
        assert {name: self.answers()[name] for name in before} == before


def _write_rows(folder: Path) -> Path:
    """The rows, in files, each row of one of fifty people."""
    for file in sorted(ROWS.write(folder, files=FILES).iterdir()):
        table = pq.read_table(file)
        who = pa.array([row % 50 for row in range(len(table))])
        pq.write_table(table.append_column("who", who), file)
    return folder


def _dataset(unit: str) -> dict[str, Any]:
    return {**labelled(), "privacy_unit": yaml.safe_load(unit)}


@cache
def calm(unit: str) -> list[str]:
    """Digests of the release that nothing disturbs: on threads, from plain local files."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        data = _write_rows(folder / "data")
        spec = write_spec(folder / "spec.yaml", data, dataset=_dataset(unit))
        out = folder / "out"
        release(
            ReleaseSpec.from_yaml(spec), output=str(out), release_id=ID, insecure_test_noise=SEED
        )
        return digests(out)


def ended(process: Command) -> subprocess.CompletedProcess[str]:
    stdout, stderr = process.communicate()
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def strange(stderr: str) -> list[str]:
    """Lines that are not the command's own."""
    return [line for line in stderr.splitlines() if not line.startswith("dpgmm: ")]


# ---------------------------------------------------------------- a cluster of other processes


@contextmanager
def dask_process(
    *arguments: object, log: Path, env: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A ``dask`` process, ended afterwards."""
    with log.open("wb") as out:
        command = [sys.executable, "-m", "dask", *map(str, arguments)]
        process = subprocess.Popen(command, stdout=out, stderr=out, env=env, cwd=log.parent)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class Cluster:
    """A scheduler on TCP and its workers, each a process."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]
    log: Path
    """The scheduler's."""


@contextmanager
def dask_cluster(folder: Path, env: dict[str, str], workers: int = 2) -> Iterator[Cluster]:
    """Workers without a nanny: what ends stays ended, what is stopped may come back."""
    folder.mkdir()
    file, log = folder / "scheduler.json", folder / "scheduler.log"
    start = partial(dask_process, env=env)
    loopback = ("--host", "tcp://127.0.0.1", "--dashboard-address", "127.0.0.1:0")
    join = ("--scheduler-file", file, "--nthreads", 1, "--no-nanny", "--local-directory", folder)
    with ExitStack() as stack:
        scheduler = stack.enter_context(
            start("scheduler", *loopback, "--port", 0, "--scheduler-file", file, log=log)
        )
        found = [
            stack.enter_context(
                start("worker", *loopback, *join, log=folder / f"worker-{number}.log")
            )
            for number in range(workers)
        ]
        registered = "Register worker addr"
        until(lambda: log.read_text(errors="replace").count(registered) == workers, "workers")
        yield Cluster(json.loads(file.read_text())["address"], scheduler, found, log)


def until(happens: Callable[[], bool], what: str, patience: float = 300) -> None:
    """Wait for something that comes; the time is only for when it never does."""
    deadline = time.monotonic() + patience
    while not happens():
        assert time.monotonic() < deadline, f"waited {patience:g} s for {what}"
        time.sleep(0.02)
