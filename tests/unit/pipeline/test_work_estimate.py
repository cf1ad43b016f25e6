"""What a release takes, by a public guess; or by the footers, for the trusted side."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpgmm_dist.pipeline.plan import ASSUMED_ROWS, Plan, plan
from dpgmm_dist.pipeline.resolve import open_dataset
from dpgmm_dist.pipeline.work_estimate import PlannedWork, plan_work, render_work
from dpgmm_dist.spec.release_spec import ReleaseSpec


def spec(path: object = "nowhere", **sections: dict[str, object]) -> ReleaseSpec:
    document: dict[str, dict[str, object]] = {
        "dataset": {"path": str(path), "features": "x", "width": 4},
        "bounds": {"norm": 2.0},
        "privacy": {"epsilon": 1.0, "delta": 1e-6},
        "model": {"components": 1},
    }
    for name, changes in sections.items():
        document.setdefault(name, {}).update(changes)
    return ReleaseSpec.from_dict(document)


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(spec(), rows=50_000_000)


@pytest.fixture(scope="module")
def work(planned: Plan) -> PlannedWork:
    return plan_work(spec(), planned, cores=8)


def test_a_guess_is_multiplied_out(planned, work):
    assert not work.trusted_side
    assert work.rows == 50_000_000
    assert work.bytes_read == 50_000_000 * 4 * 4
    assert work.tasks == -(-work.bytes_read // (128 << 20)) == 6
    assert work.passes == len(planned.queries) == len(work.rates)
    steps = list(dict.fromkeys(block.step for block in planned.blocks))
    assert [rate.step for rate in work.rates] == steps
    assert min(rate.rows_per_core_second for rate in work.rates) > 0
    assert work.worker_memory > 250 << 20
    assert work.driver_memory > 250 << 20
    assert work.driver_seconds > 0
    want = sum(
        work.bytes_read / work.read_bytes_per_core_second + work.rows / rate.rows_per_core_second
        for rate in work.rates
    )
    assert work.pass_seconds == pytest.approx(want / 8)


def test_without_footers_no_file_is_opened(planned, work):
    json.dumps(work.to_dict())
    text = render_work(spec(), work)
    assert text.startswith("Work for 50,000,000 rows on 8 core(s); from a guess of the rows")
    assert f"{work.passes}, each of 6 task(s) that read 800 MB together" in text
    assert "measured here on made-up rows: moments " in text
    assert f"one thread, {work.driver_memory / 1e6:.3g} MB for the driver" in text
    assert "reading is assumed at 500 MB a core second" in text


def test_footers_are_counted_and_the_text_says_for_whom(tmp_path: Path, planned):
    for file, rows in enumerate((700, 537)):
        x = pa.array(np.zeros((rows, 4), dtype=np.float32).tolist(), pa.list_(pa.float32()))
        pq.write_table(pa.table({"x": x}), tmp_path / f"{file}.parquet")
    job = spec(tmp_path)
    work = plan_work(job, planned, footers=True)
    units = open_dataset(job.dataset).plan()
    assert work.trusted_side
    assert work.rows == 1237
    assert (work.tasks, work.bytes_read) == (len(units), sum(unit.bytes for unit in units))
    assert "TRUSTED SIDE, not for publication" in render_work(job, work)


def test_the_time_is_for_the_cores_of_the_cluster(planned):
    asked = replace(planned, rows=None)
    assert plan_work(spec(), asked).rows == ASSUMED_ROWS
    kinds = {
        24: {"kind": "slurm", "workers": 12, "threads": 2},
        3: {"kind": "threads", "threads": 3},
        5: {"kind": "local", "workers": 5},
    }
    for cores, cluster in kinds.items():
        assert plan_work(spec(cluster=cluster), asked).cores == cores


def test_privacy_units_are_timed_and_mentioned():
    unit = {"column": "who", "max_rows": 3, "aggregate": "weight"}
    job = spec(dataset={"privacy_unit": unit})
    work = plan_work(job, plan(job, rows=1000))
    assert "written to scratch" in render_work(job, work)
