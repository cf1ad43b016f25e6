"""DPGaussianMixture.fit and release() on dask arrays: the release of the same rows in memory."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import pytest

from dpgmm_dist import DPGaussianMixture, ReleaseSpec, release
from dpgmm_dist.data.source import AnySource, ArraySource, DaskArraySource
from dpgmm_dist.engine import open_engine
from dpgmm_dist.errors import DataError, SpecError

from .releases import digests

N, D = 2000, 3
RNG = np.random.default_rng(4)
Y = RNG.integers(0, 3, N)  # 2 is no label
X = RNG.normal(size=(N, D)) * 0.2 + np.where(Y[:, None] == 1, 0.5, -0.3)
X[::7, 1] = np.nan
LABELS = (0, 1)


def spec_of(**dataset: object) -> ReleaseSpec:
    return ReleaseSpec.from_dict(
        {
            "dataset": {"path": "memory", "features": "x", **dataset},
            "bounds": {"norm": 1.5},
            "privacy": {"epsilon": 0.1, "delta": 1e-6},
            "model": {"components": 1},
        }
    )


def released(source: AnySource, target: Path, **options: object) -> dict[str, str]:
    spec = spec_of(label="y", labels=list(LABELS))
    release(
        spec,
        output=str(target),
        source=source,
        release_id="same",
        insecure_test_noise=5,
        **options,  # type: ignore[arg-type]  # of several types
    )
    return digests(target)


def chunked(rows: int, columns: int = D) -> DaskArraySource:
    x = da.from_array(X, chunks=(rows, columns))
    return DaskArraySource(x, da.from_array(Y, chunks=N // 3), LABELS)


def test_a_dask_array_is_released_as_the_array_byte_for_byte(tmp_path: Path) -> None:
    """On threads, and on two processes that are the client in use or the engine given."""
    want = released(ArraySource(X, Y, LABELS), tmp_path / "memory")
    assert released(chunked(700, 2), tmp_path / "threads") == want
    with open_engine(workers=2) as engine:
        assert released(chunked(300), tmp_path / "engine", engine=engine) == want
        assert released(chunked(900, 1), tmp_path / "client") == want

        model = DPGaussianMixture(1, epsilon=4.0, norm_bound=1.5, labels=LABELS)
        x, y = da.from_array(X, chunks=(500, D)), da.from_array(Y, chunks=500)
        keep = ~da.isnan(x).any(axis=1)
        model.fit(x[keep].persist(), y[keep])  # chunks of unknown size
        assert model.labels_.tolist() == [0, 1]
        assert model.means_ == pytest.approx(np.array([[-0.3] * D, [0.5] * D]), abs=0.1)


def test_fit_without_a_cluster() -> None:
    model = DPGaussianMixture(1, epsilon=4.0, norm_bound=1.5)
    model.fit(da.from_array(X, chunks=(1000, D)))
    assert model.means_[0] == pytest.approx(np.nanmean(X, axis=0), abs=0.1)


@pytest.mark.parametrize("rows", [np.zeros((0, 2)), np.full((9, 2), np.nan)])
def test_few_rows_or_none_are_fitted_like_any(rows: np.ndarray) -> None:
    model = DPGaussianMixture(2, epsilon=0.5).fit(da.from_array(rows, chunks=(4, 1)))
    assert np.isfinite(model.means_).all()


def test_rows_that_change_between_passes_end_the_fit_before_they_are_used() -> None:
    drawn = da.from_array(X, chunks=(1000, D)).map_blocks(
        lambda block: block + np.random.default_rng().normal(size=block.shape), dtype=float
    )
    with pytest.raises(DataError, match=r"gave other rows .* nothing was drawn for these"):
        DPGaussianMixture(1).fit(drawn)


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    x = da.from_array(X, chunks=(1000, D))
    with pytest.raises(DataError, match="make y a dask array"):
        DPGaussianMixture(1, labels=LABELS).fit(x, Y)
    with pytest.raises(DataError, match="X is ndarray and not a dask array"):
        DPGaussianMixture(1, labels=LABELS).fit(X, da.from_array(Y))
    with pytest.raises(SpecError, match="without labels"):
        DPGaussianMixture(1).fit(x, da.from_array(Y, chunks=1000))
    options = {"output": str(tmp_path / "out"), "source": DaskArraySource(x)}
    with pytest.raises(SpecError, match="units of a dask array are not"):
        release(spec_of(privacy_unit={"column": "who", "max_rows": 2}), **options)
    with pytest.raises(SpecError, match=r"dataset\.window selects rows by a column"):
        release(spec_of(window={"column": "day", "equals": "1"}), **options)
