"""A release that dies, or loses its store, at a chosen change of state; and what must hold then.

The driver is a forked process, so that being killed is being killed: no ``finally`` runs. A change
of state is a write to a store (ledger, journal, output) or a draw of noise; each has a name, such
as "create ledger/00000001.json" or "draw 2".
"""

from __future__ import annotations

import hashlib
import importlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dpgmm_dist.artifact.verify import verify_release
from dpgmm_dist.budget.journal import Journal
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.errors import DataError, DpgmmError
from dpgmm_dist.pipeline import release as story
from dpgmm_dist.pipeline import session
from dpgmm_dist.spec.release_spec import ReleaseSpec
from dpgmm_dist.storage import local_file
from dpgmm_dist.storage.store import FsspecStore

# What a release imports while it runs: once here, not in each of hundreds of forked drivers.
for _module in (
    *("asyncio", "cryptography.hazmat.primitives.ciphers", "dateutil.parser", "fsspec.core"),
    *("fsspec.implementations.local", "html", "pyarrow.dataset", "scipy.linalg", "scipy.spatial"),
    *("scipy.cluster.vq", "dpgmm_dist.artifact.report", "dpgmm_dist.engine.local"),
):
    importlib.import_module(_module)

FORK = multiprocessing.get_context("fork")
ID = "week-1"
DONE, FAILED, KILLED = 0, 4, -signal.SIGKILL

KINDS = ("killed before", "killed after", "acknowledgement lost", "store gone", "killed within")
"""What happens at a point: see `Fault.at`. "killed within": at a system call of a local write."""


@dataclass(frozen=True)
class Place:
    """Where a release keeps its ledger and output (URLs), and a local folder for notes."""

    ledger: str
    output: str
    notes: Path
    rows: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    """Storage options of ledger and output."""

    def open_ledger(self) -> Ledger:
        return Ledger.open(self.ledger, self.options)

    def spec(self) -> ReleaseSpec:
        given = {"storage_options": dict(self.options)} if self.options else {}
        return ReleaseSpec.from_dict(
            {
                "dataset": {"path": str(self.rows), "features": ["x"]},
                "bounds": {"columns": {"x": [0, 1]}},
                "privacy": {"epsilon": 1.0, "delta": 1e-6, "ledger": self.ledger, **given},
                "model": {"components": 2, "assignment": "hard"},
                "output": {"path": self.output, **given},
            }
        )


def write_rows(folder: Path, count: int = 400) -> Path:
    """Rows of one column. Four hundred have passes over cells and components.

    Forty have three passes, and a release of them takes a tenth of the time.
    """
    folder.mkdir()
    pq.write_table(pa.table({"x": [i / count for i in range(count)]}), folder / "part.parquet")
    return folder


@dataclass
class Fault:
    """One fault, at the change of state number ``point`` (from 0)."""

    kind: str
    point: int
    count: int = 0
    names: list[str] = field(default_factory=list)

    def at(self, name: str, change: Callable[[], Any], is_write: bool = True) -> Any:
        now, gone = self.count == self.point, self.count >= self.point
        self.count += 1
        self.names.append(name)
        if self.kind == "store gone" and gone and is_write:
            raise DataError("the network is gone")
        if now and self.kind == "killed before":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            result = change()
        finally:  # also where the name was taken
            if now and self.kind == "killed after":
                os.kill(os.getpid(), signal.SIGKILL)
        if now and self.kind == "acknowledgement lost" and is_write:
            raise DataError("the connection was reset")
        return result

    def install(self, notes: Path) -> None:
        """Put the fault into this process, which is a driver of its own."""
        create, measure, observe = FsspecStore.create, session.measure, session.observe
        draws = iter(range(10_000))

        def faulty_create(store: FsspecStore, name: str, data: bytes) -> None:
            self.at(f"create {name}", lambda: create(store, name, data))

        def faulty_measure(*args: Any) -> Any:
            return self.at(f"draw {next(draws)}", lambda: measure(*args), is_write=False)

        def noted_observe(query: Any, noisy: Any, *rest: Any) -> Any:
            # What a driver has used stays known, whatever becomes of the driver.
            digest = hashlib.sha256(noisy.to_bytes()).hexdigest()
            with open(notes / "used", "a") as file:
                file.write(f"{query.step} {digest}\n")
            return observe(query, noisy, *rest)

        session.observe = noted_observe
        if self.kind == "killed within":
            self._install_within()
            return
        FsspecStore.create = faulty_create  # type: ignore[method-assign]
        session.measure = faulty_measure

    def _install_within(self) -> None:
        """Be killed before the chosen system call of a local write."""

        def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                if self.count == self.point:
                    os.kill(os.getpid(), signal.SIGKILL)
                self.count += 1
                self.names.append(name)
                return real(*args, **options)

            return call

        for name in ("mkdir", "open", "fdopen", "fsync", "link", "unlink"):
            setattr(local_file.os, name, wrap(name, getattr(os, name)))


