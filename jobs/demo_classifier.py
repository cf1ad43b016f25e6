"""Train a network on sampled rows and test it on real rows; compare with training on real rows.

    python jobs/demo_classifier.py SAMPLES

Accuracy on real rows is NOT PRIVATE: it is for the trusted side. The test split was not used for
the release, nor to choose any option.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from dpgmm_dist.evaluate.classify import classifier_accuracy, majority_accuracy

DATA = Path(__file__).parent / "demo_data" / "fashion_scatter128"
EPOCHS = 12


def rows(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, d), float32, and labels (n,) of all Parquet files in a directory."""
    table = pq.read_table(path)
    column = table["embedding"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1).astype(np.float32), table["label"].to_numpy()


def main(samples: str) -> None:
    """Print the three accuracies."""
    test_x, test_y = rows(DATA / "test")
    real_x, real_y = rows(DATA / "train")
    sampled_x, sampled_y = rows(Path(samples))
    majority = majority_accuracy(sampled_y, test_y)
    sampled = classifier_accuracy(sampled_x, sampled_y, test_x, test_y, epochs=EPOCHS)
    real = classifier_accuracy(real_x, real_y, test_x, test_y, epochs=EPOCHS)
    print(f"accuracy on {len(test_y):,} real test rows (NOT PRIVATE, for the trusted side)")
    print(f"  majority class                       {100 * majority:5.1f} %")
    print(f"  trained on {len(sampled_y):,} sampled rows        {100 * sampled:5.1f} %")
    print(f"  trained on {len(real_y):,} real rows           {100 * real:5.1f} %")


if __name__ == "__main__":
    main(sys.argv[1])
