"""The files of a release as bytes: parameters and transform as Parquet, the rest as JSON.

The same values give the same bytes: the files hold no time, path or extra metadata, and the
Parquet settings are fixed here.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist import json_bytes
from dpgmm_dist.artifact.error_marks import ErrorMarks, columns_of, marks_of, read_marks
from dpgmm_dist.errors import DataError
from dpgmm_dist.model.affine import Transform
from dpgmm_dist.model.covariances import Covariances, SharedCovariances
from dpgmm_dist.model.mixture import LabelValue, Mixture, StandardErrors
from dpgmm_dist.model.tables.column_map import ColumnMap

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]

SCHEMA_VERSION = 2
"""The newest version. A release without axes.parquet has version 1, one with it version 2."""
MIXTURE = "mixture.parquet"
AXES = "axes.parquet"
TRANSFORM = "transform.parquet"
RECEIPT = "receipt.json"
REPORT = "report.html"
MANIFEST = "release.json"
CLAIM = "_claim.json"
REQUIRED = (MIXTURE, TRANSFORM, RECEIPT)
OPTIONAL = (REPORT,)

_FIXED = {
    "compression": "NONE",
    "version": "2.6",
    "data_page_version": "1.0",
    "use_dictionary": False,
    "write_statistics": False,
    "store_schema": False,
    "row_group_size": 1 << 20,
}


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """JSON in canonical form: sorted keys, an indent of two spaces, ASCII, no NaN or infinity."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


def parse_json(name: str, data: bytes) -> dict[str, Any]:
    """The JSON object in a file of a release; DataError if there is none."""
    try:
        value = json_bytes.parse(data)
    except ValueError:
        raise DataError(f"{name} is not valid JSON: the release is not intact") from None
    if not isinstance(value, dict):
        raise DataError(f"{name} does not hold a JSON object: the release is not intact")
    return value


def encode_mixture(
    mixture: Mixture, errors: StandardErrors, plan: Mapping[str, Any] | None = None
) -> bytes:
    """mixture.parquet: one row per component, sorted by (label, component).

    The realised ``plan`` in the receipt says which standard errors are approximate. Where
    covariances share their axes, the column ``block`` takes the place of ``covariance`` and
    ``covariance_se``, and `encode_axes` writes the axes.

    Raises
    ------
    ValueError
        When the shapes of the standard errors are not those of the parameters.
    """
    import pyarrow as pa

    for name, shape in _shapes(mixture).items():
        if getattr(errors, name).shape != shape:
            raise ValueError(
                f"standard errors of {name} must have shape {shape}, "
                f"got {getattr(errors, name).shape}"
            )
    order = np.lexsort((mixture.component_number, mixture.label_index))
    columns = {
        "label": _label_column(mixture, order),
        "component": pa.array(mixture.component_number[order].astype(np.int32)),
        "weight": pa.array(mixture.weights[order]),
        "mean": _lists(mixture.means[order]),
        **_covariance_column(mixture.form, order),
        "weight_se": pa.array(errors.weights[order]),
        "mean_se": _lists(errors.means[order]),
        **_covariance_errors(mixture.form, errors, order),
        **columns_of(marks_of(plan, mixture.n_components).ordered(order.tolist())),
    }
    return _parquet(pa.table(columns))


def encode_axes(form: SharedCovariances) -> bytes:
    """axes.parquet: one row per latent coordinate, with its entry of each axis."""
    import pyarrow as pa

    coordinates = np.arange(form.axes.shape[0], dtype=np.int32)
    return _parquet(pa.table({"coordinate": pa.array(coordinates), "axes": _lists(form.axes)}))


def decode_marks(data: bytes) -> ErrorMarks | None:
    """Which standard errors in mixture.parquet are approximate; None if the file does not say."""
    return read_marks(read_table(MIXTURE, data))


def decode_mixture(data: bytes, axes: bytes | None = None) -> tuple[Mixture, StandardErrors]:
    """Read mixture.parquet, and axes.parquet where there is one.

    Raises
    ------
    DataError
        When they do not hold a valid mixture.
    """
    table = read_table(MIXTURE, data)
    try:
        label_values, labels = _read_labels(table["label"].to_pylist())
        means = _matrix(table["mean"])
        mixture = Mixture(
            weights=_vector(table["weight"]),
            means=means,
            covariances=_covariances(table, means.shape[1], axes),
            labels=labels,
            label_values=label_values,
            component=_vector(table["component"]).astype(np.int64),
        )
        errors = _errors(table, means.shape[1], axes)
        for name, shape in _shapes(mixture).items():
            if getattr(errors, name).shape != shape:
                raise ValueError(f"standard errors of {name} do not have the shape of the {name}")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{MIXTURE} does not hold a valid mixture: {_text(error)}") from None
    return mixture, errors


