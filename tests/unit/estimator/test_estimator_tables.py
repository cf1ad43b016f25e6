"""DPGaussianMixture on tables as they are: categories, empty cells, bounds that nobody knows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpgmm_dist import DPGaussianMixture
from dpgmm_dist.errors import SpecError
from dpgmm_dist.pipeline import release as story
from dpgmm_dist.privacy.noise import insecure_noise

N = 400
"""Few rows go by stages, which takes a fraction of the time."""
RNG = np.random.default_rng(8)
WEALTH = RNG.normal(size=N)
REGION = np.where(RNG.random(N) < 0.1, "secret", np.where(WEALTH > 0, "north", "south"))
EMPTY = RNG.random(N) < 0.3
TABLE = pa.table(
    {
        "income": np.exp(WEALTH),
        "visits": pa.array(RNG.poisson(np.exp(1 - 0.5 * WEALTH)), pa.int32(), mask=EMPTY),
        "region": REGION,
        "member": pa.array(RNG.random(N) < 0.4),
        "note": ["x"] * N,
    }
)
CATEGORIES = {"region": ("south", "north"), "member": [False, True]}
NAMES = ["income", "visits", "member", "region"]
"""Columns of numbers, then those of categories by name."""


@pytest.fixture(autouse=True, scope="module")
def fixed_noise():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(story, "noise_for", lambda privacy, _: insecure_noise(privacy.noise, 7))
        yield


def model(**options):
    settings = {"categories": CATEGORIES, "nulls": "model", "features": ["income", "visits"]}
    return DPGaussianMixture(1, epsilon=8.0, random_state=1, **settings | options)


def names_of(frame):
    return list(getattr(frame, "column_names", frame.columns))


@pytest.fixture(scope="module")
def fitted():
    return model().fit(TABLE)


def test_sampled_tables_have_categories_and_empty_cells(fitted):
    rows, component = fitted.sample(3000)
    assert isinstance(rows, pa.Table) and rows.column_names == NAMES
    assert rows.schema.types == [pa.float64(), pa.int32(), pa.bool_(), pa.string()]
    assert set(rows["region"].to_pylist()) == {"north", "south", None}
    assert rows["visits"].null_count / 3000 == pytest.approx(0.3, abs=0.08)
    assert rows["region"].null_count / 3000 == pytest.approx(0.1, abs=0.05)
    assert rows["income"].null_count == 0
    north = np.array(rows["region"].to_pylist()) == "north"
    income = rows["income"].to_numpy()
    assert np.median(income[north]) > 1.5 * np.median(income[~north])
    assert component.shape == (3000,)


def test_a_table_is_scored_by_its_names_and_an_array_by_numbers(fitted):
    first_rows = TABLE.slice(0, 50)
    numbers = np.stack(
        [
            first_rows["income"].to_numpy(),
            first_rows["visits"].to_numpy(zero_copy_only=False).astype(float),
            np.array(first_rows["member"].to_pylist(), dtype=float),
            [
                {"south": 0.0, "north": 1.0}.get(name, np.nan)
                for name in first_rows["region"].to_pylist()
            ],
        ],
        axis=1,
    )
    scores = fitted.score_samples(first_rows)
    assert np.isfinite(scores).all()
    assert (scores == fitted.score_samples(numbers)).all()
    assert (fitted.predict(first_rows) == 0).all()
    assert fitted.n_features_in_ == 4
    assert fitted.feature_names_in_.tolist() == NAMES


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_frames_come_back_as_frames(kind):
    library = pytest.importorskip(kind)
    frame = TABLE.to_pandas() if kind == "pandas" else library.DataFrame(TABLE)
    if kind == "pandas":
        frame["region"] = frame["region"].astype("category")
        frame["visits"] = frame["visits"].astype("Int32")
    again = model().fit(frame)
    rows, _ = again.sample(500)
    assert type(rows) is type(frame) and names_of(rows) == NAMES
    assert set(pa.table(rows)["region"].to_pylist()) <= {"north", "south", None}
    if kind == "pandas":
        assert list(rows["region"].cat.categories) == ["south", "north"]
        assert str(rows["visits"].dtype) == "Int32" and rows["visits"].isna().any()
        # No value of the rows stays with the model, not even in the type of a column.
        assert not len(again._read.example["region"].cat.categories)


def test_all_columns_but_those_that_are_categories_hold_numbers():
    table = TABLE.select(["visits", "income", "region", "member"])
    fitted = model(features="embedding", nulls=None).fit(table)
    assert fitted.feature_names_in_.tolist() == ["visits", "income", "member", "region"]
    assert set(fitted.receipt_["bounds_found"]["columns"]) == {"visits", "income"}
    rows, _ = fitted.sample(100)
    assert all(rows[name].null_count == 0 for name in rows.column_names)


def test_bounds_of_single_columns_are_found(tmp_path):
    pq.write_table(TABLE, tmp_path / "t.parquet")
    bounds = {"income": (0, 50), "visits": "auto"}
    fitted = model(column_bounds=bounds).fit(tmp_path / "t.parquet")
    assert set(fitted.receipt_["bounds_found"]["columns"]) == {"visits"}
    everything = model(column_bounds="auto").fit(TABLE)
    assert set(everything.receipt_["bounds_found"]["columns"]) == {"income", "visits"}


def test_labels_beside_categories():
    labels = np.where(WEALTH > 0, "rich", "poor")
    fitted = model(labels=("poor", "rich"), categories={"region": ["south", "north"]})
    rows, label = fitted.fit(TABLE, labels).sample(400)
    north = np.array(rows["region"].to_pylist()) == "north"
    assert north[label == "rich"].mean() > 0.6 > 0.4 > north[label == "poor"].mean()


@pytest.mark.parametrize(
    ("options", "rows", "words"),
    [
        ({}, np.zeros((5, 4)), "categories are by the names of columns"),
        ({"categories": None}, np.zeros((5, 4)), "nulls are by the names of columns"),
        ({"norm_bound": 3.0}, TABLE, "norm_bound is 3.0, and categories makes"),
        ({"features": "income"}, TABLE, "features is 'income'"),
        ({"nulls": "keep"}, TABLE, "nulls: got 'keep'"),
        ({"categories": {"income": ["a"]}}, TABLE, "categories: got 'income', which is one of"),
        ({"categories": {"region": "north"}}, TABLE, "categories: column 'region' got 'north'"),
        ({"categories": ["region"]}, TABLE, "categories: got "),
        ({"categories": {"region": [1, 2]}}, TABLE, "categories are integers"),
        ({"categories": {"place": ["a"]}}, TABLE, "no column 'place'"),
        ({"marginals": "none"}, TABLE, "needs marginals: auto"),
    ],
)
def test_errors_name_the_argument(options, rows, words):
    with pytest.raises((SpecError, ValueError)) as caught:
        model(**options).fit(rows)
    assert words in str(caught.value)
    assert "dataset." not in str(caught.value)
