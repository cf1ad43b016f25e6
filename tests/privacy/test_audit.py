"""The audit: the guarantee stands on every kind of job, and the bound comes close to it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dpgmm_dist.audit.neighbours import NULL_OR_INFINITY, WORST
from dpgmm_dist.audit.result import render
from dpgmm_dist.audit.run import audit
from dpgmm_dist.errors import SpecError
from dpgmm_dist.spec.release_spec import ReleaseSpec

from ..system.releases import dpgmm
from ..variants import variant

JOBS: dict[str, dict[str, Any]] = {
    "embeddings": {"dataset": {"features": "x", "width": 4}, "bounds": {"norm": 2.0}},
    "labels": {
        "dataset": {"features": "x", "width": 3, "label": "y", "labels": ["a", "b", "c"]},
        "bounds": {"norm": 1.0, "center": [0.5, 0.0, -0.5]},
        "privacy": {"noise": "discrete_gaussian"},
    },
    "a table whose bounds are found": {
        "dataset": {"features": ["age", "born"]},
        "bounds": {"columns": {"age": "auto", "born": ["1950-01-01", "2020-01-01"]}},
    },
    "a table of categories": {
        "dataset": {"features": ["age"], "categories": {"sex": ["f", "m"], "grade": [1, 2, 3]}},
        "bounds": {"columns": {"age": [0, 100]}},
    },
    "a table that lacks values": {
        "dataset": {
            "features": ["age", "hours"],
            "categories": {"sex": ["f", "m"]},
            "nulls": "model",
            "label": "y",
            "labels": ["a", "b"],
        },
        "bounds": {"columns": {"age": [0, 100], "hours": [0, 80]}},
    },
    "persons of several rows": {
        "dataset": {
            "features": "x",
            "width": 3,
            "privacy_unit": {"column": "user", "max_rows": 4},
        },
        "bounds": {"norm": 1.0},
    },
    "persons whose rows are weighted": {
        "dataset": {
            "features": "x",
            "width": 3,
            "privacy_unit": {"column": "user", "max_rows": 4, "aggregate": "weight"},
        },
        "bounds": {"norm": 1.0},
    },
}


def job(name: str, epsilon: float = 4.0) -> ReleaseSpec:
    document = {key: dict(value) for key, value in JOBS[name].items()}
    document["dataset"]["path"] = "nowhere"
    document["model"] = {"components": 1}  # the fit is not what is audited
    document["privacy"] = {"epsilon": epsilon, "delta": 1e-6, **document.get("privacy", {})}
    return ReleaseSpec.from_dict(document)


@pytest.mark.statistical
@pytest.mark.parametrize(
    "name",
    [
        "embeddings",
        variant("labels"),
        "persons of several rows",
        variant("persons whose rows are weighted"),
        # Bins have thousands of counts to draw.
        *(pytest.param(name, marks=pytest.mark.slow) for name in JOBS if "table" in name),
    ],
)
def test_the_guarantee_stands_and_most_of_it_is_shown(name):
    found = audit(job(name), draws=500)
    assert found.refuted == []
    assert found.null_changes_nothing
    worst = found.worst
    assert worst.neighbour == WORST
    assert worst.moved == pytest.approx(1, abs=0.02)
    assert 0.99 * 4 < worst.claimed_epsilon <= 4
    assert worst.certain_epsilon > 0.15 * 4
    assert worst.certain_epsilon < worst.shown_epsilon
    nothing = next(line for line in found.shown if line.neighbour == NULL_OR_INFINITY)
    assert nothing.moved == 0
    assert all(line.moved is not None and line.moved < 1 + 1e-9 for line in found.shown)


@pytest.mark.slow
@pytest.mark.statistical
def test_at_95_percent_confidence_seven_tenths_are_shown():
    found = audit(job("embeddings", 1.0), draws=9000)
    assert 0.7 < found.worst.share < 1.35
    assert found.draws == 9000


def test_the_command_prints_a_table_and_json(tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps(job("embeddings").public_dict()))
    result = dpgmm("audit", spec, "--draws", 100, "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["refuted"] == []
    assert found["shown"][0]["query"] == "whole release"
    assert found["line"].startswith("audit: epsilon >= ")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.slow
def test_workers_of_their_own_process_and_whole_runs_are_audited_too(tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps(job("embeddings").public_dict()))
    result = dpgmm("audit", spec, "--draws", 100, "--reruns", 2, "--workers", 1)
    assert result.returncode == 0, result.stderr
    assert "whole release, run again" in result.stdout
    assert "rows with a null or an infinity change nothing" in result.stdout


def test_the_schema_of_the_data_gives_a_width_that_the_specification_lacks(tmp_path):
    import pyarrow as pa

    from ..system.releases import Rows

    data = Rows.make(50).write(tmp_path / "data", kind=pa.list_(pa.float32(), 3))
    document = job("embeddings").public_dict()
    document["dataset"] |= {"path": str(data), "width": None}
    found = audit(ReleaseSpec.from_dict(document), draws=100)
    assert "second, off-diagonal" in render(found)


@pytest.mark.parametrize("confidence", [0.5, 1.0, float("nan")])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(SpecError, match="confidence"):
        audit(job("embeddings"), confidence=confidence)
