"""Tables released by normal scores: the same on every engine, replayed, inverted when sampled."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

from dpgmm_dist import ReleaseSpec, load_release, release
from dpgmm_dist.artifact.sample import write_samples
from dpgmm_dist.artifact.sample_options import SampleOptions
from dpgmm_dist.artifact.schema import decode_transform, encode_transform
from dpgmm_dist.artifact.verify import verify_release
from dpgmm_dist.data.source import ArraySource
from dpgmm_dist.engine.local import LocalEngine
from dpgmm_dist.errors import SpecError
from dpgmm_dist.pipeline.plan import plan
from dpgmm_dist.privacy.accounting import rho_from_epsilon_delta

from ..draws import recomputed, stopped_and_released
from ..variants import variant
from .releases import digests

N = 6000
FEW = 300
"""Rows that go by stages at this epsilon, which takes a tenth of the time."""
EPSILON = 1.0
NAMES = ["skewed", "counts", "mostly_zero"]
BOUNDS = {"skewed": [0, 400], "counts": [0, 40], "mostly_zero": [-1, 60]}


def columns(n: int = N, seed: int = 0) -> dict[str, np.ndarray]:
    """A lognormal column, whole numbers that go with it, and one of zeros with a smooth rest."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    return {
        "skewed": np.exp(3 + 0.8 * z),
        "counts": rng.poisson(np.exp(1 + 0.4 * z)),
        "mostly_zero": np.where(rng.random(n) < 0.6, 0.0, np.abs(rng.normal(20, 8, n))),
        "y": rng.integers(0, 2, n),
        "user": np.arange(n) // 2,
    }


