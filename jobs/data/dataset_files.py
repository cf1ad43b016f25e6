"""Write, check and publish a data set: a folder of Parquet files that appears when complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP_ROWS = 8_192
UNIT_NORM_SLACK = 1e-5  # float32 rounding of a unit vector


def list_column(values: np.ndarray) -> pa.FixedSizeListArray:
    """Return a (rows, width) array as a fixed-size-list column of the same element type."""
    kind = pa.list_(pa.field("element", pa.from_numpy_dtype(values.dtype)), values.shape[1])
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=kind)


def write_table(
    path: Path,
    columns: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    *,
    row_group_rows: int = ROW_GROUP_ROWS,
) -> None:
    """Write arrays as one Parquet file; a two-dimensional array becomes a list column."""
    arrays = {
        name: list_column(values) if values.ndim > 1 else pa.array(values)
        for name, values in columns.items()
    }
    table = pa.table(arrays).replace_schema_metadata(dict(metadata))
    pq.write_table(table, path, compression="zstd", row_group_size=row_group_rows)


def read_lists(path: Path, column: str) -> np.ndarray:
    """Return a fixed-size-list column as a (rows, width) array."""
    values = pq.read_table(path, columns=[column])[column].combine_chunks()
    return values.flatten().to_numpy(zero_copy_only=False).reshape(-1, values.type.list_size)


def read_fashion_images(out: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images of fashion_mnist_raw, uint8 (rows, 28, 28), and labels, int16 (rows,)."""
    path = out / "fashion_mnist_raw" / f"{split}.parquet"
    if not path.exists():
        raise SystemExit("this set is made from fashion_mnist_raw, which is not built: build it")
    label = pq.read_table(path, columns=["label"])["label"].to_numpy()
    return read_lists(path, "pixels").reshape(-1, 28, 28), label


def unit_rows(values: np.ndarray) -> np.ndarray:
    """Return the rows of ``values`` scaled to L2 norm 1, as float32."""
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and norms.min() > 0):
        raise SystemExit("a row is zero or not finite, so it has no direction")
    return (values / norms).astype(np.float32)


def check_table(
    path: Path,
    *,
    column: str,
    rows: int,
    width: int,
    labels: int,
    unit_norm: bool = False,
    cube: bool = False,
) -> None:
    """Check one file, and stop the build if it is not as expected.

    Parameters
    ----------
    path
        The file.
    column
        Name of its list column.
    rows, width
        Expected shape of the list column.
    labels
        Number of labels: each of 0 .. labels - 1 must occur.
    unit_norm
        Whether rows must have L2 norm 1.
    cube
        Whether entries must be in [-1, 1].
    """
    values = read_lists(path, column)
    label = pq.read_table(path, columns=["label"])["label"].to_numpy()
    problems = []
    if values.shape != (rows, width):
        problems.append(f"shape {values.shape}, expected {(rows, width)}")
    if np.unique(label).tolist() != list(range(labels)):
        problems.append(f"labels {np.unique(label).tolist()}, expected 0 to {labels - 1}")
    if not np.isfinite(values).all():
        problems.append("some entries are not finite")
    norms = np.linalg.norm(values.astype(np.float64), axis=1)
    if unit_norm and not np.abs(norms - 1).max() <= UNIT_NORM_SLACK:
        problems.append(f"norms from {norms.min()} to {norms.max()}, expected 1")
    if cube and not np.abs(values).max() <= 1:
        problems.append(f"entries from {values.min()} to {values.max()}, expected [-1, 1]")
    if problems:
        raise SystemExit(f"{path.name} is not as expected: " + "; ".join(problems))
    print(f"   {path.name}: {rows:,} rows of {width}, {path.stat().st_size:,} bytes, checked")


def publish(out: Path, name: str, build: Callable[[Path], None]) -> None:
    """Let ``build`` write and check a set in a scratch folder; then move it to ``out/name``."""
    scratch = out / f".{name}.partial"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    build(scratch)
    os.replace(scratch, out / name)
