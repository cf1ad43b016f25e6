"""Train classifiers only on synthetic pictures, and print their accuracy on real ones in percent.

    python jobs/image_classifier.py SYNTHETIC REAL [EPOCHS]

SYNTHETIC is a folder that `dpgmm decode` wrote (columns image and label). REAL is a Parquet file or
a folder of them with the columns pixels and label; these pictures are only tested on. The accuracy
is NOT PRIVATE: it is for the trusted side.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from dpgmm_dist.evaluate.classify import classifier_accuracy, predicted_labels


def pictures(path: Path, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, d) float32 in [0, 1] and labels (n,)."""
    files = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
    table = pa.concat_tables([pq.read_table(file, columns=[column, "label"]) for file in files])
    values = table[column].combine_chunks()
    flat = values.flatten().to_numpy(zero_copy_only=False)
    pixels = flat.reshape(len(values), -1).astype(np.float32) / 255
    return pixels, table["label"].to_numpy()


def main(synthetic: str, real: str, epochs: int = 5) -> None:
    """Print the accuracy of the network and of two linear classifiers."""
    train_x, train_y = pictures(Path(synthetic), "image")
    test_x, test_y = pictures(Path(real), "pixels")
    print(f"accuracy on {len(test_y):,} real pictures, trained on {len(train_y):,} synthetic ones")
    print("(NOT PRIVATE, for the trusted side)")
    with threadpool_limits(1):
        network = classifier_accuracy(train_x, train_y, test_x, test_y, epochs=epochs)
        print(f"  two-layer network     {100 * network:5.1f} %", flush=True)
        for kind, name in (("logistic", "logistic regression"), ("lda", "LDA")):
            predicted = predicted_labels(kind, train_x, train_y, test_x)
            print(f"  {name:20}  {100 * np.mean(predicted == test_y):5.1f} %", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:4]))
