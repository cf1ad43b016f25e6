"""Faults at every change of state of a release whose ledger and output are on object stores.

As in tests/system/test_release_faults.py, on each emulator.
Drivers are forked from a process that never spoke to a store, so nothing is shared with the dead.
"""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from dpgmm_dist import pipeline
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.errors import DpgmmError

from ..system.faults import (
    DONE,
    FAILED,
    KILLED,
    Fault,
    Place,
    all_at_once,
    check_and_resume,
    drive,
    in_process,
    write_rows,
)
from .emulators import EMULATORS, Emulator, ObjectStore

for _client in ("s3fs", "gcsfs", "adlfs"):  # once here, not in every driver
    if importlib.util.find_spec(_client):
        importlib.import_module(_client)

REFUSED = 3
MOST = 200


class Places:
    """Fresh ledgers and outputs in one bucket, one for each point."""

    def __init__(self, emulator: Emulator, folder: Path) -> None:
        self.folder, self.made = folder, 0
        self.rows = write_rows(folder / "rows")
        bucket = f"{emulator.protocol}://tests-{uuid.uuid4().hex[:12]}"
        self.store = ObjectStore(bucket, emulator.storage_options)
        assert in_process(self._make_bucket, folder) == DONE

    def _make_bucket(self) -> int:
        self.store.fs.mkdir(self.store.url.partition("://")[2])
        return DONE

    def fresh(self) -> Place:
        self.made += 1
        notes = self.folder / str(self.made)
        notes.mkdir()
        url = self.store.below(str(self.made))
        return Place(f"{url}/ledger", f"{url}/out", notes, self.rows, self.store.storage_options)


@pytest.fixture(params=list(EMULATORS))
def places(
    request: pytest.FixtureRequest, emulator: Callable[[str], Emulator], tmp_path: Path
) -> Places:
    return Places(emulator(request.param), tmp_path)


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("killed before", KILLED),
        ("killed after", KILLED),
        ("acknowledgement lost", DONE),
        ("store gone", FAILED),
    ],
)
def test_a_fault_at_every_change_of_state(
    kind: str, code: int, stride: int, places: Places
) -> None:
    codes = []
    for point in range(0, MOST, stride):
        place = places.fresh()
        codes.append(drive(place, Fault(kind, point), begin=True))
        check_and_resume(place, codes[-1])
        if codes[-1] == DONE and code != DONE:
            codes.pop()
            break  # the release had fewer changes of state
        with suppress(FileNotFoundError):
            names = (place.notes / f"names {kind}").read_text().splitlines()
            if point >= len(names):
                break
    assert set(codes) == {code}
    assert len(codes) > 25 // stride


def test_eight_releases_race_for_what_is_left(places: Places) -> None:
    """Two of (1, 1e-6) fit (1.5, 1e-5): two are released, six are refused with exit code 3."""
    place = places.fresh()

    def init() -> int:
        Ledger.init(place.ledger, 1.5, 1e-5, storage_options=place.options)
        return DONE

    def driver(me: int) -> Callable[[], int]:
        def run() -> int:
            mine = replace(place, output=f"{place.output}-{me}")
            try:
                pipeline.release(mine.spec(), release_id=f"driver-{me}")
            except DpgmmError as error:
                return error.exit_code
            return DONE

        return run

    assert in_process(init, place.notes) == DONE
    codes = all_at_once([driver(me) for me in range(8)], place.notes)
    assert sorted(codes) == [DONE] * 2 + [REFUSED] * 6
    winners = {f"driver-{me}" for me, code in enumerate(codes) if code == DONE}

    def check() -> int:
        ledger = place.open_ledger()
        assert ledger.verify() == 2
        assert {record.charge.release_id for record in ledger.records} == winners
        return DONE

    assert in_process(check, place.notes) == DONE


def test_eight_drivers_of_one_release_share_it(places: Places) -> None:
    place = places.fresh()

    def run() -> int:
        Fault("none", -1).install(place.notes)
        pipeline.release(place.spec(), release_id="week-1")
        return DONE

    def init() -> int:
        Ledger.init(place.ledger, 1.0, 1e-6, storage_options=place.options)
        return DONE

    assert in_process(init, place.notes) == DONE
    assert all_at_once([run] * 8, place.notes) == [DONE] * 8
    check_and_resume(place, DONE)
