"""Train classifiers only on synthetic pictures, and print their accuracy on real ones in percent.

    python jobs/image_classifier.py SYNTHETIC REAL [EPOCHS [SHAPE]]

SYNTHETIC is a folder that `dpgmm decode` wrote (columns image and label). REAL is a Parquet file or
a folder of them with the columns label and pixels (uint8), or picture (these, or files of pictures,
scaled to SHAPE, HxW or HxWxC). These pictures are only tested on. The accuracy is NOT PRIVATE: it
is for the trusted side.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from dpgmm_dist.encode.protocol import parse_shape
from dpgmm_dist.encode.raw_rows import raw_batch
from dpgmm_dist.evaluate.classify import classifier_accuracy, predicted_labels


def pictures(path: Path, shape: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, d) float32 in [0, 1] and labels (n,)."""
    files = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
    names = pq.read_schema(files[0]).names
    column = next(name for name in ("image", "pixels", "picture") if name in names)
    table = pa.concat_tables([pq.read_table(file, columns=[column, "label"]) for file in files])
    values = table[column].combine_chunks()
    if not pa.types.is_fixed_size_list(values.type):
        rows, _ = raw_batch(values, parse_shape(shape))
        return np.asarray(rows).reshape(len(rows), -1) / np.float32(255), table["label"].to_numpy()
    flat = values.flatten().to_numpy(zero_copy_only=False)
    pixels = flat.reshape(len(values), -1).astype(np.float32) / 255
    return pixels, table["label"].to_numpy()


def main(synthetic: str, real: str, epochs: str = "5", shape: str | None = None) -> None:
    """Print the accuracy of the network and of two linear classifiers."""
    train_x, train_y = pictures(Path(synthetic), shape)
    test_x, test_y = pictures(Path(real), shape)
    print(f"accuracy on {len(test_y):,} real pictures, trained on {len(train_y):,} synthetic ones")
    print("(NOT PRIVATE, for the trusted side)")
    with threadpool_limits(1):
        network = classifier_accuracy(train_x, train_y, test_x, test_y, epochs=int(epochs))
        print(f"  two-layer network     {100 * network:5.1f} %", flush=True)
        for kind, name in (("logistic", "logistic regression"), ("lda", "LDA")):
            predicted = predicted_labels(kind, train_x, train_y, test_x)
            print(f"  {name:20}  {100 * np.mean(predicted == test_y):5.1f} %", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:5])
