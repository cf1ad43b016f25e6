"""The driver dies, or its store fails, at every change of state of a release (local store).

At every point: charged exactly once, no query answered twice with different noise, no partial
release visible, and the same command always finishes it. On object stores:
tests/external/test_store_faults.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ..variants import variant
from .fault_runs import (
    Places,
    codes_at_points,
    eight_drivers_share_a_release,
    eight_releases_race,
    expected_code,
)
from .faults import DONE, KILLED, KINDS, Fault, check_and_resume, drive, write_rows

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
    "create runs/N.json",
]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Of a release of three passes."""
    return Places(tmp_path, write_rows(tmp_path / "rows", 40))


@pytest.fixture
def long_places(tmp_path: Path) -> Places:
    """Of a release of six passes."""
    return Places(tmp_path, write_rows(tmp_path / "rows"))


def test_the_changes_of_state_are_those_of_the_list(long_places: Places) -> None:
    """So that a new kind of write is noticed here, and its faults are thought about."""
    place = long_places.fresh()
    assert drive(place, Fault("none", -1), begin=True) == DONE
    names = (place.notes / "names none").read_text().splitlines()
    names = [re.sub(r"(?<=runs/).*(?=\.json)", "N", name) for name in names]
    kinds = list(dict.fromkeys(re.sub(r"(?<=-)\d{4}|(?<=draw )\d+", "N", name) for name in names))
    assert [kind for kind in kinds if "ledger/00000000" not in kind] == STATES
    assert len([name for name in names if name.startswith("draw")]) == 6


@pytest.mark.parametrize(
    ("kind", "stride"),
    [
        ("killed before", 3),
        variant("killed before", 1),
        variant("killed after", 3),
        ("acknowledgement lost", 3),
        variant("store gone", 3),
        ("killed within", 44),
        variant("killed within", 11),
    ],
)
def test_a_fault_at_every_change_of_state(kind: str, stride: int, places: Places) -> None:
    codes = codes_at_points(kind, stride, places)
    assert set(codes) == {expected_code(kind)}
    least = {"killed within": 120, "killed before": 20, "killed after": 20}.get(kind, 15)
    assert len(codes) >= least // stride


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_every_change_of_state_of_six_passes(kind: str, long_places: Places) -> None:
    codes = codes_at_points(kind, 1, long_places)
    assert set(codes) == {expected_code(kind)}
    least = {"killed within": 200, "killed before": 30, "killed after": 30}.get(kind, 25)
    assert len(codes) >= least


def test_a_driver_killed_twice(places: Places) -> None:
    """The resumed driver dies too, earlier or later in its own run."""
    for first, second in ((4, 2), (8, 5), (12, 7), (16, 9)):
        place = places.fresh()
        assert drive(place, Fault("killed after", first), begin=True) == KILLED
        code = drive(place, Fault("killed before", second))
        check_and_resume(place, code)


def test_eight_drivers_of_one_release_share_it(places: Places) -> None:
    eight_drivers_share_a_release(places.fresh())


def test_eight_releases_race_for_what_is_left(places: Places) -> None:
    place = places.fresh()
    winners = eight_releases_race(place)
    assert {int(path.parent.name[-1]) for path in place.notes.glob("out-*/release.json")} == winners
