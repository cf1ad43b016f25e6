"""The argument of ``fit`` as a source of rows: arrays, dask arrays and frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from dpgmm_dist.errors import SpecError
from dpgmm_dist.estimator.errors import ParameterError, RowsError

if TYPE_CHECKING:
    from dpgmm_dist.data.parquet_schema import Columns
    from dpgmm_dist.data.source import (
        ArraySource,
        DaskArraySource,
        DaskFrameSource,
        FrameSource,
    )

Floats = npt.NDArray[np.float64]
_EMBEDDINGS = "embedding"
"""The default of ``features``."""
Labels = tuple[int, ...] | tuple[str, ...]


class ReadingParameters(Protocol):
    """The parameters of the estimator that decide what is read."""

    labels: Sequence[int] | Sequence[str]
    features: str | Sequence[str]
    label: str
    column_bounds: Mapping[str, Sequence[Any] | str] | str | None
    categories: Mapping[str, Sequence[Any]] | None
    nulls: str | None
    norm_bound: float | str
    width: int | None


def reads_table(model: ReadingParameters) -> bool:
    """Whether rows are columns with a range each, rather than vectors with a bound on their norm.

    Raises
    ------
    SpecError
        When there is a norm bound for a table.
    """
    states = {"categories": bool(model.categories), "nulls='model'": model.nulls == "model"}
    wanted = [name for name, is_wanted in states.items() if is_wanted]
    if wanted and model.column_bounds is None and model.norm_bound != "auto":
        raise SpecError(
            f"norm_bound is {model.norm_bound!r}, and {wanted[0]} makes the rows a table, which "
            "has bounds by column: give column_bounds in its place, or neither"
        )
    return model.column_bounds is not None or bool(wanted)


def table_columns(model: ReadingParameters, X: Any) -> tuple[str, ...]:
    """The columns of a table that hold numbers, or the column that ``features`` names.

    Those of ``column_bounds``; where these name none, those of a list ``features``, or all
    columns of a frame but for the label and the categories.

    Raises
    ------
    SpecError
        When the rows are an array, which has no names.
    """
    from dpgmm_dist.data.dask_frames import is_dask_frame
    from dpgmm_dist.data.frames import column_names, is_frame

    if not (isinstance(X, str | Path) or is_frame(X) or is_dask_frame(X)):
        bounded = "column_bounds are" if model.column_bounds is not None else "nulls are"
        raise SpecError(
            f"{'categories are' if model.categories else bounded} by the names of columns: give "
            "X as a pandas, polars or dask frame, a pyarrow table, or the path of a dataset"
        )
    if isinstance(model.column_bounds, Mapping):
        return tuple(model.column_bounds)
    if not isinstance(model.features, str):
        return tuple(model.features)
    if isinstance(X, str | Path) or model.features != _EMBEDDINGS:
        raise SpecError(
            f"features is {model.features!r}, which names a column of embeddings: list the "
            "columns of the table that hold numbers"
        )
    taken = {*(model.categories or {}), *([model.label] if len(model.labels) else [])}
    return tuple(name for name in column_names(X) if name not in taken)


@dataclass(frozen=True)
class ReadFrame:
    """The columns that were read from a frame."""

    example: Any
    """The frame without its rows."""
    columns: Columns
    labels_in_frame: bool

    @property
    def names(self) -> list[str]:
        """The columns that were read, in the order of the features, the label last."""
        label = self.columns.label if self.labels_in_frame else None
        return [*self.columns.features, *([] if label is None else [label])]

    def numbers(self, frame: Any, width: int) -> Floats:
        """The feature columns of another frame as rows (n, width); NaN where one is not valid."""
        from dpgmm_dist.data.frames import FrameSource, numbers_of, table_of

        features = replace(self.columns, label=None, labels=())
        table = table_of(frame, features.features, "X")
        source = FrameSource.open(table, features, width=width, argument="X")
        return np.asarray(numbers_of(source))


def array_source(model: ReadingParameters, X: Any, y: Any) -> ArraySource | DaskArraySource:
    """Rows (n, d) and labels (n,) of arrays, or of objects that numpy converts to arrays."""
    from dpgmm_dist.data.dask_arrays import is_dask_array
    from dpgmm_dist.data.source import ArraySource, DaskArraySource

    labels: Any = tuple(model.labels)
    if labels and y is None:
        raise SpecError("labels are given: this requires y to be passed, but the target y is None")
    if is_dask_array(X) or is_dask_array(y):
        return DaskArraySource(X, y, labels)
    return ArraySource(matrix_of(X), None if y is None else _vector_of(y), labels)


def frame_source(
    model: ReadingParameters, X: Any, y: Any, labels: Labels, categories: Mapping[str, Labels]
) -> FrameSource | DaskFrameSource:
    """The columns of a frame that are read, and the labels of ``y`` or of a column.

    ``labels`` and ``categories`` are the public values as a specification has them.
    """
    from dpgmm_dist.data.column_types import find_fields
    from dpgmm_dist.data.dask_frames import DaskFrameSource, is_dask_frame
    from dpgmm_dist.data.frames import FrameSource, table_of, with_labels
    from dpgmm_dist.data.parquet_schema import Columns

    if y is not None and not labels:
        raise SpecError("y is given without labels: list the public labels it may hold")
    is_lazy = is_dask_frame(X)
    if y is not None and is_lazy:
        raise SpecError(
            "y is given beside a dask DataFrame: make it a column, and name it by "
            f"DPGaussianMixture(label=...), for instance X.assign({model.label}=y)"
        )
    table_read = reads_table(model)
    categories = dict(categories) if table_read else {}
    features = (*_feature_columns(model, X), *categories)
    names = (*features, model.label) if labels and y is None else features
    table = table_of(X._meta if is_lazy else X, names, "X")
    if labels and y is None and not find_fields(table.schema, model.label):
        raise SpecError(
            f"labels are given, but X has no column {model.label!r}: name it (label=...) or "
            "pass y to fit"
        )
    if y is not None:
        table = with_labels(table, model.label, y)
    embeddings = not table_read and features == (model.features,)
    columns = Columns(
        features=features,
        table=not embeddings,
        label=model.label if labels else None,
        labels=labels,
        categories=categories,
        keeps_nulls=table_read and model.nulls == "model",
    )
    width = model.width if embeddings else None
    if is_lazy:
        return DaskFrameSource.open(X, columns, width=width, argument="X")
    return FrameSource.open(table, columns, width=width, argument="X")


def matrix_of(X: Any) -> npt.NDArray[Any]:
    """``X`` as a numpy array; its shape is not checked.

    Raises
    ------
    ParameterError
        For a sparse matrix.
    RowsError
        For objects that are not all numbers. The message holds none of them.
    """
    if hasattr(X, "toarray") and hasattr(X, "nnz"):
        raise ParameterError("X is a sparse matrix: give X.toarray(), or a dask array of its rows")
    array = np.asarray(X)
    if array.dtype.kind == "c":
        raise RowsError(
            f"Complex data not supported: X has dtype {array.dtype}; give real and imaginary "
            "parts as columns"
        )
    if array.dtype.kind != "O":
        return array
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        pass  # numpy's message quotes the value
    raise RowsError("X has dtype object and does not hold numbers alone: give X.astype(float)")


def require_width(X: npt.NDArray[Any], width: int, name: str) -> None:
    """Refuse rows that are not (n, width), in the words of scikit-learn."""
    if X.ndim != 2:
        raise RowsError(
            f"Expected 2D array (n, {width}) as X, got an array of shape {X.shape}. Reshape your "
            "data: X.reshape(1, -1) if it is one row, X.reshape(-1, 1) if it is one feature"
        )
    if X.shape[1] != width:
        raise RowsError(
            f"X has {X.shape[1]} features, but {name} is expecting {width} features as input"
        )


def _vector_of(y: Any) -> npt.NDArray[Any]:
    """Labels as an array (n,); a column (n, 1) is read as one."""
    array = np.asarray(y)
    return array.ravel() if array.ndim == 2 and array.shape[1] == 1 else array


def _feature_columns(model: ReadingParameters, X: Any) -> tuple[str, ...]:
    """The columns of a frame that are features."""
    from dpgmm_dist.data.frames import column_names

    if reads_table(model):
        return table_columns(model, X)
    if not isinstance(model.features, str):
        return tuple(model.features)
    names = column_names(X)
    if model.features != _EMBEDDINGS or _EMBEDDINGS in names:
        return (model.features,)
    return tuple(name for name in names if name != model.label or not len(model.labels))
