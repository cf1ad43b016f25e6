"""Tables with empty cells and categories: released, sampled, the same on every layout."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpgmm_dist import ReleaseSpec, load_release, release
from dpgmm_dist.artifact.sample import write_samples
from dpgmm_dist.artifact.schema import decode_transform, encode_transform
from dpgmm_dist.artifact.show import describe
from dpgmm_dist.artifact.verify import verify_release
from dpgmm_dist.data.codes import ColumnCodes
from dpgmm_dist.data.source import ArraySource
from dpgmm_dist.engine.local import LocalEngine
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.pipeline import session
from dpgmm_dist.pipeline.plan import plan
from dpgmm_dist.privacy.accounting import rho_from_epsilon_delta
from dpgmm_dist.privacy.measure import measure
from dpgmm_dist.privacy.query import PassQuery
from dpgmm_dist.privacy.sensitivity import query_cost

from ..draws import recomputed, stopped_and_released
from ..privacy.test_sensitivity import price
from ..queries import accumulated, integers
from ..variants import variant
from .releases import digests

N = 8000
FEW = 300
"""Rows that go by stages, which takes a tenth of the time."""
COLOURS = ["red", "green", "blue"]
NAMES = ["x", "y", "colour", "flag"]


def rows_of(n: int = N, seed: int = 0) -> pa.Table:
    """x goes with y, and lacks values where y is large; blue goes with x, and grey is unknown."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = np.rint(100 + 10 * (0.8 * x + 0.6 * rng.normal(size=n))).astype(np.int64)
    colour = np.where(x + rng.normal(size=n) > 0, "blue", rng.choice(["red", "green"], n))
    colour = np.where(rng.random(n) < 0.1, "grey", colour)
    label = (x + rng.normal(size=n) > 0).astype(np.int64)
    return pa.table(
        {
            "x": pa.array(x, mask=rng.random(n) < np.where(y > 100, 0.5, 0.1)),
            "y": y,
            "colour": pa.array(colour).dictionary_encode(),
            "flag": pa.array(rng.random(n) < 0.3, mask=rng.random(n) < 0.2),
            "label": label,
        }
    )


