"""Train on sampled rows, test on real rows; beside it, the same network trained on real rows.

The accuracy on real rows is the trusted side's knowledge: NOT PRIVATE. The test split had no part
in the release or in choosing any option.
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
    """Embeddings (n, d) float32 and labels (n,) of all Parquet files of a directory."""
    table = pq.read_table(path)
    column = table["embedding"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1).astype(np.float32), table["label"].to_numpy()


def main(samples: str) -> None:
    """Print the three accuracies."""
    test_x, test_y = rows(DATA / "test")
    real_x, real_y = rows(DATA / "train")
    made_x, made_y = rows(Path(samples))
    majority = majority_accuracy(made_y, test_y)
    made = classifier_accuracy(made_x, made_y, test_x, test_y, epochs=EPOCHS)
    real = classifier_accuracy(real_x, real_y, test_x, test_y, epochs=EPOCHS)
    print(f"accuracy on {len(test_y):,} real test rows (NOT PRIVATE: the trusted side's)")
    print(f"  majority class                       {100 * majority:5.1f} %")
    print(f"  trained on {len(made_y):,} sampled rows        {100 * made:5.1f} %")
    print(f"  trained on {len(real_y):,} real rows           {100 * real:5.1f} %")


if __name__ == "__main__":
    main(sys.argv[1])