def table(folder: Path, rows: dict[str, Any], files: int = 1, group: int = 100_000) -> Path:
    folder.mkdir(parents=True)
    n = len(rows["skewed"])
    for part in range(files):
        chosen = slice(part * n // files, (part + 1) * n // files)
        pq.write_table(
            pa.table({name: pa.array(values[chosen]) for name, values in rows.items()}),
            folder / f"part-{part}.parquet",
            row_group_size=group,
        )
    return folder


def spec(data: Path, ledger: Path | None = None, **sections: dict[str, Any]) -> ReleaseSpec:
    document: dict[str, dict[str, Any]] = {
        "dataset": {"path": str(data), "features": NAMES},
        "bounds": {"columns": BOUNDS},
        "privacy": {
            "epsilon": EPSILON,
            "delta": 1e-6,
            "ledger": None if ledger is None else str(ledger),
            "noise": "discrete_gaussian",
        },
        "model": {"components": 2, "marginals": "auto"},
    }
    for name, changes in sections.items():
        document[name].update(changes)
    return ReleaseSpec.from_dict(document)


def released(data: Path, out: Path, engine: Any = None, **sections: dict[str, Any]) -> list[str]:
    release(spec(data, **sections), output=str(out), insecure_test_noise=5, engine=engine)
    return digests(out)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    folder = tmp_path_factory.mktemp("few")
    return released(table(folder / "data", columns(FEW)), folder / "out")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("marginals")
    data = table(folder / "data", columns())
    sharp = {"privacy": {"epsilon": 4.0}, "model": {"components": 1}}
    return released(data, folder / "out", **sharp), folder / "out"


@pytest.mark.variant
def test_the_layout_and_the_threads_do_not_matter(few, tmp_path):
    order = np.random.default_rng(1).permutation(FEW)
    shuffled = {name: values[order] for name, values in columns(FEW).items()}
    data = table(tmp_path / "data", shuffled, files=4, group=111)
    assert released(data, tmp_path / "out", LocalEngine(1, cache_bytes=0)) == few


@pytest.mark.slow
def test_a_cluster_gives_the_same(few, tmp_path):
    from dpgmm_dist.engine import open_engine

    with open_engine(workers=2) as engine:
        data = table(tmp_path / "data", columns(FEW), files=3)
        assert released(data, tmp_path / "out", engine) == few


def test_sampled_columns_have_the_distributions_of_the_rows(base, tmp_path):
    write_samples(str(base[1]), 20_000, str(tmp_path / "rows"), seed=2)
    found, real = pq.read_table(tmp_path / "rows"), columns()
    assert pa.types.is_integer(found.schema.field("counts").type)
    drawn = {name: found[name].to_numpy() for name in NAMES}
    for name in NAMES:
        low, middle, high = np.quantile(real[name], [0.1, 0.5, 0.9])
        error = np.abs(np.quantile(drawn[name], [0.1, 0.5, 0.9]) - [low, middle, high])
        assert error.max() < 0.1 * (high - low), name
    assert (drawn["mostly_zero"] == 0).mean() == pytest.approx(0.6, abs=0.03)
    wanted = spearmanr(real["skewed"], real["counts"]).statistic
    ordered = spearmanr(drawn["skewed"], drawn["counts"]).statistic
    assert ordered == pytest.approx(wanted, abs=0.05)


def test_the_release_is_read_back_with_its_maps(base):
    found = load_release(str(base[1]))
    assert len(found.transform.columns) == 3
    again = decode_transform(encode_transform(found.transform))
    assert encode_transform(again) == encode_transform(found.transform)
    rows, _ = found.sample(500, seed=1)
    assert np.isfinite(found.score_samples(rows)).all()
    # What the data have is likelier than the same values put together at random.
    real = np.stack([columns()[name] for name in NAMES], axis=1)[:2000]
    mixed = np.stack([np.roll(real[:, j], 7 * j) for j in range(3)], axis=1)
    assert found.score_samples(real).mean() > found.score_samples(mixed).mean() + 0.1
    with pytest.raises(SpecError, match="normal scores"):
        found.to_sklearn()
    assert found.to_sklearn(space="latent").n_features_in_ == 3


def test_the_receipt_lists_the_counts_and_the_cost(base):
    receipt = json.loads((base[1] / "receipt.json").read_text())
    first, second = receipt["queries"][:2]
    assert [first["step"], second["step"]] == ["marginals.first", "marginals"]
    assert [block["statistic"] for block in second["blocks"]] == ["bins", "bins"]
    assert receipt["marginals"]["counts"] == {
        "bins": 41,
        "atoms": 41,
        "one_value_each": True,
        "unit": 1.0,
    }
    assert receipt["marginals"]["mostly_zero"]["atoms"] >= 1
    assert not verify_release(str(base[1])).problems


def test_rows_may_be_kept_within_the_bounds(base, tmp_path):
    options = SampleOptions(bounds="reject")
    write_samples(str(base[1]), 2000, str(tmp_path / "rows"), seed=3, options=options)
    found = pq.read_table(tmp_path / "rows")
    for name, (low, high) in BOUNDS.items():
        values = found[name].to_numpy()
        assert low <= values.min() and values.max() <= high


def test_labels_and_bounds_that_are_found(tmp_path):
    data = table(tmp_path / "data", columns(FEW))
    labelled = {"label": "y", "labels": [0, 1]}
    released(data, tmp_path / "out", dataset=labelled, bounds={"columns": "auto"})
    found = load_release(str(tmp_path / "out"))
    assert [query["step"] for query in found.receipt["queries"]][:3] == [
        "bounds.columns",
        "marginals.first",
        "marginals",
    ]
    rows, labels = found.sample(100, seed=1)
    assert set(labels.tolist()) == {0, 1} and rows.shape == (100, 3)


@pytest.mark.parametrize("aggregate", ["rows", variant("weight")])
def test_rows_of_privacy_units_are_counted_on_the_lattice(aggregate, tmp_path):
    data = table(tmp_path / "data", columns(3 * FEW))
    unit = {"column": "user", "max_rows": 2, "aggregate": aggregate}
    sharp = {"privacy": {"epsilon": 20.0}, "model": {"components": 1}}
    released(data, tmp_path / "out", dataset={"privacy_unit": unit}, **sharp)
    found = load_release(str(tmp_path / "out"))
    assert found.receipt["queries"][0]["step"] == "marginals.first"
    assert not verify_release(str(tmp_path / "out")).problems
    rows, _ = found.sample(5000, seed=1)
    assert np.median(rows[:, 0]) == pytest.approx(np.median(columns(3 * FEW)["skewed"]), rel=0.15)
    assert (rows[:, 2] == 0).mean() == pytest.approx(0.6, abs=0.1)


def test_the_cost_is_that_of_the_draws_and_within_the_budget(tmp_path, recorder):
    result = release(spec(table(tmp_path / "data", columns(FEW))), output=str(tmp_path / "out"))
    budget = Fraction(rho_from_epsilon_delta(EPSILON, 1e-6))
    cost = recomputed(result.receipt, recorder.asked)
    assert Fraction(99, 100) * budget < cost <= budget


@pytest.mark.parametrize("fail_at", [variant(0), 2, variant(4)])
def test_a_job_stopped_between_draws_measures_its_marginals_once(tmp_path, recorder, fail_at):
    data = table(tmp_path / "data", columns(FEW))
    answers = stopped_and_released(lambda url: spec(data, url), tmp_path, recorder, fail_at)
    assert bool(answers) == (fail_at > 0)


def test_no_rows_release_as_well(tmp_path):
    empty = {name: values[:0] for name, values in columns().items()}
    released(table(tmp_path / "data", empty), tmp_path / "out")
    rows, _ = load_release(str(tmp_path / "out")).sample(10, seed=1)
    assert np.isfinite(rows).all()


def test_the_plan_shows_the_counts_and_reads_nothing(tmp_path):
    planned = plan(spec(tmp_path / "nothing-here"), rows=FEW)
    steps = [block.step for block in planned.blocks[:3]]
    assert steps == ["marginals.first", "marginals.first", "marginals"]
    assert sum(block.rho for block in planned.blocks) <= planned.rho


def test_tables_without_marginals_ask_for_none(tmp_path):
    for model in ({"marginals": "none"}, {"dimension": 2}):
        steps = {block.step for block in plan(spec(tmp_path, model=model), rows=FEW).blocks}
        assert "marginals" not in steps


def test_marginals_are_measured_by_default_where_bounds_are_found(tmp_path):
    wanted = {"auto": True, "given": False}
    for name, columns_ in (("auto", "auto"), ("given", BOUNDS)):
        document = spec(tmp_path).public_dict()
        del document["model"]["marginals"]
        document["bounds"]["columns"] = columns_
        found = ReleaseSpec.from_dict(document)
        assert found.has_marginals == wanted[name]
        assert "marginals" not in found.public_dict()["model"]
        document["model"]["marginals"] = "none"
        off = ReleaseSpec.from_dict(document)
        assert not off.has_marginals and off.public_dict()["model"]["marginals"] == "none"


def test_the_columns_of_an_array_have_the_names_of_the_specification(tmp_path):
    rows = columns(FEW)
    array = np.stack([rows["counts"], np.rint(rows["skewed"])], axis=1).astype(np.int32)
    names = {"features": ["counts", "skewed"]}
    bounds = {"columns": {"counts": [0, 40], "skewed": [0, 400]}}
    job = spec(tmp_path, dataset=names, bounds=bounds)
    result = release(job, output=str(tmp_path / "out"), source=ArraySource(array))
    assert result.receipt["marginals"]["skewed"]["one_value_each"]  # whole numbers
    write_samples(str(tmp_path / "out"), 50, str(tmp_path / "rows"), seed=1)
    found = pq.read_table(tmp_path / "rows")
    assert found.column_names == ["counts", "skewed"]
    assert set(found.schema.types) == {pa.int32()}
    with pytest.raises(SpecError, match=r"names 2 columns, and source has 3: name each"):
        release(job, output=str(tmp_path / "b"), source=ArraySource(np.zeros((5, 3))))


def test_an_array_has_no_columns_to_map(tmp_path):
    document = spec(tmp_path).public_dict()
    document["dataset"]["features"] = "x"
    document["bounds"] = {"norm": 100.0}
    rows = ArraySource(np.random.default_rng(0).normal(size=(500, 3)))
    result = release(ReleaseSpec.from_dict(document), output=str(tmp_path / "out"), source=rows)
    assert "marginals" not in result.receipt