def drive(place: Place, fault: Fault, release_id: str = ID, *, begin: bool = False) -> int:
    """Run a release in a process of its own, with a fault; return its exit code.

    With ``begin`` the ledger is begun first, for one such release.
    """

    def work() -> int:
        if begin:
            Ledger.init(place.ledger, 1.0, 1e-6, storage_options=place.options)
        fault.install(place.notes)
        try:
            story.release(place.spec(), release_id=release_id)
        except DpgmmError as error:
            return error.exit_code
        (place.notes / f"names {fault.kind}").write_text("\n".join(fault.names))
        return DONE

    return in_process(work, place.notes)


def in_process(work: Callable[[], int], notes: Path) -> int:
    """Run ``work`` in a forked process; the parent stays without threads and connections."""
    return _finish(_start(work, notes), notes)


def all_at_once(works: list[Callable[[], int]], notes: Path) -> list[int]:
    """Run several processes that begin together; return their exit codes."""
    gate = FORK.Event()

    def gated(work: Callable[[], int]) -> Callable[[], int]:
        def run() -> int:
            gate.wait()
            return work()

        return run

    children = [_start(gated(work), notes) for work in works]
    gate.set()
    return [_finish(child, notes) for child in children]


def _start(work: Callable[[], int], notes: Path) -> Any:
    def run() -> None:
        try:
            code = work()
        except BaseException:
            (notes / f"traceback-{os.getpid()}").write_text(traceback.format_exc())
            code = 99
        os._exit(code)

    child = FORK.Process(target=run)
    child.start()
    return child


def _finish(child: Any, notes: Path) -> int:
    child.join(120)
    assert child.exitcode is not None, "a driver hangs"
    trace = notes / f"traceback-{child.pid}"
    assert not trace.exists(), trace.read_text()
    return int(child.exitcode)


def check_and_resume(place: Place, code: int) -> None:
    """What must hold after a fault, and after the same command then ran without one."""

    def work() -> int:
        before = _check_after_fault(place, code)
        Fault("none", -1).install(place.notes)
        story.release(place.spec(), release_id=ID)
        _check_resumed(place, before)
        return DONE

    assert in_process(work, place.notes) == DONE


def _check_after_fault(place: Place, code: int) -> Mapping[int, bytes]:
    """Whatever happened: nothing half visible, and nothing answered that was not charged."""
    ledger = place.open_ledger()
    charges = ledger.verify()
    assert charges in (0, 1)
    found = verify_release(place.output, place.options)
    assert found.exit_code in (0, 4), found.problems
    if found.exit_code == 4:
        assert any("release.json" in problem for problem in found.problems), found.problems
        assert code != DONE
    else:
        assert charges == 1
    held = answers(Journal(ledger.store, ID))
    if held or (place.notes / "used").exists():
        assert charges == 1
    return held


def _check_resumed(place: Place, before: Mapping[int, bytes]) -> None:
    """Charged once, every answer as it was, one noise a query."""
    ledger = place.open_ledger()
    assert ledger.verify() == 1
    assert verify_release(place.output, place.options).exit_code == 0
    journal = Journal(ledger.store, ID)
    assert journal.finished() == {"output": place.output}
    now = answers(journal)
    assert {step: now[step] for step in before} == before
    # No driver, dead or alive, ever used an answer that is not the stored one.
    used = set((place.notes / "used").read_text().splitlines())
    named = named_answers(journal)
    assert used == {f"{step} {hashlib.sha256(data).hexdigest()}" for step, data in named}


def answers(journal: Journal) -> dict[int, bytes]:
    found = {step: journal.answer(step) for step in journal.steps()}
    return {step: data for step, data in found.items() if data is not None}


def named_answers(journal: Journal) -> Iterator[tuple[str, bytes]]:
    from dpgmm_dist.privacy.query import PassQuery

    for step, data in answers(journal).items():
        query = journal.query(step)
        assert query is not None
        yield PassQuery.from_bytes(query).step, data
