"""Build spamassassin_texts: the mails of spamassassin_minilm384 as texts, without an encoder.

python jobs/data/make_spamassassin_texts.py OUT WORK
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from dataset_files import publish
from spamassassin_mails import TRAIN_ROWS, is_spam, read_mails

NAME = "spamassassin_texts"


def build(folder: Path, work: Path) -> None:
    """Write both splits: text, and label 0 (ham) or 1 (spam)."""
    texts, group = read_mails(work)
    table = pa.table({"text": texts, "label": is_spam(group)})
    pq.write_table(table.slice(0, TRAIN_ROWS), folder / "train.parquet")
    pq.write_table(table.slice(TRAIN_ROWS), folder / "test.parquet")


if __name__ == "__main__":
    publish(Path(sys.argv[1]), NAME, lambda folder: build(folder, Path(sys.argv[2])))
