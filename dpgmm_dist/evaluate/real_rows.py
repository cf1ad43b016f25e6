"""Real rows in memory, for measuring a release against them. TRUSTED side: NOT PRIVATE."""

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
    """Valid rows (n, d), float64, in input units, and the index (n,) of each one's label."""

    X: NDArray[np.float64]
    y: NDArray[np.int64]
    """All 0 when the release has no labels."""

    def __len__(self) -> int:
        return len(self.y)

    def some(self, most: int, seed: int) -> LabelledRows:
        """At most so many of the rows, chosen at random, in their order."""
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
    """Rows at a Parquet path in the release's input columns, or given as (X, y).

    Invalid rows and rows of labels that are not the release's are left out, as they were from the
    release; of more than ``most`` a random part is kept.

    Raises
    ------
    SpecError, DataError
        When the rows cannot be read, do not fit the release, or there is none.
    """
    if isinstance(rows, str):
        found = _read(release, rows, most, seed, storage_options or {})
        where = rows
    else:
        found = _checked(release, *rows).some(most, seed)
        where = "the arrays given"
    if not len(found):
        raise DataError(
            f"{where}: no valid row with one of the release's labels; check that these are rows "
            "like those of the release"
        )
    return found


def _read(
    release: Release, url: str, most: int, seed: int, storage_options: Mapping[str, Any]
) -> LabelledRows:
    source = open_dataset(_specification(release, url, storage_options).dataset)
    if source.width != release.transform.input_dimension:
        raise DataError(
            f"{url}: rows have {source.width} features, the release "
            f"{release.transform.input_dimension}"
        )
    rng = np.random.default_rng(seed)
    kept: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
    held = 0
    for X, y in _valid_blocks(source):
        kept.append((rng.random(len(y)), X, y))
        held += len(y)
        if held > 2 * most:
            kept = [_least(kept, most)]
            held = most
    if not kept:
        kept = [(np.empty(0), np.empty((0, source.width)), np.empty(0, np.int64))]
    _, X, y = _least(kept, most)
    return LabelledRows(X, y)


def _specification(release: Release, url: str, storage_options: Mapping[str, Any]) -> ReleaseSpec:
    """The release's own specification, about the rows at another place."""
    document: dict[str, Any] = {**release.receipt["specification"]}
    try:
        document["dataset"] = {
            **document["dataset"],
            "path": url,
            "storage_options": dict(storage_options),
        }
    except (KeyError, TypeError):
        raise DataError("the receipt does not say which columns were read") from None
    return ReleaseSpec.from_dict(document)


def _valid_blocks(source: ParquetSource) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
    for unit in source.plan():
        for block in source.blocks(unit, _BLOCK_ROWS):
            X = block.features.astype(np.float64)
            good = (block.labels >= 0) & np.isfinite(X).all(axis=1)
            if block.valid is not None:
                good &= block.valid
            yield X[good], block.labels[good]


def _least(parts: list[Any], most: int) -> Any:
    """The rows of the least random keys, in the order in which they were read."""
    key, X, y = (np.concatenate([part[i] for part in parts]) for i in range(3))
    if len(key) <= most:
        return key, X, y
    chosen = np.sort(np.argpartition(key, most)[:most])
    return key[chosen], X[chosen], y[chosen]


def _checked(release: Release, X: ArrayLike, y: ArrayLike | None) -> LabelledRows:
    rows = np.asarray(X, dtype=np.float64)
    width = release.transform.input_dimension
    if rows.ndim != 2 or rows.shape[1] != width:
        raise SpecError(f"rows must have shape (n, {width}) as the release's, got {rows.shape}")
    if not release.label_values:
        labels = np.zeros(len(rows), np.int64)
    elif y is None:
        raise SpecError("the release has labels: give rows as (X, y)")
    else:
        given = np.asarray(y)
        if given.shape != rows.shape[:1]:
            raise SpecError(f"y must have shape {rows.shape[:1]}, got {given.shape}")
        position = {value: i for i, value in enumerate(release.label_values)}
        labels = np.array([position.get(value, -1) for value in given.tolist()], dtype=np.int64)
    good = np.isfinite(rows).all(axis=1) & (labels >= 0)
    return LabelledRows(rows[good], labels[good])
