"""Pictures that you have, as Parquet: a private part, a public part and a test part.

    python jobs/data/pictures_to_parquet.py PICTURES OUT [--public 0.1]

PICTURES is one of

* a folder with ``train/CLASS/*.png`` and ``test/CLASS/*.png`` (or .jpg, .jpeg, .bmp, .webp);
* the binary version of CIFAR-10: ``data_batch_1.bin`` to ``data_batch_5.bin`` and
  ``test_batch.bin``, with the names of the classes in ``batches.meta.txt``;
* a folder with ``train.parquet`` and ``test.parquet``: a column ``pixels`` of uint8, and ``label``.

OUT gets ``private.parquet``, ``public.parquet`` and ``test.parquet`` with the columns ``picture``
(PNG, or lists of pixels where the input has these) and ``label`` (from 0), and ``classes.txt``. The
public part is chosen by a fixed seed. Declare only such pictures public that are.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SPLIT_SEED = 0
SIDE = 32
ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
GROUP_ROWS = 4096


def read(folder: Path) -> tuple[dict[str, pa.Table], list[str]]:
    """The tables "train" and "test" with picture and label, and the names of the classes."""
    if (folder / "test_batch.bin").exists():
        return _cifar(folder)
    if (folder / "train.parquet").exists():
        return _pixels(folder)
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        return _files(folder)
    raise SystemExit(
        f"{folder} has neither train/CLASS/*.png and test/CLASS/*.png, nor test_batch.bin of "
        "CIFAR-10's binary version, nor train.parquet: give a folder that has one of these"
    )


def _cifar(folder: Path) -> tuple[dict[str, pa.Table], list[str]]:
    names = folder / "batches.meta.txt"
    classes = names.read_text().split() if names.exists() else [str(i) for i in range(10)]
    tables = {}
    for split, pattern in (("train", "data_batch_*.bin"), ("test", "test_batch.bin")):
        files = sorted(folder.glob(pattern))
        rows = np.concatenate([np.fromfile(file, np.uint8) for file in files])
        rows = rows.reshape(-1, 1 + 3 * SIDE * SIDE)
        pictures = rows[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
        tables[split] = _table([_png(picture) for picture in pictures], rows[:, 0])
    return tables, classes


def _png(picture: np.ndarray) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture).save(out, format="PNG")
    return out.getvalue()


def _files(folder: Path) -> tuple[dict[str, pa.Table], list[str]]:
    classes = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())
    tables = {}
    for split in ("train", "test"):
        found = list(_labelled_files(folder / split, classes))
        labels = np.array([label for _, label in found])
        tables[split] = _table([path.read_bytes() for path, _ in found], labels)
    return tables, classes


def _labelled_files(folder: Path, classes: list[str]) -> Iterator[tuple[Path, int]]:
    for label, name in enumerate(classes):
        for path in sorted((folder / name).glob("*")):
            if path.suffix.lower() in ENDINGS:
                yield path, label


def _pixels(folder: Path) -> tuple[dict[str, pa.Table], list[str]]:
    tables = {}
    for split in ("train", "test"):
        found = pq.read_table(folder / f"{split}.parquet", columns=["pixels", "label"])
        tables[split] = found.rename_columns(["picture", "label"])
    count = int(np.max(tables["train"]["label"].to_numpy())) + 1
    return tables, [str(i) for i in range(count)]


def _table(pictures: list[bytes], labels: np.ndarray) -> pa.Table:
    return pa.table({"picture": pa.array(pictures), "label": pa.array(labels.astype(np.int16))})


def main() -> None:
    """Write the three parts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--public", type=float, default=0.1, help="share of the training pictures")
    args = parser.parse_args()
    tables, classes = read(args.pictures)
    train = tables["train"]
    order = np.random.default_rng(SPLIT_SEED).permutation(len(train))
    count = round(args.public * len(train))
    args.out.mkdir(parents=True, exist_ok=True)
    parts = {"public": train.take(np.sort(order[:count])), "test": tables["test"]}
    parts["private"] = train.take(np.sort(order[count:]))
    for name, table in parts.items():
        pq.write_table(table, args.out / f"{name}.parquet", row_group_size=GROUP_ROWS)
        print(f"{name}: {len(table):,} pictures")
    (args.out / "classes.txt").write_text("\n".join(classes) + "\n")


if __name__ == "__main__":
    main()