def table(folder: Path, rows: pa.Table, files: int = 1, group: int = 100_000) -> Path:
    folder.mkdir(parents=True)
    for part in range(files):
        start, stop = (part * len(rows) // files, (part + 1) * len(rows) // files)
        path = folder / f"part-{part}.parquet"
        pq.write_table(rows.slice(start, stop - start), path, row_group_size=group)
    return folder


def spec(data: Path, ledger: Path | None = None, **sections: dict[str, Any]) -> ReleaseSpec:
    document: dict[str, dict[str, Any]] = {
        "dataset": {
            "path": str(data),
            "features": ["x", "y"],
            "categories": {"colour": COLOURS, "flag": [False, True]},
            "nulls": "model",
        },
        "bounds": {"columns": {"x": "auto", "y": [0, 200]}},
        "privacy": {
            "epsilon": 4.0,
            "delta": 1e-6,
            "ledger": None if ledger is None else str(ledger),
            "noise": "discrete_gaussian",
        },
        "model": {"components": 1},
    }
    for name, changes in sections.items():
        document[name].update(changes)
    return ReleaseSpec.from_dict(document)


def released(data: Path, out: Path, engine: Any = None, **sections: dict[str, Any]) -> list[str]:
    release(spec(data, **sections), output=str(out), insecure_test_noise=5, engine=engine)
    return digests(out)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("states")
    return released(table(folder / "data", rows_of()), folder / "out"), folder / "out"


@pytest.fixture(scope="module")
def drawn(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("rows") / "rows"
    write_samples(str(base[1]), 20_000, str(out), seed=2)
    return pq.read_table(out)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    folder = tmp_path_factory.mktemp("few")
    return released(table(folder / "data", rows_of(FEW)), folder / "out")


@pytest.mark.variant
def test_the_layout_and_the_threads_do_not_matter(few, tmp_path):
    order = np.random.default_rng(1).permutation(FEW)
    data = table(tmp_path / "data", rows_of(FEW).take(order), files=3, group=111)
    assert released(data, tmp_path / "out", LocalEngine(1, cache_bytes=0)) == few


@pytest.mark.slow
def test_a_cluster_gives_the_same(few, tmp_path):
    from dpgmm_dist.engine import open_engine

    with open_engine(workers=2) as engine:
        data = table(tmp_path / "data", rows_of(FEW), files=3)
        assert released(data, tmp_path / "out", engine) == few


def test_columns_have_their_names_and_types(drawn):
    assert drawn.column_names == NAMES
    kinds = [str(drawn.schema.field(name).type) for name in NAMES]
    assert kinds == ["double", "int64", "string", "bool"]
    assert set(drawn["colour"].to_pylist()) == {*COLOURS, None}
    assert set(drawn["flag"].to_pylist()) == {False, True, None}
    assert drawn["y"].null_count == 0


def test_empty_cells_are_as_many_as_in_the_rows_and_where_they_are(drawn):
    real = rows_of()
    for name, lacking in (("x", 0.3), ("flag", 0.2), ("colour", 0.1)):
        assert drawn[name].null_count / len(drawn) == pytest.approx(lacking, abs=0.03), name
    gone, large = drawn["x"].is_null().to_numpy(), drawn["y"].to_numpy() > 100
    assert gone[large].mean() - gone[~large].mean() > 0.15
    # The flag lacks values anywhere.
    gone = drawn["flag"].is_null().to_numpy()
    assert abs(gone[large].mean() - gone[~large].mean()) < 0.05
    has = ~real["x"].is_null().to_numpy()
    x, y = (real[name].to_numpy(zero_copy_only=False)[has] for name in ("x", "y"))
    wanted = np.corrcoef(x.astype(float), y)[0, 1]
    has = ~drawn["x"].is_null().to_numpy()
    x, y = (drawn[name].to_numpy(zero_copy_only=False)[has] for name in ("x", "y"))
    assert np.corrcoef(x.astype(float), y)[0, 1] == pytest.approx(wanted, abs=0.05)


def test_categories_have_their_shares_and_go_with_other_columns(drawn):
    real = rows_of()
    for name, value in (*(("colour", colour) for colour in COLOURS), ("flag", True)):
        wanted, found = (np.array(t[name].to_pylist()) == value for t in (real, drawn))
        assert found.mean() == pytest.approx(wanted.mean(), abs=0.02), value
    blue = np.array(drawn["colour"].to_pylist()) == "blue"
    y = drawn["y"].to_numpy()
    assert y[blue].mean() > y[~blue].mean() + 2


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Every query of a release."""
    found: list[PassQuery] = []

    def measured(exact: Any, query: PassQuery, noise: Any) -> Any:
        found.append(query)
        return measure(exact, query, noise)

    folder = tmp_path_factory.mktemp("asked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "measure", measured)
        released(table(folder / "data", rows_of(3 * FEW)), folder / "out")  # components as well
    return found


CELLS = [math.nan, math.inf, -math.inf, 0.0, 1.0, -1e308, 5e-324, 1e13, 100.4, 2.0, 0.5, -0.5]


@settings(max_examples=60, deadline=None)
@given(row=st.lists(st.sampled_from(CELLS) | st.floats(), min_size=4, max_size=4))
@example(row=[math.nan] * 4)
def test_no_row_costs_more_in_all_queries_together_than_they_declare(asked, row):
    """Also rows of nothing but empty cells, which count as any other: they cost something."""
    total = Fraction(0)
    for query in asked:
        codes = ColumnCodes(query.edges, query.columns, query.about, query.missing)
        u, valid = codes.to_lattice(np.array([row]))
        assert valid.all()
        label = np.zeros(1, dtype=np.int64)
        before = integers(accumulated(query, u[:0], label[:0]))
        total += price(query, before, integers(accumulated(query, u, label)))
    assert 0 < total <= sum(map(query_cost, asked))
    assert sum(map(query_cost, asked)) <= Fraction(rho_from_epsilon_delta(4.0, 1e-6))


def test_dropped_rows_contribute_nothing(tmp_path):
    """Rows that lack any value, or have an unknown category, may as well not be there."""
    rows = rows_of(FEW)
    colour = np.isin(np.array(rows["colour"].to_pylist()), COLOURS)
    whole = colour & ~rows["x"].is_null().to_numpy() & ~rows["flag"].is_null().to_numpy()
    drop = {"nulls": "drop"}
    all_rows = released(table(tmp_path / "all", rows), tmp_path / "one", dataset=drop)
    complete = table(tmp_path / "some", rows.filter(pa.array(whole)))
    assert released(complete, tmp_path / "two", dataset=drop) == all_rows
    sampled = load_release(str(tmp_path / "one")).sample(500, seed=1)[0]
    assert np.isfinite(sampled).all()


@pytest.mark.parametrize("nulls", ["model", variant("drop")])
def test_privacy_units_of_one_row_are_rows(tmp_path, nulls):
    rows = rows_of(FEW)
    units = rows.append_column("user", pa.array(np.arange(FEW)))
    unit = {"column": "user", "max_rows": 1}
    files = []
    for name, source, changes in (("rows", rows, {}), ("units", units, {"privacy_unit": unit})):
        release(
            spec(tmp_path, dataset={"nulls": nulls, **changes}),
            output=str(tmp_path / name),
            source=source,
            insecure_test_noise=5,
        )
        kept = ("mixture.parquet", "transform.parquet")
        files.append([(tmp_path / name / file).read_bytes() for file in kept])
    assert files[0] == files[1]


@pytest.mark.variant
def test_privacy_units_of_several_rows_may_lack_values(tmp_path):
    rows = rows_of(2 * FEW).append_column("user", pa.array(np.arange(2 * FEW) // 2))
    unit = {"column": "user", "max_rows": 2, "aggregate": "weight"}
    changes = {"privacy_unit": unit}
    release(
        spec(tmp_path, dataset=changes, privacy={"epsilon": 8.0}),
        output=str(tmp_path / "out"),
        source=rows,
        insecure_test_noise=5,
    )
    assert not verify_release(str(tmp_path / "out")).problems
    drawn = load_release(str(tmp_path / "out")).sample(20_000, seed=1)[0]
    assert np.isnan(drawn[:, 0]).mean() == pytest.approx(0.3, abs=0.1)


def test_the_release_is_read_back_and_scores_rows(base):
    found = load_release(str(base[1]))
    assert found.transform.lacking == (0, 2, 3)
    again = decode_transform(encode_transform(found.transform))
    assert encode_transform(again) == encode_transform(found.transform)
    rows, _ = found.sample(2000, seed=1)
    assert np.isnan(rows[:, [0, 2, 3]]).any(axis=0).all()
    scores = found.score_samples(rows)
    assert np.isfinite(scores).all()
    # Rows are likelier than the same cells put together at random.
    mixed = np.stack([np.roll(rows[:, j], 7 * j) for j in range(4)], axis=1)
    assert scores.mean() > found.score_samples(mixed).mean() + 0.1
    with pytest.raises(ValueError, match="finite"):
        found.score_samples([[0.0, np.nan, 1.0, 1.0]])


def test_the_tables_of_components_are_their_shares_of_values(base):
    tables = load_release(str(base[1])).category_tables()
    assert list(tables) == ["colour", "flag"]
    assert tables["colour"].shape == (1, 3)
    real = np.array(rows_of()["colour"].to_pylist())
    wanted = np.array([(real == colour).mean() for colour in COLOURS])
    assert tables["colour"][0] == pytest.approx(wanted / wanted.sum(), abs=0.03)


def test_the_receipt_and_the_description_say_what_was_found(base):
    receipt = json.loads((base[1] / "receipt.json").read_text())
    steps = [query["step"] for query in receipt["queries"]]
    assert steps[:4] == ["bounds.columns", "categories", "marginals.first", "marginals"]
    facts = receipt["marginals"]
    assert sorted(facts["colour"]["order"]) == sorted(COLOURS)
    assert facts["x"]["missing"] == pytest.approx(0.3, abs=0.03)
    assert facts["y"]["missing"] == 0
    assert not verify_release(str(base[1])).problems
    shown = describe(load_release(str(base[1])))
    assert shown["input"]["columns"][2]["values"] == COLOURS
    assert shown["columns"]["x"]["missing"] == facts["x"]["missing"]
    assert shown["columns"]["colour"]["shares"].keys() == set(COLOURS)


@pytest.mark.slow
def test_labels_with_categories_and_missing_values(tmp_path):
    labelled = {"label": "label", "labels": [0, 1]}
    released(table(tmp_path / "data", rows_of()), tmp_path / "out", dataset=labelled)
    write_samples(str(tmp_path / "out"), 10_000, str(tmp_path / "rows"), seed=1)
    found, real = pq.read_table(tmp_path / "rows"), rows_of()

    def blue(t: pa.Table, label: int) -> float:
        of_label = t["label"].to_numpy() == label
        return float((np.array(t["colour"].to_pylist()) == "blue")[of_label].mean())

    for label in (0, 1):
        assert blue(found, label) == pytest.approx(blue(real, label), abs=0.06)


def test_the_cost_is_that_of_the_draws_and_within_the_budget(tmp_path, recorder):
    result = release(spec(table(tmp_path / "data", rows_of(FEW))), output=str(tmp_path / "out"))
    budget = Fraction(rho_from_epsilon_delta(4.0, 1e-6))
    cost = recomputed(result.receipt, recorder.asked)
    assert Fraction(99, 100) * budget < cost <= budget


@pytest.mark.parametrize("fail_at", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_a_job_stopped_between_draws_measures_once(tmp_path, recorder, fail_at):
    data = table(tmp_path / "data", rows_of(FEW))
    stopped_and_released(lambda url: spec(data, url), tmp_path, recorder, fail_at)


@pytest.mark.parametrize("rows", [0, 1])
def test_no_rows_release_as_well(tmp_path, rows):
    released(table(tmp_path / "data", rows_of().slice(0, rows)), tmp_path / "out")
    assert load_release(str(tmp_path / "out")).sample(10, seed=1)[0].shape == (10, 4)


def test_the_plan_shows_the_counts_and_reads_nothing(tmp_path):
    planned = plan(spec(tmp_path / "nothing-here"), rows=FEW)
    assert [block.step for block in planned.blocks[:5]] == [
        "bounds.columns",
        "categories",
        "marginals.first",
        "marginals.first",
        "marginals",
    ]
    assert sum(block.rho for block in planned.blocks) <= planned.rho


@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        ({"categories": {"y": ["a"]}}, "which is one of dataset.features"),
        ({"categories": {"label": ["a"]}, "label": "label", "labels": [0]}, "dataset.label"),
        ({"categories": {"colour": []}}, "must be a non-empty list"),
        ({"categories": {"colour": ["a", "a"]}}, "colour"),
        (
            {
                "categories": {"colour": list(range(9000))},
                "label": "label",
                "labels": list(range(500)),
            },
            "4,500,000 values and labels together",
        ),
        ({"nulls": "keep"}, "must be one of drop, model"),
        (
            {"privacy_unit": {"column": "u", "max_rows": 2, "aggregate": "mean"}},
            "there is no mean of states",
        ),
        ({"features": "x", "width": 3}, "belongs to a table"),
    ],
)
def test_contradictions_are_refused(tmp_path, dataset, text):
    with pytest.raises(SpecError, match=text):
        spec(tmp_path, dataset=dataset)


@pytest.mark.parametrize("model", [{"marginals": "none"}, {"dimension": 2}])
def test_states_need_marginals(tmp_path, model):
    with pytest.raises(SpecError, match=r"dataset\.nulls: model"):
        spec(tmp_path, model=model)


def test_columns_that_cannot_hold_the_categories_are_refused(tmp_path):
    data = table(tmp_path / "data", rows_of(FEW))
    with pytest.raises(SpecError, match=r"dataset\.categories are integers.*'colour'"):
        released(data, tmp_path / "out", dataset={"categories": {"colour": [1, 2]}})
    with pytest.raises(DataError, match="category column 'x' is double"):
        released(
            data,
            tmp_path / "out",
            dataset={"features": ["y"], "categories": {"x": ["a"]}},
            bounds={"columns": {"y": [0, 200]}},
        )
    with pytest.raises(SpecError, match="array"):
        release(spec(data), output=str(tmp_path / "out"), source=ArraySource(np.zeros((5, 4))))


def test_a_specification_without_them_keeps_its_digest(tmp_path):
    document = spec(tmp_path).public_dict()
    for key in ("categories", "nulls"):
        del document["dataset"][key]
    plain = ReleaseSpec.from_dict(document)
    assert {"categories", "nulls"}.isdisjoint(plain.public_dict()["dataset"])
    document["dataset"]["nulls"] = "drop"
    assert ReleaseSpec.from_dict(document).public_dict()["dataset"]["nulls"] == "drop"
