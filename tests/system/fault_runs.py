"""What is done to releases on any store: a fault at every point, and eight drivers at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.errors import DpgmmError
from dpgmm_dist.pipeline import release as story

from .faults import (
    DONE,
    FAILED,
    ID,
    KILLED,
    Fault,
    Place,
    all_at_once,
    check_and_resume,
    drive,
    in_process,
)

REFUSED = 3
_MOST = 2000
_DRIVERS = 8


class Places:
    """Fresh ledgers and outputs, one for each point: below ``url``, or in local folders."""

    def __init__(
        self,
        folder: Path,
        rows: Path,
        url: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.rows, self.made = folder, rows, 0
        self.url, self.options = url or str(folder), options or {}

    def fresh(self) -> Place:
        self.made += 1
        notes = self.folder / str(self.made)
        notes.mkdir()
        below = f"{self.url}/{self.made}"
        return Place(f"{below}/ledger", f"{below}/out", notes, self.rows, self.options)


def expected_code(kind: str) -> int:
    """Exit code of a driver that meets such a fault."""
    return {"acknowledgement lost": DONE, "store gone": FAILED}.get(kind, KILLED)


def codes_at_points(kind: str, stride: int, places: Places) -> list[int]:
    """Exit codes of drivers with a fault at each point; after each one all is checked."""
    codes: list[int] = []
    for point in range(0, _MOST, stride):
        place = places.fresh()
        code = drive(place, Fault(kind, point), begin=True)
        check_and_resume(place, code)
        if code == DONE and expected_code(kind) != DONE:
            return codes  # the release had fewer changes of state
        codes.append(code)
        if code == DONE:
            names = (place.notes / f"names {kind}").read_text().splitlines()
            if point >= len(names) - 1:
                return codes
    raise AssertionError("a release without end")


def eight_drivers_share_a_release(place: Place) -> None:
    _begin(place, 1.0, 1e-6)
    assert all_at_once([_driver(place, ID)] * _DRIVERS, place.notes) == [DONE] * _DRIVERS
    check_and_resume(place, DONE)


def eight_releases_race(place: Place) -> set[int]:
    """Two of (1, 1e-6) fit (1.5, 1e-5): two are released, six are refused; which were released.

    Driver number i writes to the output with ``-i`` behind it.
    """
    _begin(place, 1.5, 1e-5)
    drivers = [
        _driver(replace(place, output=f"{place.output}-{me}"), f"driver-{me}")
        for me in range(_DRIVERS)
    ]
    codes = all_at_once(drivers, place.notes)
    assert sorted(codes) == [DONE] * 2 + [REFUSED] * (_DRIVERS - 2)
    winners = {me for me, code in enumerate(codes) if code == DONE}

    def check() -> int:
        ledger = place.open_ledger()
        assert ledger.verify() == len(winners)
        charged = {record.charge.release_id for record in ledger.records}
        assert charged == {f"driver-{me}" for me in winners}
        return DONE

    assert in_process(check, place.notes) == DONE
    return winners


def _begin(place: Place, epsilon: float, delta: float) -> None:
    def work() -> int:
        Ledger.init(place.ledger, epsilon, delta, storage_options=place.options)
        return DONE

    assert in_process(work, place.notes) == DONE


def _driver(place: Place, release_id: str) -> Callable[[], int]:
    def work() -> int:
        Fault("none", -1).install(place.notes)
        try:
            story.release(place.spec(), release_id=release_id)
        except DpgmmError as error:
            return error.exit_code
        return DONE

    return work
