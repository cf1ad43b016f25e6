"""The plan: what a release would measure for its whole budget. No row is read."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.pipeline.outlook import epsilon_for, rows_for
from dpgmm_dist.pipeline.plan import Plan, plan
from dpgmm_dist.pipeline.plan_chart import curve, draw
from dpgmm_dist.pipeline.plan_text import render_plan
from dpgmm_dist.pipeline.resolve import rho_of
from dpgmm_dist.privacy.noise import noise_source
from dpgmm_dist.spec.release_spec import ReleaseSpec

from ...variants import mostly_variants


def spec(width: int | None = 4, path: object = "nowhere", **sections: Any) -> ReleaseSpec:
    document: dict[str, Any] = {
        "dataset": {"path": str(path), "features": "x", "width": width},
        "bounds": {"norm": 2.0},
        "privacy": {"epsilon": 1.0, "delta": 1e-6},
        "model": {"components": 2},
    }
    for name, changes in sections.items():
        document[name] = document[name] | changes
    return ReleaseSpec.from_dict(document)


SPECIFICATIONS = {
    "soft": spec(),
    "labelled": spec(dataset={"label": "y", "labels": [1, 2, 3]}, model={"components": 1}),
    "projected": spec(width=12, model={"components": 1, "dimension": 2}),
    "tied": spec(width=3, model={"covariance": "tied", "allocation": "even"}),
    "table": ReleaseSpec.from_dict(
        {
            "dataset": {"path": "nowhere", "features": ["a", "b"]},
            "bounds": {"columns": {"a": [0, 120], "b": [-1, 1]}},
            "privacy": {"epsilon": 0.1, "delta": 1e-8},
            "model": {"components": 1},
        }
    ),
}


@cache
def plan_of(name: str, rows: int | None = 10_000, epsilon: float | None = None) -> Plan:
    """The plan of a specification; made once, because it takes a run of the whole strategy."""
    changed = SPECIFICATIONS[name].model_dump(mode="json")
    changed["privacy"]["epsilon"] = epsilon or changed["privacy"]["epsilon"]
    return plan(ReleaseSpec.from_dict(changed), rows=rows)


@pytest.mark.parametrize("name", mostly_variants(SPECIFICATIONS, "labelled", "table", "projected"))
def test_a_plan_spends_the_whole_budget_and_shows_how(name):
    specification = SPECIFICATIONS[name]
    planned = plan_of(name)
    rho = rho_of(specification.privacy, noise_source("auto"))
    assert planned.rho == rho
    spent = sum(block.rho for block in planned.blocks)
    assert 0.999 * rho < spent <= rho * (1 + 1e-9)
    for block in planned.blocks:
        assert block.noise > 0
        assert block.radius > 0
        assert block.groups >= 1
        assert block.statistic in ("count", "sum", "second", "square")
    check_shown(planned)


def check_shown(planned: Plan) -> None:
    """As JSON, and as a table that names every pass."""
    document = json.loads(json.dumps(planned.to_dict(), allow_nan=False))
    assert document["rho"] == planned.rho
    assert len(document["blocks"]) == len(planned.blocks)
    text = render_plan(planned)
    for block in planned.blocks:
        assert block.step in text
    assert f"epsilon {planned.epsilon:g}, delta {planned.delta:g}" in text
    assert "10,000 rows" in text


@pytest.mark.parametrize("name", ["projected", "table"])
def test_more_rows_or_more_budget_cost_less(name):
    def kl(planned: Plan) -> float:
        return sum(block.expected_kl or 0.0 for block in planned.blocks)

    base = kl(plan_of(name))
    assert base > 0
    assert kl(plan_of(name, rows=40_000)) < base / 4
    assert kl(plan_of(name, epsilon=4 * SPECIFICATIONS[name].privacy.epsilon)) < base / 4


def test_kl_is_given_only_for_a_public_guess_of_the_rows():
    planned = plan_of("table", rows=None)
    assert planned.rows is None
    assert all(block.expected_kl is None for block in planned.blocks)
    with_kl = [block for block in plan_of("table").blocks if block.expected_kl is not None]
    assert {block.step for block in with_kl} == {planned.blocks[-1].step}
    assert {block.statistic for block in with_kl} == {"count", "sum", "second"}


def test_the_allocation_by_expected_kl_expects_less_than_an_even_one():
    def kl(allocation: str) -> float:
        model = {"allocation": allocation, "components": 1}
        planned = plan(spec(width=10, model=model), rows=100_000)
        return sum(block.expected_kl or 0.0 for block in planned.blocks)

    assert kl("kl") < 0.9 * kl("even")


def test_a_plan_reads_no_rows(tmp_path: Path):
    """It reads nothing if the specification has the width; otherwise footers, but no page."""
    model = {"components": 1}
    plan(spec(path=tmp_path / "nowhere", model=model), rows=100)
    with pytest.raises(DataError, match="does not exist"):
        plan(spec(None, tmp_path / "nowhere"), rows=100)
    file = tmp_path / "part.parquet"
    x = pa.array(np.random.default_rng(0).normal(size=(500, 4)).tolist(), pa.list_(pa.float32(), 4))
    pq.write_table(pa.table({"x": x}), file)
    intact = plan(spec(None, file, model=model), rows=100)
    content = bytearray(file.read_bytes())
    content[4:100] = b"\xff" * 96
    file.write_bytes(bytes(content))
    assert plan(spec(None, file, model=model), rows=100) == intact


def test_a_width_that_is_nowhere_public_is_asked_for(tmp_path: Path):
    pq.write_table(pa.table({"x": [[1.0, 2.0]]}), tmp_path / "part.parquet")
    with pytest.raises(SpecError, match=r"dataset\.width is missing.*plan without the data"):
        plan(spec(None, tmp_path), rows=1000)


def test_a_plan_without_a_guess_asks_for_one():
    assert "--rows N" in render_plan(plan_of("table", rows=None))


def test_a_plan_is_the_same_each_time():
    assert plan(SPECIFICATIONS["table"], rows=10_000) == plan_of("table")


@pytest.mark.parametrize("rows", [1, 10, 10**12])
def test_any_guess_of_the_rows_gives_a_plan(rows):
    planned = plan_of("projected", rows=rows)
    assert all(np.isfinite(block.noise) for block in planned.blocks)
    render_plan(planned)


def test_a_plan_warns_of_too_few_rows_a_component():
    few, many = plan_of("soft", rows=400), plan_of("soft")
    assert "Warning: about 200 rows a component" in render_plan(few)
    assert "Warning: the noise allows 1 component(s) of a label" in render_plan(few)
    assert "expected KL" not in render_plan(few).splitlines()[-3]  # it is not known
    assert "Warning" not in render_plan(many)
    # The rule scales with the noise: ten times more of it, ten times more rows.
    loud = plan_of("soft", rows=2_000, epsilon=0.1)
    needed = [planned.notes["rows_per_component"]["needed"] for planned in (loud, many)]
    assert needed[0] > 3 * needed[1]


def test_each_pass_is_told_in_words_with_its_error_in_units_of_the_data():
    text = render_plan(plan_of("table"))
    assert "the mean, the spread and the number of rows" in text
    assert "half widths of the bounds" in text
    block = next(b for b in plan_of("table").blocks if b.statistic == "sum")
    assert f"or {block.noise * block.groups / 10_000:.3g} in each mean" in text


def test_the_outlook_compares_settings_and_more_is_better():
    planned = plan_of("table")
    first, *others = planned.outlooks
    assert (first.change, first.rows, first.epsilon) == ("as specified", 10_000, planned.epsilon)
    for other in others:
        assert other.loss < first.loss, other.change
        assert other.change in render_plan(planned)


@pytest.mark.parametrize("name", ["table", "projected", "soft"])
def test_a_wanted_loss_is_reached_by_the_epsilon_that_is_told(name):
    setting, first = plan_of(name).setting, plan_of(name).outlooks[0]
    epsilon = epsilon_for(setting, first.loss / 4)
    assert epsilon > setting.epsilon
    assert setting.loss(setting.at(epsilon), 10_000) <= first.loss / 4
    assert setting.loss(setting.at(epsilon / 1.1), 10_000) > first.loss / 4
    rows = rows_for(setting, first.loss / 4)
    assert rows > 10_000
    assert setting.loss(setting.problem, rows) <= first.loss / 4
    assert setting.loss(setting.problem, int(rows / 1.1)) > first.loss / 4


def test_a_number_of_components_that_is_chosen_is_planned_for_at_its_largest():
    """Imagined rows are one Gaussian: what would be chosen for them is no plan."""
    planned = plan(spec(width=4, model={"components": [1, 2]}), rows=20_000)
    text = render_plan(planned)
    assert "What 20,000 rows afford: up to 2 components, chosen by noisy answers." in text
    assert f"expected KL of the noise up to {planned.outlooks[0].loss:.3g} nats" in text


def test_what_reaches_a_loss_is_said_or_that_nothing_does():
    planned = plan(SPECIFICATIONS["table"], rows=10_000, want=1e-4)
    assert f"about epsilon {planned.want.epsilon:.3g} with 10,000 rows" in render_plan(planned)
    none = plan(SPECIFICATIONS["table"], rows=20, want=1e-9)
    assert none.want.epsilon is None
    assert "not reached by any epsilon up to 256 with 20 rows" in render_plan(none)
    with pytest.raises(SpecError, match="--want: got 0"):
        epsilon_for(planned.setting, 0.0)


def test_the_noise_of_components_is_about_that_of_a_whole_plan():
    """The quick formula beside the plan that imagines every pass."""
    planned = plan(spec(width=10, model={"components": 1}), rows=100_000)
    whole = sum(block.expected_kl or 0.0 for block in planned.blocks)
    assert planned.outlooks[0].loss == pytest.approx(whole, rel=0.5)


def test_a_plan_is_drawn(tmp_path: Path):
    planned = plan(SPECIFICATIONS["table"], rows=10_000, want=0.01)
    draw(planned, tmp_path / "plan.svg")
    drawn = (tmp_path / "plan.svg").read_text()
    assert drawn.count("<path") > 3
    epsilons, losses = curve(planned.setting, 10_000)
    assert losses[len(losses) // 2] == pytest.approx(planned.outlooks[0].loss)
    assert epsilons == sorted(epsilons)
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == len(losses) - losses.count(math.inf) + 1  # it falls, where finite
    with pytest.raises(SpecError, match=r"must end in \.svg"):
        draw(planned, tmp_path / "plan.txt")
