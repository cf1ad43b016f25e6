"""The driver dies, or its store fails, at every change of state of a release (local store).

At every point: charged exactly once, no query answered twice with different noise, no partial
release visible, and the same command always finishes it. On object stores:
tests/external/test_store_faults.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dpgmm_dist import pipeline
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.errors import DpgmmError

from .faults import (
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

# The changes of state of this release, in order: what is written, and each draw of noise.
STATES = [
    "create _claim.json",
    "create journal/week-1/meta.json",
    "create journal/week-1/private-input-0.bin",
    "create journal/week-1/query-N.bin",
    "create ledger/00000001.json",
    "draw N",
    "create journal/week-1/answer-N.bin",
    "create mixture.parquet",
    "create transform.parquet",
    "create receipt.json",
    "create report.html",
    "create release.json",
    "create journal/week-1/finished.json",
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("faults") / "rows")


class Places:
    """Fresh ledgers and outputs, one for each point."""

    def __init__(self, folder: Path, rows: Path) -> None:
        self.folder, self.rows, self.made = folder, rows, 0

    def fresh(self) -> Place:
        self.made += 1
        notes = self.folder / str(self.made)
        notes.mkdir()
        return Place(str(notes / "ledger"), str(notes / "out"), notes, self.rows)


@pytest.fixture
def places(tmp_path: Path, rows: Path) -> Places:
    return Places(tmp_path, rows)


def test_the_changes_of_state_are_those_of_the_list(places: Places) -> None:
    """So that a new kind of write is noticed here, and its faults are thought about."""
    place = places.fresh()
    assert drive(place, Fault("none", -1), begin=True) == DONE
    names = (place.notes / "names none").read_text().splitlines()
    kinds = list(dict.fromkeys(re.sub(r"(?<=-)\d{4}|(?<=draw )\d+", "N", name) for name in names))
    assert [kind for kind in kinds if "ledger/00000000" not in kind] == STATES
    assert len([name for name in names if name.startswith("draw")]) == 6


@pytest.mark.parametrize(
    ("kind", "stride"),
    [
        ("killed before", 1),
        ("killed after", 3),
        ("acknowledgement lost", 3),
        ("store gone", 3),
        ("killed within", 11),
        pytest.param("killed after", 1, marks=pytest.mark.slow),
        pytest.param("acknowledgement lost", 1, marks=pytest.mark.slow),
        pytest.param("store gone", 1, marks=pytest.mark.slow),
        pytest.param("killed within", 1, marks=pytest.mark.slow),
    ],
)
def test_a_fault_at_every_change_of_state(kind: str, stride: int, places: Places) -> None:
    expected = {"acknowledgement lost": DONE, "store gone": FAILED}.get(kind, KILLED)
    codes = []
    for point in points(stride):
        place = places.fresh()
        codes.append(drive(place, Fault(kind, point), begin=True))
        check_and_resume(place, codes[-1])
        if kind != "acknowledgement lost" and codes[-1] == DONE:
            break  # the release had fewer changes of state
        if kind == "acknowledgement lost":
            names = (place.notes / f"names {kind}").read_text().splitlines()
            if point >= len(names) - 1:
                break
    done = codes if kind == "acknowledgement lost" else codes[:-1]
    assert set(done) == {expected}
    least = {"killed within": 200, "killed before": 30, "killed after": 30}.get(kind, 25)
    assert len(done) >= least // stride


def points(stride: int) -> Iterator[int]:
    return iter(range(0, 2000, stride))


def test_a_driver_killed_twice(places: Places) -> None:
    """The resumed driver dies too, earlier or later in its own run."""
    for first, second in ((4, 2), (12, 7), (20, 5), (27, 9)):
        place = places.fresh()
        assert drive(place, Fault("killed after", first), begin=True) == KILLED
        code = drive(place, Fault("killed before", second))
        check_and_resume(place, code)


def test_eight_drivers_of_one_release_share_it(places: Places) -> None:
    place = places.fresh()
    assert in_process(lambda: init(place.ledger, 1.0, 1e-6), place.notes) == DONE
    assert all_at_once([lambda: run(place, "week-1")] * 8, place.notes) == [DONE] * 8
    check_and_resume(place, DONE)


def test_eight_releases_race_for_what_is_left(places: Places) -> None:
    """Two of (1, 1e-6) fit (1.5, 1e-5): two are released, six are refused with exit code 3."""
    place = places.fresh()
    url = place.ledger
    assert in_process(lambda: init(url, 1.5, 1e-5), place.notes) == DONE
    runs = []
    for me in range(8):
        mine = replace(place, output=str(place.notes / f"out-{me}"))
        runs.append(lambda mine=mine, me=me: run(mine, f"driver-{me}"))
    codes = all_at_once(runs, place.notes)
    assert sorted(codes) == [DONE] * 2 + [3] * 6
    winners = {me for me, code in enumerate(codes) if code == DONE}
    assert in_process(lambda: charged_are(url, winners), place.notes) == DONE
    assert {int(path.parent.name[-1]) for path in place.notes.glob("out-*/release.json")} == winners


def init(url: str, epsilon: float, delta: float) -> int:
    Ledger.init(url, epsilon, delta)
    return DONE


def charged_are(url: str, drivers: set[int]) -> int:
    ledger = Ledger.open(url)
    assert ledger.verify() == len(drivers)
    charged = {record.charge.release_id for record in ledger.records}
    assert charged == {f"driver-{me}" for me in drivers}
    return DONE


def run(place: Place, release_id: str) -> int:
    Fault("none", -1).install(place.notes)
    try:
        pipeline.release(place.spec(), release_id=release_id)
    except DpgmmError as error:
        return error.exit_code
    return DONE
