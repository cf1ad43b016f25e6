"""jobs/texts.sh from texts to classifiers, with an encoder that has no weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
JOB = ROOT / "jobs" / "texts.sh"
TOPICS = {
    "card": "card arrive delivery lost envelope",
    "cash": "cash machine withdraw fee note",
    "loan": "loan rate month repay house",
}
ENCODER = '''
import hashlib

import numpy as np


def encode(texts):
    """Signed counts of words in 16 hashed bins."""
    out = np.zeros((len(texts), 16))
    for row, text in zip(out, texts):
        for word in text.split():
            code = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
            row[code % 16] += 1 - 2 * (code >> 63)
    return out
'''


def write_texts(path: Path, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = list(TOPICS)
    label = [names[i] for i in rng.integers(0, 3, rows)]
    texts = [" ".join(rng.choice(TOPICS[name].split(), 6)) for name in label]
    pq.write_table(pa.table({"question": texts, "topic": label}), path)


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_the_job_from_texts_to_texts(tmp_path: Path) -> None:
    write_texts(tmp_path / "train.parquet", 3000, 0)
    write_texts(tmp_path / "test.parquet", 200, 1)
    (tmp_path / "hashed.py").write_text(ENCODER)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{tmp_path}",
        "ENCODER": "hashed:encode",
        "COLUMNS": "--text question --label topic",
        "ROWS": "600",
        "REPEAT": "3",
        "OUT": str(tmp_path / "out"),
    }
    done = subprocess.run(
        ["bash", str(JOB), str(tmp_path), "3"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    parts = sorted((tmp_path / "out" / "texts").glob("part-*.parquet"))
    table = pa.concat_tables([pq.read_table(part) for part in parts])
    public = pq.read_table(tmp_path / "out" / "raw" / "public.parquet")
    numbers = np.array(table["public_row"].to_pylist())
    assert np.bincount(numbers).max() <= 3
    assert table["text"].to_pylist() == public["text"].take(pa.array(numbers)).to_pylist()
    right = np.array(table["label"].to_pylist()) == np.array(public["label"].to_pylist())[numbers]
    assert right.mean() > 0.9
    networks = [line for line in done.stdout.splitlines() if "two-layer network" in line]
    assert len(networks) == 2 and all(float(line.split()[2]) > 90 for line in networks)
    assert "share of 1,500 public items used" in done.stdout
