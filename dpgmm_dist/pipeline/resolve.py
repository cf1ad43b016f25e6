"""A specification, resolved once into the small inputs that the other packages take.

Only the pipeline knows specifications. It hands down small frozen values: a place, columns, a
window, a feature map, a problem, the share of a privacy unit. Each can be made without a
specification, so each package can be tested alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpgmm_dist.artifact.receipt import budget_rho
from dpgmm_dist.column_kinds import Kind, range_of
from dpgmm_dist.data.dask_frames import is_dask_frame
from dpgmm_dist.data.frames import is_frame, refuse_lazy_frame
from dpgmm_dist.data.parquet_schema import Columns, Gather
from dpgmm_dist.data.source import (
    AnySource,
    ArraySource,
    DaskArraySource,
    DaskFrameSource,
    FrameSource,
    ParquetSource,
)
from dpgmm_dist.engine.config import ClusterConfig, Elastic, TlsFiles
from dpgmm_dist.errors import SpecError
from dpgmm_dist.model.problem import Problem
from dpgmm_dist.privacy.noise import NoiseSource, insecure_noise, noise_source
from dpgmm_dist.privacy.query import UnitShare
from dpgmm_dist.spec.cluster import ClusterSpec, WorkerRange
from dpgmm_dist.spec.fields import Bound
from dpgmm_dist.spec.release_spec import ReleaseSpec
from dpgmm_dist.spec.sections import DatasetSpec, PrivacySpec
from dpgmm_dist.storage.parquet_files import Place
from dpgmm_dist.windows import Account, Window


def open_dataset(
    dataset: DatasetSpec, gather: Gather | None = None, begun_at: int | None = None
) -> ParquetSource:
    """The rows that a specification names; see :meth:`ParquetSource.open`.

    ``begun_at`` is the snapshot of a release that is resumed, where the specification names none.
    """
    return ParquetSource.open(
        Place(dataset.path, dict(dataset.storage_options)),
        _columns(dataset),
        width=dataset.width,
        window=window_of(dataset),
        gather=gather,
        snapshot=begun_at if dataset.snapshot is None else dataset.snapshot,
    )


def open_frame(dataset: DatasetSpec, frame: Any, argument: str) -> FrameSource | DaskFrameSource:
    """The rows of a frame, with the columns of a specification; see :meth:`FrameSource.open`."""
    kind = DaskFrameSource if is_dask_frame(frame) else FrameSource
    return kind.open(
        frame,
        _columns(dataset),
        width=dataset.width,
        window=window_of(dataset),
        argument=argument,
    )


def rows_of(
    dataset: DatasetSpec, source: Any, gather: Gather | None = None, begun_at: int | None = None
) -> AnySource:
    """The rows of a release: the source or frame that is given, or the files of the dataset.

    Raises
    ------
    SpecError
        If ``source`` is neither.
    """
    if source is None:
        return open_dataset(dataset, gather, begun_at)
    if isinstance(source, ArraySource | DaskArraySource) and dataset.categories:
        raise SpecError(
            "dataset.categories names columns, and source is an array, which has none: give a "
            "pandas or polars frame, a pyarrow table, or the path of a dataset"
        )
    if isinstance(source, AnySource):
        if dataset.is_table and source.width != len(dataset.feature_names):
            raise SpecError(
                f"dataset.features names {len(dataset.feature_names)} columns, and source has "
                f"{source.width}: name each column, in their order"
            )
        return source
    refuse_lazy_frame(source, "source")
    if is_dask_frame(source) or is_frame(source):
        return open_frame(dataset, source, "source")
    raise SpecError(
        f"source is a {type(source).__name__}: give a pandas, polars or dask frame, a pyarrow "
        "table, ArraySource(X, y, labels) or DaskArraySource(X, y, labels)"
    )


def _columns(dataset: DatasetSpec) -> Columns:
    return Columns(
        features=dataset.feature_names,
        table=dataset.is_table,
        label=dataset.label,
        labels=dataset.labels or (),
        unit=None if dataset.privacy_unit is None else dataset.privacy_unit.column,
        categories=dict(dataset.categories or {}),
        keeps_nulls=dataset.nulls == "model",
    )


def window_of(dataset: DatasetSpec) -> Window | None:
    """The rows that are read; None for all of them."""
    window = dataset.window
    return (
        None if window is None else Window(window.column, window.equals, window.start, window.end)
    )


def account_of(spec: ReleaseSpec) -> Account | None:
    """The account that a release of a window is charged to; None for the ledger as a whole."""
    name = spec.privacy.account
    return None if name is None else Account(name, spec.dataset.path)


def unit_share(dataset: DatasetSpec) -> UnitShare:
    """How the rows of one privacy unit enter every query; the noise is scaled by it."""
    unit = dataset.privacy_unit
    if unit is None or unit.aggregate == "mean":
        return UnitShare()
    return UnitShare(weighted=True) if unit.aggregate == "weight" else UnitShare(unit.max_rows)


def given_ranges(
    spec: ReleaseSpec, kinds: Sequence[Kind | None] = ()
) -> dict[str, tuple[float, float]]:
    """The public ranges of the columns of a table as numbers, without those that are to be found.

    ``kinds`` says what each column of a table holds, where that is known.

    Raises
    ------
    SpecError
        If a column has bounds of another kind.
    """
    of_column = dict(zip(spec.feature_names, kinds, strict=False))
    return {
        name: _range(name, given, of_column.get(name)) for name, given in spec.given_columns.items()
    }


def _range(name: str, bounds: tuple[Bound, Bound], kind: Kind | None) -> tuple[float, float]:
    """The bounds of a column as numbers."""
    try:
        return range_of(*bounds, kind)
    except ValueError as problem:
        raise SpecError(
            f"bounds.columns: column {name!r} has the bounds {list(bounds)}; {problem}"
        ) from None


def problem_of(spec: ReleaseSpec, width: int, rho: float, norm: float | None = None) -> Problem:
    """What the model is asked to release, in feature units, for a budget of ``rho``.

    ``norm`` is the norm bound in use; without it and where it is found privately, a norm of 1
    stands in: it decides neither sizes nor passes.
    """
    model = spec.model
    if model.dimension is not None and model.dimension > width:
        raise SpecError(
            f"model.dimension is {model.dimension} but rows have {width} features: "
            f"use at most {width}, or leave it out"
        )
    return Problem(
        width=width,
        norm=norm or spec.norm_bound or 1.0,
        # The model plans what one row costs; a unit of m rows costs m^2 times that.
        rho=rho / unit_share(spec.dataset).rows ** 2,
        label_values=spec.label_values,
        components=model.components,
        covariance=model.covariance,
        assignment=model.assignment,
        dimension=None if model.dimension == width else model.dimension,
        allocation=model.allocation,
        normal_scores=spec.has_marginals,
    )


def rho_of(privacy: PrivacySpec, noise: NoiseSource) -> float:
    """The zCDP rho (mu^2/2 for exact Gaussian noise) that (epsilon, delta) allows."""
    return budget_rho(privacy.epsilon, privacy.delta, noise.accounting)


def noise_for(privacy: PrivacySpec, insecure_test_noise: int | None) -> NoiseSource:
    """The noise of a release, or reproducible test noise, for which no ledger may be charged."""
    if insecure_test_noise is None:
        return noise_source(privacy.noise)
    if privacy.ledger is not None:
        raise SpecError(
            "--insecure-test-noise gives no privacy, so no ledger may be charged for it: "
            "remove privacy.ledger from the specification, or the option from the command"
        )
    return insecure_noise(privacy.noise, insecure_test_noise)


def cluster_config(cluster: ClusterSpec) -> ClusterConfig:
    """Where the passes run, as the engines take it."""
    given = {key: getattr(cluster, key) for key in type(cluster).model_fields}
    tls = None if cluster.tls is None else TlsFiles(**cluster.tls.model_dump())
    workers: int | Elastic | WorkerRange | None = cluster.workers
    if isinstance(workers, WorkerRange):
        workers = Elastic(workers.minimum, workers.maximum)
    return ClusterConfig(**given | {"tls": tls, "workers": workers})
