"""DPGaussianMixture and release() on frames: columns by name, frames back, errors by argument."""

from __future__ import annotations

import json
import pickle
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from dpgmm_dist import DPGaussianMixture, ReleaseSpec, release
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.estimator import RowsError
from dpgmm_dist.pipeline import release as story
from dpgmm_dist.privacy.noise import insecure_noise

N = 1500
RNG = np.random.default_rng(5)
OLD = RNG.integers(0, 2, N).astype(bool)
AGE = np.where(OLD, 60, 20) + RNG.integers(0, 9, N)
DAYS = [date(2020, 1, 1) + timedelta(days=int(d)) for d in RNG.integers(0, 300, N)]
TABLE = pa.table(
    {
        "age": pa.array(AGE, pa.int16()),
        "day": pa.array(DAYS),
        "old": OLD,
        "v": pa.array(RNG.normal(0, 0.2, (N, 2)).tolist(), pa.list_(pa.float32())),
    }
)
BOUNDS = {"age": (0, 100), "day": (date(2020, 1, 1), "2020-12-31")}


@pytest.fixture(autouse=True)
def fixed_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "noise_for", lambda privacy, _: insecure_noise(privacy.noise, 7))


def model(**options):
    return DPGaussianMixture(1, epsilon=8.0, random_state=1, **options)


def frame_of(kind):
    if kind == "pyarrow":
        return TABLE
    library = pytest.importorskip(kind)
    return TABLE.to_pandas() if kind == "pandas" else library.DataFrame(TABLE)


@pytest.mark.parametrize("kind", ["pyarrow", "pandas", "polars"])
def test_a_table_by_column_names_with_labels_of_a_column(kind):
    frame = frame_of(kind)
    fitted = model(column_bounds=BOUNDS, labels=(False, True), label="old").fit(frame)
    assert fitted.labels_.tolist() == [0, 1]
    assert fitted.means_[:, 0] == pytest.approx([24, 64], abs=3)
    again, y = fitted.sample(200)
    assert type(again) is type(frame)
    assert list(getattr(again, "column_names", again.columns)) == ["age", "day", "old"]
    table = pa.table(again)
    assert set(y.tolist()) == {0, 1}
    assert table["old"].to_pylist() == [bool(value) for value in y]
    assert all(isinstance(value, int) for value in table["age"].to_pylist())
    assert min(table["age"].to_pylist()) >= 0
    assert min(table["day"].to_pylist()) >= date(2020, 1, 1)
    scores = fitted.score_samples(frame[:3])
    assert scores == pytest.approx(fitted.score_samples(np.c_[AGE, days()][:3]))


def test_names_and_predictions_follow_the_columns():
    fitted = model(column_bounds=BOUNDS, labels=(False, True), label="old").fit(TABLE)
    assert fitted.feature_names_in_.tolist() == ["age", "day"]
    assert fitted.classes_.tolist() == [0, 1]
    swapped = TABLE.select(["day", "v", "age"])  # columns are found by name
    assert np.mean(fitted.predict(swapped) == OLD) > 0.95
    with pytest.raises(RowsError, match="X: no column 'day'"):
        fitted.predict(TABLE.select(["age"]))
    fitted.set_params(column_bounds=None, features="v", width=2, label="label", labels=())
    assert not hasattr(fitted.fit(TABLE), "feature_names_in_")


def days():
    return [(day - date(1970, 1, 1)).days for day in DAYS]


@pytest.mark.parametrize("kind", ["pyarrow", "pandas", "polars"])
def test_a_column_of_embeddings_with_labels_beside_it(kind):
    frame = frame_of(kind)
    options = {"features": "v", "width": 2, "norm_bound": 1.0, "labels": (False, True)}
    fitted = model(**options).fit(frame, OLD)
    again, y = fitted.sample(5)
    assert list(getattr(again, "column_names", again.columns)) == ["v"]
    assert y.shape == (5,)
    from_array = model(norm_bound=1.0, labels=(False, True)).fit(
        np.array(TABLE["v"].to_pylist(), np.float32), OLD
    )
    assert (fitted.means_ == from_array.means_).all()


@pytest.mark.parametrize("kind", ["pyarrow", "pandas", "polars"])
def test_all_columns_as_one_vector(kind):
    frame = pa.table({"a": RNG.normal(0, 0.2, N), "b": RNG.normal(0, 0.2, N), "y": OLD.astype(int)})
    if kind != "pyarrow":
        library = pytest.importorskip(kind)
        frame = frame.to_pandas() if kind == "pandas" else library.DataFrame(frame)
    vectors = np.c_[frame["a"], frame["b"]]
    fitted = model(norm_bound=1.5, labels=(0, 1), label="y").fit(frame)
    same = model(norm_bound=1.5, labels=(0, 1)).fit(vectors, OLD.astype(int))
    assert (fitted.means_ == same.means_).all()
    again, _ = fitted.sample(4)
    assert list(getattr(again, "column_names", again.columns)) == ["a", "b", "y"]
    chosen = model(norm_bound=1.5, features=["b"]).fit(frame)
    assert chosen.n_features_in_ == 1
    assert list(getattr(chosen.sample(2)[0], "column_names", chosen.sample(2)[0].columns)) == ["b"]


