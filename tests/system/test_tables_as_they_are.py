"""Tables with columns of every scale, without bounds; and tables that ask for none of this."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dpgmm_dist import ReleaseSpec, load_release, release
from dpgmm_dist.artifact.sample import Sampler

N = 30_000
DAY = np.timedelta64(1, "D")


def hard_table() -> pa.Table:
    """Columns of every scale, with a constant one and units that their types do not tell."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=N)
    day = np.datetime64("2023-01-01") + np.floor(300 + 90 * z).astype(int) * DAY
    return pa.table(
        {
            "money": np.exp(10 + z + 0.5 * rng.normal(size=N)),
            "tiny": rng.normal(3e-7, 1e-8, N),
            "far": -4e9 + 3e8 * z,
            "counts": rng.poisson(np.exp(1 + 0.4 * z)),
            "visits": rng.poisson(np.exp(2 + 0.3 * z)).astype(float),
            "day": pa.array(day.astype("datetime64[us]")),
            "constant": np.full(N, 3.7),
        }
    )


def spec(names: list[str], bounds: Any, **model: Any) -> ReleaseSpec:
    return ReleaseSpec.from_dict(
        {
            "dataset": {"path": "memory", "features": names},
            "bounds": {"columns": bounds},
            "privacy": {"epsilon": 1.0, "delta": 1e-6},
            "model": {"components": 1, **model},
        }
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[pa.Table, pa.Table]:
    """The rows, and sampled ones."""
    out, rows = str(tmp_path_factory.mktemp("hard") / "out"), hard_table()
    release(spec(rows.column_names, "auto"), output=out, source=rows, insecure_test_noise=3)
    return rows, Sampler.of(load_release(out), 1).table(N)[0]


def numbers(table: pa.Table, name: str) -> np.ndarray:
    column = table[name]
    timestamps = pa.types.is_timestamp(column.type)
    return np.asarray((column.cast(pa.int64()) if timestamps else column).to_numpy(), float)


def test_columns_of_every_scale_keep_their_quantiles(both):
    rows, drawn = both
    assert drawn.schema.types == rows.schema.types
    for name in rows.column_names:
        low, middle, high = np.quantile(numbers(rows, name), [0.1, 0.5, 0.9])
        found = np.quantile(numbers(drawn, name), [0.1, 0.5, 0.9])
        assert np.abs(found - [low, middle, high]).max() <= 0.25 * (high - low), name


def test_columns_keep_the_units_that_their_types_do_not_tell(both):
    _, drawn = both
    visits = numbers(drawn, "visits")
    assert (visits == np.rint(visits)).all() and len(set(visits)) > 10
    assert (numbers(drawn, "day") % 86_400e6 == 0).all()
    assert set(numbers(drawn, "constant")) == {3.7}


def test_a_constant_column_changes_no_correlations(both):
    """Its scores do not vary, so that its correlations are nothing but noise."""
    names = ["money", "far", "counts", "visits", "day"]
    rows, drawn = ([numbers(table, n).argsort().argsort() for n in names] for table in both)
    error = np.abs(np.corrcoef(drawn) - np.corrcoef(rows))
    assert error.mean() < 0.03 and error.max() < 0.08


def test_a_table_that_asks_for_nothing_is_released_as_without_all_this(tmp_path: Path) -> None:
    """Given bounds alone: no new query, and the same files as with everything said to be off."""
    rows = hard_table().select(["counts", "visits"]).slice(0, 2000)
    bounds = {"counts": [0, 30], "visits": [0, 60]}
    files = []
    for i, model in enumerate(({}, {"marginals": "none"})):
        out = tmp_path / str(i)
        job = spec(rows.column_names, bounds, **model)
        result = release(job, output=str(out), source=rows, insecure_test_noise=3)
        files.append([(out / f"{name}.parquet").read_bytes() for name in ("mixture", "transform")])
        assert "marginals" not in result.receipt and "bounds_found" not in result.receipt
        statistics = {b["statistic"] for q in result.receipt["queries"] for b in q["blocks"]}
        assert "bins" not in statistics
        assert not load_release(str(out)).transform.columns
    assert files[0] == files[1]
