"""Shared by the tests of sources: specifications, and rows as multisets that can be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dpgmm_dist.data.source import ParquetSource, RawBlock, Source
from dpgmm_dist.pipeline.resolve import open_dataset
from dpgmm_dist.spec.release_spec import ReleaseSpec


def spec(path: object, features: object = "x", **dataset: Any) -> ReleaseSpec:
    bounds: dict[str, Any] = {"norm": 1.0}
    if not isinstance(features, str):
        bounds = {"columns": {name: [0, 1] for name in features}}  # type: ignore[attr-defined]
    return ReleaseSpec.from_dict(
        {
            "dataset": {"path": str(path), "features": features, **dataset},
            "bounds": bounds,
            "privacy": {"epsilon": 1.0, "delta": 1e-6},
        }
    )


def open_source(path: object, features: object = "x", **dataset: Any) -> ParquetSource:
    return open_dataset(spec(path, features, **dataset).dataset)


def read(source: Source, max_rows: int = 1000, target_bytes: int = 1 << 27) -> list[RawBlock]:
    blocks = []
    for unit in source.plan(target_bytes):
        for block in source.blocks(unit, max_rows):
            check_block(block, source, max_rows)
            blocks.append(block)
    return blocks


def check_block(block: RawBlock, source: Source, max_rows: int) -> None:
    assert 1 <= block.rows <= max_rows
    assert block.features.shape == (block.rows, source.width)
    assert block.features.flags.c_contiguous
    assert block.features.dtype in (np.uint8, np.float32, np.float64)
    assert block.labels.shape == (block.rows,)
    assert block.labels.dtype == np.int64
    assert block.labels.min() >= -1
    assert block.labels.max() < max(len(source.labels), 1)
    if block.valid is not None:
        assert block.valid.shape == (block.rows,)
        assert block.valid.dtype == np.bool_


def rows(blocks: Iterable[RawBlock]) -> Counter[tuple[bytes | None, int]]:
    """The multiset of (bits as float64, or None where invalid; label index)."""
    counts: Counter[tuple[bytes | None, int]] = Counter()
    for block in blocks:
        values = block.features.astype(np.float64)
        valid = np.ones(block.rows, dtype=bool) if block.valid is None else block.valid
        counts.update(
            (row.tobytes() if ok else None, int(label))
            for row, ok, label in zip(values, valid, block.labels, strict=True)
        )
    return counts


def expected(
    values: Iterable[Sequence[float | None] | None],
    codes: Iterable[int],
    width: int,
    dtype: type = np.float64,
) -> Counter[tuple[bytes | None, int]]:
    """The same multiset, made of plain Python rows."""
    counts: Counter[tuple[bytes | None, int]] = Counter()
    for row, code in zip(values, codes, strict=True):
        good = row is not None and len(row) == width and None not in row
        counts[(np.array(row, dtype).astype(np.float64).tobytes() if good else None, code)] += 1
    return counts


def write(path: Path, **columns: Any) -> Path:
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path
