"""Build fashion_mnist_raw from a Debian package: 28x28 images as 784 uint8 pixels, and labels.

python jobs/data/make_fashion_mnist_raw.py OUT WORK
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
from dataset_files import check_table, publish, write_table
from packages import debian_package

NAME = "fashion_mnist_raw"
DEBIAN_PACKAGE = "dataset-fashion-mnist"
UNSIGNED_BYTES = 8  # code of the type in an IDX header
FILES = {"train": ("train", 60_000), "test": ("t10k", 10_000)}


def read_idx(path: Path) -> np.ndarray:
    """Return the array in a gzipped IDX file of unsigned bytes."""
    data = gzip.decompress(path.read_bytes())
    zero, kind, dimensions = int.from_bytes(data[:2], "big"), data[2], data[3]
    if zero != 0 or kind != UNSIGNED_BYTES:
        raise SystemExit(f"{path.name} is not an IDX file of unsigned bytes")
    shape = np.frombuffer(data, dtype=">u4", count=dimensions, offset=4)
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def build(folder: Path, work: Path) -> None:
    """Write and check both splits."""
    package, version = debian_package(DEBIAN_PACKAGE, work)
    source = package / "usr" / "share" / "datasets" / "fashion-mnist"
    metadata = {
        "source": f"Debian {DEBIAN_PACKAGE} {version}",
        "licence": "MIT (Expat), Zalando SE",
    }
    for split, (prefix, rows) in FILES.items():
        images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")
        path = folder / f"{split}.parquet"
        columns = {"label": labels.astype(np.int16), "pixels": images.reshape(len(images), -1)}
        write_table(path, columns, metadata)
        check_table(path, column="pixels", rows=rows, width=784, labels=10)


if __name__ == "__main__":
    publish(Path(sys.argv[1]), NAME, lambda folder: build(folder, Path(sys.argv[2])))
