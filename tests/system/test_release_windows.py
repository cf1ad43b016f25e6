"""Scheduled releases of windows: ids from dates, rows of one window, accounts in the ledger."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpgmm_dist.artifact.verify import verify_release
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.errors import LedgerRefused
from dpgmm_dist.pipeline.release import release
from dpgmm_dist.spec.release_spec import ReleaseSpec

from .releases import Rows, digests, done, dpgmm, receipt, write_spec

MONTHS = ("2026-09", "2026-10", "2026-11")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A specification of the month of a date, with a ledger of one release of all it has."""
    for seed, month in enumerate(MONTHS):
        rows = Rows.make(150, seed).write(tmp_path / "plain" / month)
        (tmp_path / "data").mkdir(exist_ok=True)
        shutil.move(rows, tmp_path / "data" / f"month={month}")
    Ledger.init(str(tmp_path / "ledger"), 1.0, 1e-6, "365d")
    return write_spec(
        tmp_path / "monthly.yaml",
        tmp_path / "data",
        dataset={"window": {"column": "month", "equals": "{date:%Y-%m}"}},
        privacy={"ledger": str(tmp_path / "ledger"), "account": "months"},
        output={
            "path": str(tmp_path / "releases" / "{date:%Y-%m}"),
            "release_id": "monthly-{date:%Y-%m}",
        },
    )


def test_every_month_is_released_from_one_budget(job):
    """Each spends all there is, on its own rows; the account costs what one of them costs."""
    folder = job.parent
    for month in MONTHS[:2]:
        shown = json.loads(done("release", job, "--date", f"{month}-28", "--json").stdout)
        assert shown["release_id"] == f"monthly-{month}"
        assert shown["release"] == str(folder / "releases" / month)
    ledger = Ledger.open(str(folder / "ledger"))
    assert ledger.verify() == 2
    assert ledger.balance().remaining == 0
    again = done("release", job, "--date", f"{MONTHS[0]}-01")
    assert "already released, nothing was spent" in again.stdout
    assert str(folder / "releases" / MONTHS[0]) in again.stdout
    second = dpgmm("release", job, "--date", f"{MONTHS[0]}-28", "--release-id", "other",
                   "--output", folder / "other")  # fmt: skip
    assert second.returncode == 3
    assert "Spent by 2 releases in the last 365d over the rows of month=2026-09" in second.stderr
    assert "The same release fits from 20" in second.stderr
    assert not (folder / "other").exists()

    found = receipt(folder / "releases" / MONTHS[1])
    held = found["ledger"]
    assert held["account"] == "months"
    assert held["window"] == {"column": "month", "equals": "2026-10"}
    assert held["composition"].startswith("parallel: the unit is one row")
    assert "not the loss of all time" in held["bound"]
    assert found["specification"]["dataset"]["window"] == held["window"]
    for month in MONTHS[:2]:
        assert verify_release(str(folder / "releases" / month)).exit_code == 0


def test_without_a_date_or_with_a_date_for_nothing(job):
    missing = dpgmm("release", job)
    assert missing.returncode == 2
    assert "give it with --date" in missing.stderr
    plain = write_spec(job.parent / "plain.yaml", job.parent / "data")
    useless = dpgmm("release", plain, "--output", job.parent / "x", "--date", "2026-11-25")
    assert useless.returncode == 2
    assert "neither the release id, nor a path" in useless.stderr
    assert json.loads(done("plan", job, "--date", "2026-11-25", "--json").stdout)["epsilon"] == 1
    assert Ledger.open(str(job.parent / "ledger")).verify() == 0


def test_a_window_is_as_if_the_other_rows_were_not_there(tmp_path):
    """By directory and by a column of times: the same bytes as a data set of those rows alone."""
    rows = Rows.make(450)
    thirds = [Rows(rows.x[i::3], rows.y[i::3]) for i in range(3)]
    kind = pa.list_(pa.float32())
    for name, parts in (("alone", thirds[1:2]), ("timed", thirds)):
        (tmp_path / name).mkdir()
        for index, part in enumerate(parts):
            day = 1 if name == "alone" else index
            times = pa.array([f"2026-11-0{day + 1}T12:00:00"] * len(part.x)).cast(
                pa.timestamp("us")
            )
            table = pa.table({"x": pa.array(part.x, kind), "t": times})
            pq.write_table(table, tmp_path / name / f"{index}.parquet")
    for index, part in enumerate(thirds):
        (tmp_path / "hive" / f"day=2026-11-0{index + 1}").mkdir(parents=True)
        pq.write_table(
            pa.table({"x": pa.array(part.x, kind)}),
            tmp_path / "hive" / f"day=2026-11-0{index + 1}" / "part.parquet",
        )
    windows = {
        "alone": None,
        "timed": {"column": "t", "start": "2026-11-02", "end": "2026-11-03"},
        "hive": {"column": "day", "equals": "2026-11-02"},
    }
    found = []
    for name, window in windows.items():
        spec = ReleaseSpec.from_yaml(
            write_spec(tmp_path / "spec.yaml", tmp_path / name, dataset={"window": window})
        )
        out = tmp_path / f"out-{name}"
        release(spec, output=str(out), release_id="r", insecure_test_noise=3)
        found.append(digests(out))
    assert found[0] == found[1] == found[2]


def test_windows_without_an_account_add_up(job):
    document = job.read_text().replace("account: months", "account: null")
    job.write_text(document)
    release(ReleaseSpec.from_yaml(job, date="2026-09-01"))
    with pytest.raises(LedgerRefused):
        release(ReleaseSpec.from_yaml(job, date="2026-10-01"))
    held = receipt(job.parent / "releases" / "2026-09")["ledger"]
    assert held["composition"].startswith("sequential")