def encode_transform(transform: Transform) -> bytes:
    """transform.parquet: one row per input column, with its row of the basis (null if none).

    With maps of columns it also has the edges of each column's bins, their scores, and the value
    of each bin that is an atom (NaN for the others; of categories the number of the value). Where
    columns lack values, ``absent_below`` is the score of presence below which there is none, and
    ``absent_offset`` the offset of that coordinate; null for columns that always have one.
    """
    import pyarrow as pa

    width = transform.input_dimension
    latent = transform.latent_dimension if transform.columns else width
    offset = np.zeros(latent) if transform.offset is None else transform.offset
    no_basis = pa.nulls(width, pa.list_(pa.float64()))
    columns = {
        "column": pa.array(np.arange(width, dtype=np.int32)),
        "center": pa.array(transform.center),
        "half_width": pa.array(transform.half_width),
        "offset": pa.array(offset[:width]),
        "basis": no_basis if transform.basis is None else _lists(transform.basis),
        # The same in every row: a table has no other place for a single number.
        "residual_variance": pa.array(np.full(width, transform.residual_variance)),
    }
    if transform.columns:
        maps = transform.columns
        columns |= {
            "edges": _uneven_lists([column.edges for column in maps]),
            "scores": _uneven_lists([column.scores for column in maps]),
            "atoms": _uneven_lists([column.places for column in maps]),
        }
    if transform.lacking:
        of_presence = dict(zip(transform.lacking, offset[width:].tolist(), strict=True))
        columns |= {
            "absent_below": pa.array([c.absent_below for c in transform.columns], pa.float64()),
            "absent_offset": pa.array([of_presence.get(j) for j in range(width)], pa.float64()),
        }
    return _parquet(pa.table(columns))


