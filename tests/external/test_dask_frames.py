"""dask DataFrames of pandas: the release of the same rows in memory, computed on the workers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import cloudpickle
import distributed
import numpy as np
import pyarrow as pa
import pytest

from dpgmm_dist import DPGaussianMixture
from dpgmm_dist.data.dask_frames import DaskFrameSource
from dpgmm_dist.data.parquet_schema import Columns
from dpgmm_dist.engine.dask_arrays import lazy_chunks
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.pipeline import release as story
from dpgmm_dist.pipeline.release import release
from dpgmm_dist.privacy.noise import insecure_noise
from dpgmm_dist.spec.release_spec import ReleaseSpec

from ..system.releases import digests

pandas = pytest.importorskip("pandas", reason="needs pandas: tests/external/install_tables.sh")
dd: Any = pytest.importorskip("dask.dataframe")

SECRET = 123.456789


def rows(n: int = 900) -> Any:
    rng = np.random.default_rng(3)
    old = rng.integers(0, 2, n).astype(bool)
    age = np.where(old, 60.0, 20.0) + rng.integers(0, 9, n)
    age[::50] = SECRET
    v = rng.normal(0, 0.2, (n, 2)).astype(np.float32)
    v[1::90, 0] = np.nan
    return pandas.DataFrame(
        {
            "age": age,
            "day": pandas.date_range("2020-01-01", periods=n, freq="h"),
            "color": pandas.array(rng.choice(["red", "green", None], n), dtype="string"),
            "old": old,
            "a": v[:, 0],
            "b": v[:, 1].astype(np.float64),
            "v": pandas.Series(pa.array(v.tolist(), pa.list_(pa.float32()))).astype(
                pandas.ArrowDtype(pa.list_(pa.float32()))
            ),
        }
    )


FRAME = rows()
TABLE = {
    "features": ["age", "day"],
    "label": "old",
    "labels": [False, True],
    "categories": {"color": ["red", "green"]},
    "nulls": "model",
}
TABLE_BOUNDS = {"columns": {"age": [0, 100], "day": ["2020-01-01", "2020-12-31"]}}
EMBEDDINGS = {"features": "v", "width": 2, "label": "color", "labels": ["green", "red"]}


def spec(dataset: dict[str, Any], bounds: dict[str, Any]) -> ReleaseSpec:
    return ReleaseSpec.from_dict(
        {
            "dataset": {"path": "frame", **dataset},
            "bounds": bounds,
            "privacy": {"epsilon": 1.0, "delta": 1e-6},
            "model": {"components": 1},
        }
    )


NUMBERS = spec({"features": ["a", "b"]}, {"columns": {"a": [-1, 1], "b": [-1, 1]}})


def released(folder: Path, source: Any, of: ReleaseSpec) -> list[str]:
    out = folder / f"out-{len(list(folder.iterdir()))}"
    release(of, output=str(out), release_id="same", insecure_test_noise=7, source=source)
    return digests(out)


def lazy(frame: Any = FRAME, partitions: int = 4) -> Any:
    return dd.from_pandas(frame, npartitions=partitions)


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    import dask

    with (
        dask.config.set({"distributed.admin.log-length": 0}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.mark.parametrize("where", ["threads", "cluster"])
@pytest.mark.parametrize(
    ("dataset", "bounds"),
    [
        (TABLE, TABLE_BOUNDS),
        (EMBEDDINGS, {"norm": 1.0}),
        ({"features": ["a", "b"]}, {"columns": {"a": [-1, 1], "b": [-1, 1]}}),
        (
            {
                "features": ["a", "b"],
                "window": {"column": "day", "start": "2020-01-03", "end": "2020-01-09"},
            },
            {"columns": {"a": [-1, 1], "b": [-1, 1]}},
        ),
    ],
    ids=["table", "embeddings", "numbers", "window"],
)
def test_the_release_of_a_lazy_frame_is_that_of_the_rows(
    client: distributed.Client, tmp_path: Path, where: str, dataset: Any, bounds: Any
) -> None:
    of = spec(dataset, bounds)
    # Columns are found by name, in whatever order.
    frame = lazy(FRAME[FRAME.columns[::-1]])
    if where == "threads":
        found = released(tmp_path, frame, of)
    else:
        with client.as_current():
            found = released(tmp_path, frame, of)
    assert found == released(tmp_path, FRAME, of)
    assert found != released(tmp_path, FRAME.drop(range(100, 110)), of)


def test_partitions_are_read_on_the_workers_and_no_row_is_in_the_graph(
    client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = Columns(("a", "age"), True, None, ())
    source = DaskFrameSource.open(lazy(), columns)
    parts = lazy_chunks(source, client).chunks
    secret = np.float64(SECRET).tobytes()
    assert secret in cloudpickle.dumps(lazy_chunks(source).chunks)
    assert secret not in cloudpickle.dumps([dict(part.__dask_graph__()) for part in parts])

    got: list[type] = []
    result = distributed.Future.result

    def fetched(self: Any, *arguments: Any, **options: Any) -> Any:
        value = result(self, *arguments, **options)
        got.append(type(value))
        return value

    monkeypatch.setattr(distributed.Future, "result", fetched)
    with client.as_current():
        released(
            tmp_path,
            lazy(),
            spec({"features": ["a", "b"]}, {"columns": {"a": [-1, 1], "b": [-1, 1]}}),
        )
    assert {kind.__name__ for kind in got} == {"Summed"}


def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path) -> None:
    def refused(frame: Any, dataset: dict[str, Any], words: str, kind: Any = DataError) -> None:
        bounds = {"columns": {name: [-1, 1] for name in dataset["features"]}}
        with pytest.raises(kind, match=words):
            release(spec(dataset, bounds), output=str(tmp_path / "r"), source=frame)

    refused(lazy(), {"features": ["a", "color"]}, "column 'color' is .*string")
    refused(lazy(), {"features": ["a", "nothing"]}, "no column 'nothing'")
    objects = lazy().assign(o=lazy()["a"].astype(object))
    refused(objects, {"features": ["a", "o"]}, "column 'o' has dtype object.*astype")
    unit = {"features": ["a"], "privacy_unit": {"column": "color", "max_rows": 2}}
    refused(lazy(), unit, "dask DataFrame", SpecError)
    assert not (tmp_path / "r").exists()


def test_frames_that_change_or_fail_carry_no_value(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    of = spec({"features": ["a", "age"]}, {"columns": {"a": [-1, 1], "age": [0, 200]}})
    calls = iter(range(100))

    def changing(part: Any) -> Any:
        return part.assign(a=part["a"] + next(calls) / 1000)

    def failing(part: Any) -> Any:
        raise ValueError(f"could not convert {part['age'].iloc[0]}")

    def as_dates(part: Any) -> Any:
        return part.assign(a=part["day"])

    meta = FRAME.iloc[:0]
    caplog.set_level(logging.DEBUG, "dpgmm_dist")
    for function, words in (
        (changing, "dask DataFrame gave other rows"),
        (failing, r"dask DataFrame cannot be computed \(ValueError\)"),
        (as_dates, "other types than it declares"),
    ):
        frame = lazy().map_partitions(function, meta=meta)
        with pytest.raises(DataError, match=words) as caught:
            release(of, output=str(tmp_path / function.__name__), source=frame)
        assert "123.4" not in repr(caught.value)
        assert caught.value.__cause__ is None
    assert "123.4" not in caplog.text


def test_fit_takes_a_lazy_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "noise_for", lambda privacy, _: insecure_noise(privacy.noise, 7))

    def model(**options: Any) -> DPGaussianMixture:
        return DPGaussianMixture(1, epsilon=8.0, delta=1e-6, random_state=1, **options)

    options = {
        "column_bounds": {"age": (0, 100), "day": (date(2020, 1, 1), "2020-12-31")},
        "labels": (False, True),
        "label": "old",
    }
    fitted, same = model(**options).fit(lazy()), model(**options).fit(FRAME)
    assert (fitted.means_ == same.means_).all()
    assert fitted.feature_names_in_.tolist() == ["age", "day"]
    again, _ = fitted.sample(20)
    assert type(again) is pandas.DataFrame
    assert list(again.columns) == ["age", "day", "old"]
    vectors = model(features="v", width=2, norm_bound=1.0).fit(lazy())
    assert (vectors.means_ == model(features="v", width=2, norm_bound=1.0).fit(FRAME).means_).all()
    whole = model(norm_bound=1.0).fit(lazy()[["a", "b"]])
    assert whole.n_features_in_ == 2
    with pytest.raises(SpecError, match=r"X\.assign\(old=y\)"):
        model(**options).fit(lazy(), FRAME["old"])
    with pytest.raises(SpecError, match="map_partitions"):
        fitted.score_samples(lazy())
    scores = lazy().map_partitions(fitted.score_samples, meta=(None, float)).compute()
    assert np.concatenate([scores]).shape == (len(FRAME),)