def test_labels_may_be_dates():
    month = [date(2020, 1, 1) if old else date(2020, 2, 1) for old in OLD]
    table = TABLE.append_column("month", pa.array(month))
    labels = (date(2020, 2, 1), "2020-01-01")
    fitted = model(column_bounds={"age": (0, 100)}, labels=labels, label="month").fit(table)
    assert fitted.labels_.tolist() == ["2020-02-01", "2020-01-01"]
    rows, y = fitted.sample(20)
    assert rows["month"].to_pylist() == [date.fromisoformat(text) for text in y]


def test_numbered_columns_of_pandas_keep_their_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(RNG.normal(0, 0.2, (N, 3)))
    fitted = model(norm_bound=1.5).fit(frame)
    again, component = fitted.sample(4)
    assert list(again.columns) == [0, 1, 2]
    assert component.tolist() == [0] * 4
    assert fitted.score(frame) == pytest.approx(fitted.score(frame.to_numpy()))


@pytest.mark.parametrize(
    ("options", "y", "error", "words"),
    [
        ({"features": "w"}, None, DataError, "X: no column 'w'"),
        ({"features": "v"}, None, SpecError, "width is missing"),
        ({"column_bounds": {"v": (0, 1)}}, None, DataError, "X: column 'v' is list"),
        ({"column_bounds": {"day": (0, "x")}}, None, SpecError, "column_bounds: column 'day' got"),
        ({"column_bounds": {"age": ("06:30", "07:30")}}, None, SpecError, "'age' has the bounds"),
        ({"column_bounds": BOUNDS, "labels": (0, 1)}, None, SpecError, "X has no column 'label'"),
        ({"column_bounds": BOUNDS}, OLD, SpecError, "y is given without labels"),
        ({"column_bounds": BOUNDS, "labels": (True,)}, OLD[1:], DataError, "X and y"),
        ({"column_bounds": BOUNDS, "labels": ("a",)}, OLD, SpecError, "of X holds booleans"),
    ],
)
def test_errors_name_the_argument(options, y, error, words):
    with pytest.raises(error) as caught:
        model(**options).fit(TABLE, y)
    assert words in str(caught.value)


def test_bounds_by_name_need_names():
    with pytest.raises(SpecError, match="column_bounds are by the names of columns"):
        model(column_bounds=BOUNDS).fit(np.zeros((3, 2)))


def test_lazy_frames_of_polars_are_refused_with_what_to_give(tmp_path):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(TABLE).lazy()
    with pytest.raises(SpecError, match=r"X is a .*collect\(\)"):
        model(column_bounds=BOUNDS).fit(frame)
    with pytest.raises(SpecError, match=r"source is a .*collect\(\)"):
        release(spec_of(), output=str(tmp_path / "r"), source=frame)


def spec_of(columns=BOUNDS, **dataset):
    return ReleaseSpec.from_dict(
        {
            "dataset": {"path": "frame", "features": ["age", "day"], **dataset},
            "bounds": {"columns": columns},
            "privacy": {"epsilon": 8.0, "delta": 1e-6},
            "model": {"components": 1},
        }
    )


@pytest.mark.parametrize("kind", ["pyarrow", "pandas", "polars"])
def test_release_takes_a_frame_with_units_and_a_window(kind, tmp_path):
    frame = frame_of(kind)
    dataset = {
        "features": ["day"],
        "privacy_unit": {"column": "age", "max_rows": 4},
        "window": {"column": "day", "start": "2020-01-01", "end": "2020-07-01"},
    }
    spec = spec_of(columns={"day": BOUNDS["day"]}, **dataset)
    result = release(spec, output=str(tmp_path / "r"), source=frame)
    assert result.receipt["neighbours"]["unit"].startswith("all rows that share a value of 'age'")
    assert [c["name"] for c in load(tmp_path / "r")["columns"]] == ["day"]


def load(path):
    from dpgmm_dist import load_release

    return load_release(str(path)).receipt["input"]


@pytest.mark.parametrize("source", [[[1, 2]], {"age": [1]}, np.zeros((2, 2)), "path"])
def test_release_refuses_other_sources_by_name(source, tmp_path):
    with pytest.raises(SpecError, match="source is a "):
        release(spec_of(), output=str(tmp_path / "r"), source=source)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("kind", ["pyarrow", "pandas", "polars"])
def test_a_fitted_model_keeps_nothing_of_the_rows(kind):
    """Neither their number, which pandas writes into Arrow schemas, nor values of an index."""
    index = {"kind": "range", "name": None, "start": 0, "stop": N, "step": 1}
    metadata = {"pandas": json.dumps({"index_columns": [index]})}
    frame = frame_of(kind)
    if kind == "pyarrow":
        frame = frame.replace_schema_metadata(metadata)
    if kind == "pandas":
        names = [f"Zanzibar {i}" for i in range(N)]
        frame = frame.assign(who=names, old=frame["old"].map({True: "Zanzibar", False: "no"}))
        frame = frame.astype({"old": "category"}).set_index(["who", frame["age"] % 2])
        frame.attrs = {"from": "Zanzibar"}
    kept = pickle.dumps(model(column_bounds=BOUNDS).fit(frame))
    assert f'"stop": {N}'.encode() not in kept
    assert b"Zanzibar" not in kept
