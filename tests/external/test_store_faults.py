"""Faults at every change of state of a release whose ledger and output are on an object store.

The tests are those of tests/system/test_release_faults.py, on each emulator. Drivers are forked
from a process that has never connected to a store, so they share no connection.
"""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from ..system.fault_runs import (
    Places,
    codes_at_points,
    eight_drivers_share_a_release,
    eight_releases_race,
    expected_code,
)
from ..system.faults import DONE, in_process, write_rows
from .emulators import EMULATORS, Emulator, ObjectStore

for _client in ("s3fs", "gcsfs", "adlfs"):  # imported once, not in every driver
    if importlib.util.find_spec(_client):
        importlib.import_module(_client)


@pytest.fixture(params=list(EMULATORS))
def places(
    request: pytest.FixtureRequest, emulator: Callable[[str], Emulator], tmp_path: Path
) -> Places:
    """Places in one bucket, which a separate process makes."""
    server = emulator(request.param)
    bucket = f"{server.protocol}://tests-{uuid.uuid4().hex[:12]}"
    store = ObjectStore(bucket, server.storage_options)

    def make_bucket() -> int:
        store.fs.mkdir(store.url.partition("://")[2])
        return DONE

    assert in_process(make_bucket, tmp_path) == DONE
    return Places(tmp_path, write_rows(tmp_path / "rows", 40), store.url, store.storage_options)


@pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "kind", ["killed before", "killed after", "acknowledgement lost", "store gone"]
)
def test_a_fault_at_every_change_of_state(kind: str, stride: int, places: Places) -> None:
    codes = codes_at_points(kind, stride, places)
    assert set(codes) == {expected_code(kind)}
    assert len(codes) >= 15 // stride


def test_eight_releases_race_for_the_remaining_budget(places: Places) -> None:
    eight_releases_race(places.fresh())


def test_eight_drivers_of_one_release_share_it(places: Places) -> None:
    eight_drivers_share_a_release(places.fresh())
