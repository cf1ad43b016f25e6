"""Labelled texts that you have, as Parquet: a private half, a public half and a test part.

    python jobs/data/texts_to_parquet.py TEXTS OUT [--text text] [--label label] [--public 0.5]

TEXTS is a folder with ``train`` and ``test`` as .csv or .parquet, with a column of texts and one of
labels, such as BANKING77's train.csv and test.csv (--label category). OUT gets private.parquet,
public.parquet and test.parquet with the columns ``text`` and ``label`` (from 0), and labels.txt.
The halves are chosen by a fixed seed. Declare only such texts public that are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SPLIT_SEED = 0
GROUP_ROWS = 2048


def read(folder: Path, split: str, text: str, label: str) -> tuple[list[str], list[str]]:
    """The texts and the labels, as text, of a split."""
    import pyarrow.csv

    if (folder / f"{split}.parquet").exists():
        table = pq.read_table(folder / f"{split}.parquet", columns=[text, label])
    elif (folder / f"{split}.csv").exists():
        options = pyarrow.csv.ParseOptions(newlines_in_values=True)
        table = pyarrow.csv.read_csv(folder / f"{split}.csv", parse_options=options)
    else:
        raise SystemExit(f"{folder} has neither {split}.parquet nor {split}.csv")
    return table[text].to_pylist(), [str(value) for value in table[label].to_pylist()]


def label_order(label: str) -> tuple[bool, int, str]:
    """Integers by value, other labels by text."""
    return (False, int(label), "") if label.isdecimal() else (True, 0, label)


def main() -> None:
    """Write the three parts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--text", default="text")
    parser.add_argument("--label", default="label")
    parser.add_argument("--public", type=float, default=0.5, help="share of the training texts")
    args = parser.parse_args()
    splits = {s: read(args.texts, s, args.text, args.label) for s in ("train", "test")}
    labels = sorted(set(splits["train"][1]), key=label_order)
    number = {label: i for i, label in enumerate(labels)}

    def table(split: str) -> pa.Table:
        texts, names = splits[split]
        codes = pa.array([number.get(name, -1) for name in names], pa.int16())
        return pa.table({"text": pa.array(texts, pa.string()), "label": codes})

    train = table("train")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(train))
    count = round(args.public * len(train))
    parts = {
        "private": train.take(np.sort(order[count:])),
        "public": train.take(np.sort(order[:count])),
        "test": table("test"),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        pq.write_table(part, args.out / f"{name}.parquet", row_group_size=GROUP_ROWS)
        print(f"{name}: {len(part):,} texts")
    (args.out / "labels.txt").write_text("\n".join(labels) + "\n")


if __name__ == "__main__":
    main()