def decode_transform(data: bytes) -> Transform:
    """Read transform.parquet; DataError if it does not hold a valid transform."""
    table = read_table(TRANSFORM, data)
    try:
        if table["column"].to_pylist() != list(range(table.num_rows)):
            raise ValueError("its column numbers are not 0, 1, 2, ...")
        variances = set(table["residual_variance"].to_pylist())
        if len(variances) != 1:
            raise ValueError("it has more than one residual variance, or none")
        basis = table["basis"]
        return Transform(
            center=_vector(table["center"]),
            half_width=_vector(table["half_width"]),
            basis=None if basis.null_count == table.num_rows else _matrix(basis),
            offset=_offset(table),
            residual_variance=variances.pop(),
            columns=_column_maps(table),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{TRANSFORM} does not hold a valid transform: {_text(error)}") from None


def _column_maps(table: pa.Table) -> tuple[ColumnMap, ...]:
    """The maps of single columns in a transform; () where it has none."""
    if "edges" not in table.column_names:
        return ()
    parts: list[list[Any]] = [_uneven_rows(table[name]) for name in ("edges", "scores", "atoms")]
    lacks = "absent_below" in table.column_names
    parts.append(table["absent_below"].to_pylist() if lacks else [None] * table.num_rows)
    return tuple(ColumnMap(*column) for column in zip(*parts, strict=True))


def _offset(table: pa.Table) -> Floats:
    """The offsets of the columns, and after them those of the presence of some of them."""
    offset = _vector(table["offset"])
    if "absent_offset" not in table.column_names:
        return offset
    of_presence = [value for value in table["absent_offset"].to_pylist() if value is not None]
    return np.concatenate([offset, of_presence])


def read_table(name: str, data: bytes) -> pa.Table:
    """A Parquet file of a release as a table; DataError if it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # pq.read_table imports pyarrow.dataset, which takes longer than reading the file.
        table = pq.ParquetFile(io.BytesIO(data)).read(use_threads=False)
        table.validate(full=True)  # texts that are no UTF-8, offsets that point nowhere
        return table
    except (pa.ArrowException, OSError, ValueError):
        raise DataError(f"{name} is not a readable Parquet file: damaged or incomplete") from None


def _parquet(table: pa.Table) -> bytes:
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(table, sink, **_FIXED)
    return sink.getvalue()


def _label_column(mixture: Mixture, order: NDArray[np.int64]) -> pa.Array:
    import pyarrow as pa

    if not mixture.label_values:
        return pa.nulls(len(order), pa.int64())
    values = [mixture.label_values[i] for i in mixture.label_index[order].tolist()]
    return pa.array(values, pa.string() if isinstance(values[0], str) else pa.int64())


def _read_labels(column: list[LabelValue | None]) -> tuple[tuple[LabelValue, ...], Any]:
    """The label set, in order of first occurrence, and the label index of each row."""
    present = [value for value in column if value is not None]
    if not present:
        return (), np.zeros(len(column), np.int64)
    if len(present) != len(column):
        raise ValueError("some components have a label and others do not")
    values = tuple(dict.fromkeys(present))
    return values, np.array([values.index(value) for value in present], dtype=np.int64)


def _shapes(mixture: Mixture) -> dict[str, tuple[int, ...]]:
    """The shapes that standard errors have."""
    count, p = mixture.means.shape
    return {"weights": (count,), "means": (count, p), "covariances": (count, p, p)}


def _covariance_column(form: Covariances, order: NDArray[np.int64]) -> dict[str, pa.Array]:
    if isinstance(form, SharedCovariances):
        return {"block": _lists(_lower(form.blocks[order]))}
    return {"covariance": _lists(_lower(form.full()[order]))}


def _covariance_errors(
    form: Covariances, errors: StandardErrors, order: NDArray[np.int64]
) -> dict[str, pa.Array]:
    if isinstance(form, SharedCovariances):
        return {}
    return {"covariance_se": _lists(_lower(errors.covariances[order]))}


def _covariances(table: pa.Table, p: int, axes: bytes | None) -> Floats | SharedCovariances:
    if axes is None:
        return _symmetric(_matrix(table["covariance"]), p)
    coordinates = read_table(AXES, axes)
    if coordinates["coordinate"].to_pylist() != list(range(p)):
        raise ValueError(f"the coordinates of {AXES} are not 0 to {p - 1}")
    triangles = _matrix(table["block"])
    # q (q + 1) / 2 numbers are a triangle of q rows.
    q = (math.isqrt(8 * triangles.shape[1] + 1) - 1) // 2
    return SharedCovariances(_matrix(coordinates["axes"]), _symmetric(triangles, q))


def _errors(table: pa.Table, p: int, axes: bytes | None) -> StandardErrors:
    weights, means = _vector(table["weight_se"]), _matrix(table["mean_se"])
    if axes is not None:
        return StandardErrors.without_covariances(weights, means)
    triangles = _matrix(table["covariance_se"])
    if np.isposinf(triangles).all():
        return StandardErrors.without_covariances(weights, means)
    return StandardErrors(weights, means, _symmetric(triangles, p))


def _lists(matrix: NDArray[np.float64]) -> pa.Array:
    """The rows of a matrix (n, k) as a list column."""
    import pyarrow as pa

    rows, width = matrix.shape
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * width)
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(matrix).reshape(-1)))


def _uneven_lists(rows: list[NDArray[np.float64]]) -> pa.Array:
    """Rows of any lengths as a list column."""
    import pyarrow as pa

    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(rows)))


def _uneven_rows(column: pa.ChunkedArray) -> list[NDArray[np.float64]]:
    """The rows of a list column of any lengths."""
    lists = column.combine_chunks()
    if lists.null_count or lists.values.null_count:
        raise ValueError("a value is null")
    offsets, values = lists.offsets.to_numpy(), lists.values.to_numpy()
    return [np.array(values[a:b], dtype=np.float64) for a, b in pairwise(offsets.tolist())]


def _vector(column: pa.ChunkedArray) -> NDArray[np.float64]:
    if column.null_count:
        raise ValueError("a value is null")
    return np.asarray(column.to_numpy(), dtype=np.float64)


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """The rows of a list column as (n, k); ValueError when their lengths differ."""
    import pyarrow as pa

    lists = column.combine_chunks()
    if not pa.types.is_list(lists.type) or not pa.types.is_floating(lists.type.value_type):
        raise ValueError(f"a column is {lists.type}, not a list of floats")
    # With Arrow's buffers: a Python float for each entry would take gigabytes. Without flatten(),
    # which imports pyarrow.compute and so takes longer than all of this.
    offsets = lists.offsets.to_numpy()
    values = lists.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    if lists.null_count or values.null_count:
        raise ValueError("a value is null")
    lengths = np.unique(np.diff(offsets))
    if lengths.size != 1:
        raise ValueError("its lists have different lengths")
    return np.array(values.to_numpy(), dtype=np.float64).reshape(len(lists), int(lengths[0]))


def _lower(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Row-major lower triangles (C, p (p + 1) / 2) of matrices (C, p, p)."""
    rows, columns = np.tril_indices(matrices.shape[1])
    return np.asarray(matrices[:, rows, columns])


def _symmetric(lower: NDArray[np.float64], dimension: int) -> NDArray[np.float64]:
    rows, columns = np.tril_indices(dimension)
    if lower.shape[1] != rows.size:
        raise ValueError(
            f"a lower triangle of {dimension} dimensions has {rows.size} values, "
            f"not {lower.shape[1]}"
        )
    full = np.empty((lower.shape[0], dimension, dimension))
    full[:, rows, columns] = lower
    full[:, columns, rows] = lower
    return full


def _text(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"column {error} is missing"
    return str(error)
