"""Bounds that are found privately: charged, replayed, the same on every engine, in the receipt."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpgmm_dist import ReleaseSpec, load_release, release
from dpgmm_dist.artifact.report import render_report
from dpgmm_dist.artifact.sample import write_samples
from dpgmm_dist.artifact.sample_options import SampleOptions
from dpgmm_dist.artifact.show import describe
from dpgmm_dist.artifact.verify import verify_release
from dpgmm_dist.data.source import ArraySource
from dpgmm_dist.engine.local import LocalEngine
from dpgmm_dist.pipeline.plan import plan
from dpgmm_dist.privacy.accounting import rho_from_epsilon_delta

from ..draws import recomputed, stopped_and_released
from ..variants import variant
from .releases import digests

N = 600
"""Rows that go by stages, which takes a fraction of the time."""
EPSILON = 3.0
AUTO = {"columns": "auto"}


def columns(n: int = N, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "tiny": rng.normal(3e-7, 1e-8, n),
        "far": rng.normal(-4e9, 3e8, n),
        "counts": rng.poisson(3, n),
    }


def table(folder: Path, rows: dict[str, Any], files: int = 1, group: int = 100_000) -> Path:
    folder.mkdir(parents=True)
    n = len(rows["far"])
    for part in range(files):
        chosen = slice(part * n // files, (part + 1) * n // files)
        pq.write_table(
            pa.table({name: pa.array(values[chosen]) for name, values in rows.items()}),
            folder / f"part-{part}.parquet",
            row_group_size=group,
        )
    return folder


def spec(data: Path, bounds: dict[str, Any] = AUTO, ledger: Path | None = None) -> ReleaseSpec:
    return ReleaseSpec.from_dict(
        {
            "dataset": {"path": str(data), "features": ["tiny", "far", "counts"]},
            "bounds": bounds,
            "privacy": {
                "epsilon": EPSILON,
                "delta": 1e-6,
                "ledger": None if ledger is None else str(ledger),
                "noise": "discrete_gaussian",
            },
            "model": {"components": 1},
        }
    )


def released(data: Path, out: Path, bounds: dict[str, Any] = AUTO, **options: Any) -> list[str]:
    release(spec(data, bounds), output=str(out), insecure_test_noise=5, **options)
    return digests(out)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bounds")
    return released(table(folder / "data", columns()), folder / "out"), folder / "out"


@pytest.mark.variant
def test_the_layout_and_the_threads_do_not_matter(base, tmp_path):
    order = np.random.default_rng(1).permutation(N)
    shuffled = {name: values[order] for name, values in columns().items()}
    data = table(tmp_path / "data", shuffled, files=4, group=111)
    assert released(data, tmp_path / "out", engine=LocalEngine(1, cache_bytes=0)) == base[0]


def test_rows_that_are_not_valid_do_not_matter(base, tmp_path):
    rows = {name: values.tolist() for name, values in columns().items()}
    for name, value in (("tiny", None), ("far", float("inf")), ("counts", None)):
        for other in rows:
            rows[other].insert(7, value if other == name else 10**11)
    assert released(table(tmp_path / "data", rows), tmp_path / "out") == base[0]


@pytest.mark.slow
def test_a_cluster_gives_the_same(base, tmp_path):
    from dpgmm_dist.engine import open_engine

    data = table(tmp_path / "data", columns(), files=3)
    with open_engine(workers=2) as engine:
        assert released(data, tmp_path / "out", engine=engine) == base[0]


def test_the_receipt_the_report_and_the_samples_know_them(base, tmp_path):
    found = load_release(str(base[1]))
    ranges = found.receipt["bounds_found"]["columns"]
    assert set(ranges) == {"tiny", "far", "counts"}
    low, high = ranges["far"]
    assert low < -4.6e9 and -3.4e9 < high < 0
    assert describe(found)["bounds_found"] == {"columns": ranges}
    assert b"Bounds found privately" in render_report(found)
    first = found.receipt["queries"][0]
    assert first["step"] == "bounds.columns"
    assert first["blocks"][0]["statistic"] == "bins" and first["blocks"][0]["dimension"] == 3
    assert not verify_release(str(base[1])).problems
    write_samples(
        str(base[1]), 500, str(tmp_path / "s"), seed=1, options=SampleOptions(bounds="clip")
    )
    sampled = pq.read_table(tmp_path / "s")
    assert low <= min(sampled["far"].to_pylist()) and max(sampled["far"].to_pylist()) <= high


def test_the_report_names_columns_beyond_the_largest_bound(base, tmp_path):
    rows = columns() | {"counts": 1_700_000_000_000 + columns()["counts"]}
    released(table(tmp_path / "data", rows), tmp_path / "out")
    cut, usual = (render_report(load_release(str(out))) for out in (tmp_path / "out", base[1]))
    assert b"looked for: counts." in cut
    assert b"looked for" not in usual


def test_only_what_is_not_given_is_found(base, tmp_path):
    data = table(tmp_path / "data", columns())
    given = {"columns": {"tiny": [0, 1e-6], "far": "auto", "counts": [0, 20]}}
    released(data, tmp_path / "out", given)
    receipt = load_release(str(tmp_path / "out")).receipt
    assert set(receipt["bounds_found"]["columns"]) == {"far"}
    assert receipt["queries"][0]["blocks"][0]["dimension"] == 1


def test_the_cost_is_that_of_the_draws_and_within_the_budget(tmp_path, recorder):
    result = release(spec(table(tmp_path / "data", columns())), output=str(tmp_path / "out"))
    budget = Fraction(rho_from_epsilon_delta(EPSILON, 1e-6))
    cost = recomputed(result.receipt, recorder.asked)
    assert Fraction(99, 100) * budget < cost <= budget


@pytest.mark.parametrize("fail_at", [variant(0), 1, variant(4)])
def test_a_job_stopped_between_draws_finds_its_bounds_once(tmp_path, recorder, fail_at):
    data = table(tmp_path / "data", columns())
    answers = stopped_and_released(lambda url: spec(data, ledger=url), tmp_path, recorder, fail_at)
    assert bool(answers) == (fail_at > 0)


@pytest.mark.parametrize("bounds", [variant({"norm": "auto"}), {"norm": "auto", "center": "auto"}])
def test_embeddings_have_a_norm_and_a_centre(bounds, tmp_path):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4000, 3)) + (40.0 if "center" in bounds else 0.0)
    pq.write_table(pa.table({"x": x.tolist()}), tmp_path / "data.parquet")
    document = {
        "dataset": {"path": str(tmp_path / "data.parquet"), "features": "x", "width": 3},
        "bounds": bounds,
        "privacy": {"epsilon": 4.0, "delta": 1e-6},
        "model": {"components": 1},
    }
    release(ReleaseSpec.from_dict(document), output=str(tmp_path / "out"), insecure_test_noise=1)
    found = load_release(str(tmp_path / "out"))
    assert set(found.receipt["bounds_found"]) == set(bounds)
    assert found.receipt["bounds_found"]["norm"] < 40
    rows, _ = found.sample(4000, seed=0)
    assert np.abs(rows.mean(axis=0) - x.mean(axis=0)).max() < 0.5
    assert np.abs(np.log(rows.std(axis=0))).max() < 0.3


def test_no_rows_release_as_well(tmp_path):
    empty = {name: values[:0] for name, values in columns().items()}
    released(table(tmp_path / "data", empty), tmp_path / "out")
    assert load_release(str(tmp_path / "out")).sample(10, seed=1)[0].shape == (10, 3)


def test_the_plan_shows_the_counts_and_reads_nothing(tmp_path):
    planned = plan(spec(tmp_path / "nothing-here"), rows=N)
    first = planned.blocks[0]
    assert (first.step, first.statistic, first.dimension) == ("bounds.columns", "bins", 3)
    assert sum(block.rho for block in planned.blocks) <= planned.rho
    json.dumps(planned.to_dict())


@pytest.mark.variant
def test_bounds_of_privacy_units_are_those_of_their_rows(tmp_path):
    """Units of one row each are rows; of units of many rows only some are counted."""
    rng = np.random.default_rng(0)
    values = {"x": np.exp(rng.normal(size=900)), "y": -50 + rng.normal(size=900)}
    bounds = []
    for name, users in (("rows", None), ("units", np.arange(900)), ("one", np.zeros(900, int))):
        columns = dict(values) if users is None else {**values, "user": users}
        document = {
            "dataset": {"path": "memory", "features": ["x", "y"]},
            "bounds": {"columns": "auto"},
            "privacy": {"epsilon": 4.0, "delta": 1e-6},
            "model": {"components": 1},
        }
        if users is not None:
            document["dataset"]["privacy_unit"] = {"column": "user", "max_rows": 1}
        result = release(
            ReleaseSpec.from_dict(document),
            output=str(tmp_path / name),
            source=pa.table(columns),
            insecure_test_noise=3,
        )
        bounds.append(result.receipt["bounds_found"]["columns"])
    assert bounds[0] == bounds[1] != bounds[2]
    assert bounds[2] == {"x": [-1.0, 1.0], "y": [-1.0, 1.0]}  # one row, far below the noise


@pytest.mark.parametrize("aggregate", ["weight", variant("mean")])
def test_the_norm_and_the_centre_of_privacy_units_are_found(tmp_path, aggregate):
    rng = np.random.default_rng(0)
    rows = 100 + rng.normal(size=(2000, 3))
    flat = pa.array(rows.ravel())
    table = pa.table(
        {"v": pa.FixedSizeListArray.from_arrays(flat, 3), "user": np.arange(2000) // 2}
    )
    unit = {"column": "user", "max_rows": 2, "aggregate": aggregate}
    document = {
        "dataset": {"path": "memory", "features": "v", "privacy_unit": unit},
        "bounds": {"norm": "auto", "center": "auto"},
        "privacy": {"epsilon": 2.0, "delta": 1e-6},
        "model": {"components": 1},
    }
    found = release(
        ReleaseSpec.from_dict(document),
        output=str(tmp_path / "out"),
        source=table,
        insecure_test_noise=3,
    ).receipt["bounds_found"]
    assert np.abs(np.array(found["center"]) - 100).max() < 25
    assert found["norm"] < 100


def test_the_norm_of_one_feature_is_a_distance_from_the_centre_that_was_found(tmp_path):
    """The counts for the centre and for the norm have the same edges then, and different codes."""
    rows = 50 + np.random.default_rng(0).standard_normal((20_000, 1))
    document = {
        "dataset": {"path": "memory", "features": "embedding", "width": 1},
        "bounds": {"norm": "auto", "center": "auto"},
        "privacy": {"epsilon": 1.0, "delta": 1e-6},
        "model": {"components": 1},
    }
    found = release(
        ReleaseSpec.from_dict(document),
        output=str(tmp_path / "release"),
        source=ArraySource(rows),
        insecure_test_noise=1,
    ).receipt["bounds_found"]
    assert 40 < found["center"][0] < 60
    assert found["norm"] < 20
