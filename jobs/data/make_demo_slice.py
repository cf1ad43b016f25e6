"""Cut the slice of fashion_scatter128 that is bundled in jobs/demo_data.

    python jobs/data/make_demo_slice.py build/data/fashion_scatter128 \
        jobs/demo_data/fashion_scatter128

The slice depends on row numbers only, and not on the contents of rows. It has the first rows of
each split in the order of SHA-256("<split>:<row number>"), which is the same for all versions of
the libraries. The script needs only numpy and pyarrow.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TRAIN_ROWS, TRAIN_PARTS = 30_000, 4
TEST_ROWS, TEST_PARTS = 4_000, 1
ROW_GROUP_ROWS = 2_500  # several row groups in each file, so that every worker has tasks
METADATA = {
    "source": "Fashion-MNIST, Copyright (c) 2017 Zalando SE",
    "licence": "MIT",
    "encoder": "kymatio wavelet scattering J=2, PCA basis of MNIST digits (public), unit L2 norm",
}


def public_order(split: str, rows: int) -> np.ndarray:
    """Return a permutation of ``range(rows)``, as int64, that does not depend on the data."""
    return np.array(
        sorted(range(rows), key=lambda row: hashlib.sha256(f"{split}:{row}".encode()).digest()),
        dtype=np.int64,
    )


def read_split(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the embeddings, float32 (rows, width), and the labels, int16 (rows,), of one file."""
    table = pq.read_table(path, columns=["embedding", "label"])
    width = table.schema.field("embedding").type.list_size
    embedding = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return embedding.reshape(-1, width), table["label"].to_numpy().astype(np.int16)


def as_table(embedding: np.ndarray, label: np.ndarray) -> pa.Table:
    """Return a table of float16 FixedSizeList ``embedding`` and int16 ``label``."""
    element = pa.field("element", pa.float16())
    halves = pa.array(embedding.astype(np.float16).ravel())
    lists = pa.FixedSizeListArray.from_arrays(halves, type=pa.list_(element, embedding.shape[1]))
    table = pa.table({"embedding": lists, "label": pa.array(label)})
    return table.replace_schema_metadata(METADATA)


def write_split(source: Path, target: Path, split: str, rows: int, parts: int) -> int:
    """Write the first ``rows`` rows in public order as ``parts`` files; return their bytes."""
    embedding, label = read_split(source / f"{split}.parquet")
    if rows > len(label):
        raise SystemExit(f"{split} has {len(label)} rows, which is fewer than {rows}")
    chosen = public_order(split, len(label))[:rows]
    folder = target / split
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for part, indices in enumerate(np.array_split(chosen, parts)):
        path = folder / f"part-{part:04d}.parquet"
        pq.write_table(
            as_table(embedding[indices], label[indices]),
            path,
            row_group_size=ROW_GROUP_ROWS,
            compression="zstd",
            compression_level=6,
            use_dictionary=["label"],
            # The high bytes of the halves repeat; split from the low ones they compress better.
            column_encoding={"embedding.list.element": "BYTE_STREAM_SPLIT"},
        )
        written += path.stat().st_size
    return written


def main() -> None:
    """Write both splits and print their sizes."""
    parser = argparse.ArgumentParser(description="Cut the bundled slice of fashion_scatter128.")
    parser.add_argument("source", type=Path, help="folder with train.parquet and test.parquet")
    parser.add_argument("target", type=Path, help="folder to write train/ and test/ into")
    parser.add_argument("--train-rows", type=int, default=TRAIN_ROWS)
    parser.add_argument("--test-rows", type=int, default=TEST_ROWS)
    options = parser.parse_args()
    for split, rows, parts in (
        ("train", options.train_rows, TRAIN_PARTS),
        ("test", options.test_rows, TEST_PARTS),
    ):
        size = write_split(options.source, options.target, split, rows, parts)
        print(f"{split}: {rows:,} rows, {size:,} bytes in {parts} file(s)")


if __name__ == "__main__":
    main()
