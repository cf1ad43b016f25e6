"""Files of version 0.1.0 are read and verified; `release_0_1_0/make.py` made them."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dpgmm_dist import ReleaseSpec, release
from dpgmm_dist.errors import DataError

from .release_0_1_0.make import SEED, arithmetic, array_source
from .releases import done, dpgmm, receipt

OLD = Path(__file__).parent / "release_0_1_0"
NOISE = ("--release-id", "week-1", "--insecure-test-noise", SEED)
_LAST_BITS = 1e-6
"""Of a column's largest number: what the library itself takes for the same release."""


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, which name each other relative to the folder that they are in."""
    folder = tmp_path / "old"
    shutil.copytree(OLD, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def to_the_bit() -> bool:
    """Whether this machine computes as the one that made the files."""
    return bool(json.loads((OLD / "made_with.json").read_text()) == arithmetic())


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def check_same(file: Path, expected: Path, to_the_bit: bool) -> None:
    """The same bytes; where libraries or processor are others, all but the last bits."""
    if to_the_bit:
        assert file.read_bytes() == expected.read_bytes()
    found, wanted = pq.read_table(file), pq.read_table(expected)
    assert found.schema == wanted.schema
    for name in wanted.column_names:
        new, old = np.array(found[name].to_pylist()), np.array(wanted[name].to_pylist())
        if old.dtype.kind != "f":
            assert new.tolist() == old.tolist(), name
            continue
        assert new.shape == old.shape, name
        np.testing.assert_allclose(new, old, rtol=0, atol=_LAST_BITS * np.abs(old).max())


def charges(ledger: Path) -> int:
    return len(list((ledger / "ledger").glob("*.json"))) - 1


def test_a_release_begun_by_it_is_refused_and_left_as_it_is(old: Path) -> None:
    """Its queries are others: only the version that asked them can go on with them."""
    before = contents(old / "test-noise")
    assert "_journal/week-1/query-0003.bin" in before
    refused = dpgmm("release", "test-noise.yaml", "--output", "test-noise", *NOISE)
    assert refused.returncode == 4
    assert "another version of dpgmm-dist began the release" in refused.stderr
    assert contents(old / "test-noise") == before


def test_a_charged_release_begun_by_it_is_refused_and_not_charged_again(old: Path) -> None:
    before = contents(old / "ledger")
    spec = ReleaseSpec.from_yaml(Path("ledger.yaml"))
    with pytest.raises(DataError, match="another version of dpgmm-dist began the release"):
        release(spec, output="killed", release_id="killed-1", source=array_source())
    # The record of the run is beside the ledger; no decision depends on it.
    after = contents(old / "ledger")
    assert {name: data for name, data in after.items() if not name.startswith("runs/")} == before


def test_the_ledger_is_shown_and_verified(old: Path) -> None:
    shown = json.loads(done("ledger", "show", "ledger", "--json").stdout)
    assert [charge["release_id"] for charge in shown["charges"]] == ["finished-1", "killed-1"]
    assert {charge["epsilon"] for charge in shown["charges"]} == {1.0}
    states = json.loads(done("ledger", "verify", "ledger", "--json").stdout)
    assert (states["ok"], states["charges"], states["missing"]) == (True, 2, [])
    assert states["unfinished"] == ["killed-1"]


def test_the_ledger_goes_on(old: Path) -> None:
    """What was charged to it counts: it admits another release, but none that needs all of it."""
    command = partial(dpgmm, "release", "ledger.yaml", "--output", "new", "--release-id", "new-1")
    refused = command("--set", "privacy.epsilon=4", "--set", "privacy.delta=1e-5")
    assert refused.returncode == 3
    assert "Spent by 2 releases" in refused.stderr
    assert command().returncode == 0
    assert charges(old / "ledger") == 3


def test_the_release_is_shown_verified_and_sampled(old: Path, to_the_bit: bool) -> None:
    verified = json.loads(done("verify", "finished", "--json").stdout)
    assert (verified["ok"], verified["private"], verified["problems"]) == (True, True, [])
    assert dpgmm("verify", "test-noise-finished").returncode == 6
    shown = json.loads(done("show", "finished", "--json").stdout)
    assert shown["release"]["release_id"] == "finished-1"
    assert shown["guarantee"]["spent_rho"] == receipt(old / "finished")["totals"]["rho"]
    done("sample", "finished", "--rows", 50, "--seed", 1, "--output", "again")
    part = "part-00000.parquet"
    check_same(old / "again" / part, old / "sample" / part, to_the_bit)


def test_a_release_that_is_there_is_not_made_again(old: Path) -> None:
    before = contents(old)
    spec = ReleaseSpec.from_yaml(Path("ledger.yaml"))
    result = release(spec, output="finished", release_id="finished-1")
    assert result.already_done
    assert contents(old) == before
