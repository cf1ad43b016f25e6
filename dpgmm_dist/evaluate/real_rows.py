"""Real rows in memory, which a release is measured against. TRUSTED side: NOT PRIVATE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpgmm_dist.artifact.load import Release
from dpgmm_dist.data.source import ParquetSource
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.opaque import Opaque
from dpgmm_dist.pipeline.resolve import open_dataset
from dpgmm_dist.spec.release_spec import ReleaseSpec

Rows = tuple[ArrayLike, ArrayLike | None]
_BLOCK_ROWS = 4096


@dataclass(frozen=True, eq=False, repr=False)
class LabelledRows(Opaque):
    """Valid rows (n, d) in input units, and the index (n,) of the label of each."""

    X: NDArray[np.float64]
    y: NDArray[np.int64]
    """All 0 if the release has no labels."""

    def __len__(self) -> int:
        return len(self.y)

    def subset(self, most: int, seed: int) -> LabelledRows:
        """A random subset of at most ``most`` rows, in the same order."""
        if len(self) <= most:
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self), most, replace=False))
        return LabelledRows(self.X[chosen], self.y[chosen])


def rows_of(
    release: Release,
    rows: str | Rows,
    most: int,
    seed: int,
    storage_options: Mapping[str, Any] | None = None,
) -> LabelledRows:
    """The valid rows at a Parquet path, or in arrays (X, y).

    Invalid rows and rows whose label the release does not have are left out, as they were from the
    release; so are rows that lack a value, real or sampled. If there are more than ``most`` rows, a
    random subset is kept.

    Parameters
    ----------
    release
        The release that the rows are compared with.
    rows
        The path of Parquet files with the input columns of the release, or X (n, d) and y (n,).
    most
        The most rows to keep.
    seed
        Seed of the random subset.
    storage_options
        Storage options of the path.

    Raises
    ------
    SpecError
        When arrays do not fit the release.
    DataError
        When files cannot be read or do not fit the release, or there is no valid row.
    """
    if isinstance(rows, str):
        valid = _read(release, rows, most, seed, storage_options or {})
        place = rows
    else:
        valid = _checked(release, *rows).subset(most, seed)
        place = "the arrays"
    if not len(valid):
        raise DataError(
            f"{place}: no valid row has a label of the release; check that the rows have the same "
            "columns and labels as those of the release"
        )
    return valid


def _read(
    release: Release, url: str, most: int, seed: int, storage_options: Mapping[str, Any]
) -> LabelledRows:
    source = open_dataset(_specification(release, url, storage_options).dataset)
    if source.width != release.transform.input_dimension:
        raise DataError(
            f"{url}: rows have {source.width} features, but the release has "
            f"{release.transform.input_dimension}"
        )
    # Each row gets a random key. Those with the smallest keys are a random subset, and few more
    # than those are in memory at any time.
    rng = np.random.default_rng(seed)
    parts: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
    count = 0
    for X, y in _valid_blocks(source):
        parts.append((rng.random(len(y)), X, y))
        count += len(y)
        if count > 2 * most:
            parts = [_smallest_keys(parts, most)]
            count = most
    if not parts:
        parts = [(np.empty(0), np.empty((0, source.width)), np.empty(0, np.int64))]
    _, X, y = _smallest_keys(parts, most)
    return LabelledRows(X, y)


def _specification(release: Release, url: str, storage_options: Mapping[str, Any]) -> ReleaseSpec:
    """The specification of the release, with another path for the rows."""
    document: dict[str, Any] = {**release.receipt["specification"]}
    try:
        document["dataset"] = {
            **document["dataset"],
            "path": url,
            "storage_options": dict(storage_options),
        }
    except (KeyError, TypeError):
        raise DataError("the receipt does not state the columns of the input") from None
    return ReleaseSpec.from_dict(document)


def _valid_blocks(source: ParquetSource) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
    for unit in source.plan():
        for block in source.blocks(unit, _BLOCK_ROWS):
            X = block.features.astype(np.float64)
            valid = (block.labels >= 0) & np.isfinite(X).all(axis=1)
            if block.valid is not None:
                valid &= block.valid
            yield X[valid], block.labels[valid]


def _smallest_keys(parts: list[Any], most: int) -> Any:
    """The at most ``most`` rows with the smallest keys, in the order in which they were read."""
    key, X, y = (np.concatenate([part[i] for part in parts]) for i in range(3))
    if len(key) <= most:
        return key, X, y
    chosen = np.sort(np.argpartition(key, most)[:most])
    return key[chosen], X[chosen], y[chosen]


def _checked(release: Release, X: ArrayLike, y: ArrayLike | None) -> LabelledRows:
    rows = np.asarray(X, dtype=np.float64)
    width = release.transform.input_dimension
    if rows.ndim != 2 or rows.shape[1] != width:
        raise SpecError(f"rows must have shape (n, {width}), as in the release, got {rows.shape}")
    if not release.label_values:
        labels = np.zeros(len(rows), np.int64)
    elif y is None:
        raise SpecError("the release has labels: give rows as (X, y)")
    else:
        values = np.asarray(y)
        if values.shape != rows.shape[:1]:
            raise SpecError(f"y must have shape {rows.shape[:1]}, got {values.shape}")
        position = {value: i for i, value in enumerate(release.label_values)}
        labels = np.array([position.get(value, -1) for value in values.tolist()], dtype=np.int64)
    valid = np.isfinite(rows).all(axis=1) & (labels >= 0)
    return LabelledRows(rows[valid], labels[valid])
