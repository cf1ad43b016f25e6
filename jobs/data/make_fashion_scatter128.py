"""Build fashion_scatter128: wavelet scattering of Fashion-MNIST in a public basis of 128.

The basis and the centre come from the scattering of MNIST digits, so the map does not depend on the
images of a release.

    python jobs/data/make_fashion_scatter128.py OUT WORK
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from dataset_files import check_table, publish, read_fashion_images, unit_rows, write_table
from kymatio.numpy import Scattering2D
from mnist_digits import read_digits
from scipy.linalg import eigh

NAME = "fashion_scatter128"
WIDTH = 128
GROUPS = 27  # of 3 channels each: 1 + 16 + 64 channels at J=2 with 8 angles
VARIANCE_FLOOR = 1e-5
BLOCK_ROWS = 500
METADATA = {
    "encoder": "kymatio scattering J=2 GroupNorm27 -> PCA fitted on 10k MNIST digits (public)",
    "d": str(WIDTH),
    "public_projection": "yes",
    "norm": "L2",
}


def scattering_features(images: np.ndarray) -> np.ndarray:
    """Return group-normalised coefficients, float64 (rows, 3969), of images in [0, 1]."""
    transform = Scattering2D(J=2, shape=(28, 28))
    features = transform(images.astype(np.float32)).astype(np.float64)
    groups = features.reshape(len(images), GROUPS, -1)
    centred = groups - groups.mean(axis=2, keepdims=True)
    normal = centred / np.sqrt(groups.var(axis=2, keepdims=True) + VARIANCE_FLOOR)
    return normal.reshape(len(images), -1)


def in_blocks(images: np.ndarray) -> list[np.ndarray]:
    """Return blocks of at most ``BLOCK_ROWS`` images."""
    return [images[start : start + BLOCK_ROWS] for start in range(0, len(images), BLOCK_ROWS)]


def principal_axes(features: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (d,) and the first principal axes (d, width), with fixed signs."""
    mean = features.mean(axis=0)
    centred = features - mean
    d = features.shape[1]
    axes = eigh(centred.T @ centred / len(features), subset_by_index=(d - width, d - 1))[1][:, ::-1]
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(width)]
    return mean, axes * np.sign(largest)


def build(folder: Path, out: Path, work: Path) -> None:
    """Fit the basis on the digits, then write and check both splits."""
    digits = np.concatenate([scattering_features(block) for block in in_blocks(read_digits(work))])
    mean, axes = principal_axes(digits, WIDTH)
    for split, rows in (("train", 60_000), ("test", 10_000)):
        images, label = read_fashion_images(out, split)
        blocks = [(scattering_features(b / 255) - mean) @ axes for b in in_blocks(images)]
        path = folder / f"{split}.parquet"
        write_table(
            path, {"label": label, "embedding": unit_rows(np.concatenate(blocks))}, METADATA
        )
        check_table(path, column="embedding", rows=rows, width=WIDTH, labels=10, unit_norm=True)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    publish(target, NAME, lambda folder: build(folder, target, Path(sys.argv[2])))
