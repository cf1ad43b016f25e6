"""Whole releases with privacy units: the same everywhere; nobody weighs more than is paid for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpgmm_dist.data.arrays import ArraySource
from dpgmm_dist.errors import SpecError
from dpgmm_dist.pipeline.release import release
from dpgmm_dist.spec.release_spec import ReleaseSpec

from ..variants import variant
from .releases import digests, done, dpgmm, environment, receipt, write_spec
from .stopping_driver import stopping

NOISE = ("--insecure-test-noise", 7, "--release-id", "units")
WIDTH = 3


def people(n: int = 4000, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, WIDTH)) * 0.25
    x[::40] = np.nan
    who = rng.integers(0, 900, n).astype(object)
    who[: n // 4] = 3  # one of them has a quarter of the rows
    who[::37] = None
    return {"x": x.astype(np.float32), "y": rng.choice([3, 5, 9], n), "who": who}


def write(folder: Path, rows: dict[str, Any], files: int = 1, order: Any = None) -> Path:
    folder.mkdir(parents=True)
    order = np.arange(len(rows["who"])) if order is None else order
    for part, chosen in enumerate(np.array_split(order, files)):
        columns = {"x": pa.array(list(rows["x"][chosen])), "y": pa.array(rows["y"][chosen])}
        columns["who"] = pa.array(rows["who"][chosen].tolist(), pa.int64())
        pq.write_table(pa.table(columns), folder / f"{part}.parquet", row_group_size=700)
    return folder


def spec_of(folder: Path, data: Path, aggregate: str, max_rows: int = 3, **more: Any) -> Path:
    unit = {"column": "who", "max_rows": max_rows, "aggregate": aggregate}
    dataset = {"label": "y", "labels": [3, 5], "privacy_unit": unit}
    # So little that a release goes by stages, which is quick.
    privacy = {"epsilon": 0.1}
    return write_spec(folder / f"{aggregate}.yaml", data, dataset=dataset, privacy=privacy, **more)


@pytest.mark.parametrize(
    "aggregate",
    [
        variant("weight"),
        *(pytest.param(other, marks=pytest.mark.slow) for other in ("rows", "mean")),
    ],
)
def test_layout_and_engine_do_not_matter(aggregate, tmp_path):
    rows = people()
    whole_file = spec_of(tmp_path, write(tmp_path / "one", rows), aggregate)
    done(
        "release", whole_file, "--output", tmp_path / "a", *NOISE, "--scratch", tmp_path / "scratch"
    )
    said = receipt(tmp_path / "a")
    whole = 3 if aggregate == "rows" else 1
    assert {b["unit_rows"] for q in said["queries"] for b in q["blocks"]} == {whole}
    assert "'who'" in said["neighbours"]["unit"]
    assert said["neighbours"]["replacing_one_unit"]["rho"] == 4 * said["totals"]["rho"]
    assert {"rows": "density of rows", "weight": "random row", "mean": "unit means"}[
        aggregate
    ] in said["estimated"]
    order = np.random.default_rng(5).permutation(len(rows["who"]))
    many = spec_of(tmp_path, write(tmp_path / "many", rows, 9, order), aggregate)
    done("release", many, "--output", tmp_path / "b", *NOISE, "--workers", 2)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert not list((tmp_path / "scratch").iterdir())
    # The guarantee is worked out anew from the specification, and holds.
    assert dpgmm("verify", tmp_path / "a").returncode == 6


@pytest.mark.slow
def test_a_person_with_a_million_rows_moves_the_release_as_much_as_with_the_most_that_count(
    tmp_path,
):
    """Rows beyond those kept change nothing: exactly, not only within the bound."""
    rng = np.random.default_rng(0)
    rows = people(2000)
    flood = np.tile(np.float32([[1e30, -1e30, 0.5]]), (1_000_000, 1))
    flood[::3] = np.nan
    flood[1::3] = np.inf
    found = []
    for count in (12, 1_000_000):
        more = {
            "x": np.concatenate([rows["x"], flood[:count]]),
            "y": np.concatenate([rows["y"], np.full(count, 5)]),
            "who": np.concatenate([rows["who"], np.full(count, 10**6)]),
        }
        order = rng.permutation(len(more["who"]))
        spec = spec_of(tmp_path, write(tmp_path / str(count), more, 2, order), "rows", 4)
        done("release", spec, "--output", tmp_path / f"out{count}", *NOISE)
        found.append(digests(tmp_path / f"out{count}"))
    assert found[0] == found[1]


def test_scratch_is_cleaned_after_a_failure_and_a_kill(tmp_path):
    scratch = tmp_path / "scratch"
    data = write(tmp_path / "data", people())
    spec = spec_of(tmp_path, data, "rows")
    arguments = ("release", spec, "--output", tmp_path / "out", *NOISE, "--scratch", scratch)
    driver = stopping("answer-0000.bin", *arguments, env=environment())
    driver.kill()
    driver.communicate()
    assert list(scratch.iterdir())
    # The next run removes it, resumes, and gives what an undisturbed one gives.
    done(*arguments)
    assert not list(scratch.iterdir())
    done("release", spec, "--output", tmp_path / "calm", *NOISE)
    assert digests(tmp_path / "out") == digests(tmp_path / "calm")
    (data / "0.parquet").write_bytes((data / "0.parquet").read_bytes()[:-3000] + bytes(3000))
    failed = dpgmm("release", spec, "--output", tmp_path / "bad", *NOISE, "--scratch", scratch)
    assert failed.returncode == 4
    assert not list(scratch.iterdir())


def test_rows_in_memory_have_units_too(tmp_path):
    rows = people(1500)
    spec = spec_of(tmp_path, write(tmp_path / "data", rows), "rows")
    done("release", spec, "--output", tmp_path / "file", *NOISE)
    given = ReleaseSpec.from_yaml(spec)
    memory = ArraySource(rows["x"], rows["y"], (3, 5), units=rows["who"])
    release(given, output=str(tmp_path / "memory"), insecure_test_noise=7, source=memory)
    assert digests(tmp_path / "file") == digests(tmp_path / "memory")
    with pytest.raises(SpecError, match="need units"):
        release(
            given,
            output=str(tmp_path / "not"),
            source=ArraySource(rows["x"], rows["y"], (3, 5)),
        )
    assert not (tmp_path / "not").exists()


def test_a_resumed_release_that_has_all_answers_reads_no_rows(tmp_path):
    data = write(tmp_path / "data", people())
    spec = spec_of(tmp_path, data, "mean")
    done("release", spec, "--output", tmp_path / "out", *NOISE)
    (tmp_path / "out" / "release.json").unlink()
    again = done("release", spec, "--output", tmp_path / "out", *NOISE)
    assert "privacy units" not in again.stderr


def test_a_cluster_elsewhere_needs_scratch_that_all_reach(tmp_path):
    from distributed import LocalCluster

    data = write(tmp_path / "data", people(600))
    spec = spec_of(tmp_path, data, "weight")
    output = tmp_path / "out"
    with LocalCluster(n_workers=1, processes=False, protocol="tcp", dashboard_address=None) as c:
        there = ("--scheduler", c.scheduler_address)
        refused = dpgmm("release", spec, "--output", output, *NOISE, *there)
        assert refused.returncode == 2
        assert "--scratch" in refused.stderr
        assert not output.exists()
        done("release", spec, "--output", output, *NOISE, *there, "--scratch", tmp_path / "s")
    done("release", spec, "--output", tmp_path / "local", *NOISE)
    assert digests(output) == digests(tmp_path / "local")


def test_the_plan_prices_a_unit(tmp_path):
    noise = {}
    for aggregate in ("rows", "weight"):
        spec = spec_of(tmp_path, write(tmp_path / aggregate, people(60)), aggregate, 4)
        planned = json.loads(done("plan", spec, "--rows", 100, "--json").stdout)
        first = planned["blocks"][0]
        noise[aggregate] = first["noise"]
        assert sum(block["rho"] for block in planned["blocks"]) <= planned["rho"] * (1 + 1e-9)
    assert noise["rows"] == pytest.approx(4 * noise["weight"], rel=1e-3)


def test_the_user_id_is_in_no_file_and_no_log(tmp_path):
    rows = people(500)
    rows["who"] = np.array([987_654_321_000 + i % 50 for i in range(500)], dtype=object)
    spec = spec_of(tmp_path, write(tmp_path / "data", rows), "rows")
    kept = tmp_path / "scratch"
    result = done("release", spec, "--output", tmp_path / "out", *NOISE, "--scratch", kept)
    assert "987654321" not in result.stdout + result.stderr
    for folder, _, names in os.walk(tmp_path / "out"):
        for name in names:
            assert b"987654321" not in (Path(folder) / name).read_bytes()
