"""jobs/cifar10.sh from pictures to classifiers, on pictures that are made here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
JOB = ROOT / "jobs" / "cifar10.sh"
KINDS = ("columns", "corner", "rows")


def make_pictures(folder: Path, split: str, count: int, seed: int) -> None:
    """PNG files of three kinds that any classifier tells apart, 8x8 in colour."""
    rng = np.random.default_rng(seed)
    for kind in KINDS:
        (folder / split / kind).mkdir(parents=True)
        for number in range(count):
            pixels = rng.normal(90, 12, (8, 8, 3))
            bright = {"columns": np.s_[:, ::2], "corner": np.s_[:5, :5], "rows": np.s_[::2]}[kind]
            pixels[bright] += 120
            image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            image.save(folder / split / kind / f"{number:04d}.png")


def run(command: list[str], **environment: str) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_pictures_of_cifar_10s_binary_version_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"):
        rows = rng.integers(0, 256, (10, 3073), dtype=np.uint8)
        rows[:, 0] = np.arange(10)
        (tmp_path / name).write_bytes(rows.tobytes())
    script = str(ROOT / "jobs" / "data" / "pictures_to_parquet.py")
    shown = run([sys.executable, script, str(tmp_path), str(tmp_path / "out"), "--public", "0.2"])
    assert "public: 4 pictures" in shown and "private: 16 pictures" in shown
    table = pq.read_table(tmp_path / "out" / "test.parquet")
    assert table["label"].to_pylist() == list(range(10))
    import io

    picture = np.asarray(Image.open(io.BytesIO(table["picture"][9].as_py())))
    expected = rows[9, 1:].reshape(3, 32, 32).transpose(1, 2, 0)
    assert (picture == expected).all()


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_the_job_from_pictures_to_classifiers(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", "train", 400, 0)
    make_pictures(tmp_path / "pictures", "test", 60, 1)
    shown = run(
        ["bash", str(JOB), str(tmp_path / "pictures"), "3"],
        ENCODER="pixels",
        OPTIONS="--shape 8x8x3",
        SHAPE="8x8x3",
        ROWS="600",
        OUT=str(tmp_path / "out"),
    )
    networks = [line for line in shown.splitlines() if "two-layer network" in line]
    # Of embeddings, of the nearest public pictures, and of pictures from a learned decoder.
    accuracies = [float(line.replace("%", " ").split()[2]) for line in networks]
    assert len(accuracies) == 3 and min(accuracies) > 90, shown
    assert "DP logistic regression" in shown and "public items used" in shown
    for how in ("nearest-3", "fit-3"):
        assert (tmp_path / "out" / how / "contact-2.png").exists()
    assert (tmp_path / "out" / "evaluation-3" / "pictures.png").exists()
