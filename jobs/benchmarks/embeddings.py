"""Classifiers of real embeddings that are trained on what a release gives, and beside it.

    python jobs/benchmarks/embeddings.py FOLDER [--epsilons 1 3 10] [--public 0.1]

FOLDER has train.parquet and test.parquet, or folders of these names (private in place of train),
with the columns ``embedding`` (unit norm) and ``label`` (from 0). A share of the training rows is
declared public; the release is of the others. It prints a line of JSON for each epsilon with
accuracies (%) on all test rows:

* ``synthetic``: the network of `dpgmm evaluate`, trained on sampled rows;
* ``nearest``: the same on public embeddings in their place, as ``--decoder nearest:`` chooses them,
  with the labels of the sampled rows; ``nearest_of_label`` chooses with ``--public-label``;
* ``posterior``: the released mixture's own rule;
* ``private_logistic``: logistic regression by noisy gradients at the same budget, a classifier from
  which nothing can be sampled (its noise is numpy's, for measuring alone).

The first line has the network without privacy, trained on the private rows and on the public ones.
With ``--private-logistic EPSILON`` only the accuracy of that classifier is printed. No option is
chosen on the test rows. Noise of releases is private and new in each run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import simple_models
from threadpoolctl import threadpool_limits

from dpgmm_dist import ReleaseSpec, load_release, release
from dpgmm_dist.data.source import ArraySource
from dpgmm_dist.encode.neighbours import Search, assign
from dpgmm_dist.evaluate.classify import classifier_accuracy
from dpgmm_dist.privacy.accounting import mu_from_epsilon_delta

SPLIT_SEED = 0


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, d) float32 and labels (n,) of a Parquet file or a folder of them."""
    if path.name == "train" and (path.parent / "private").exists():
        path = path.parent / "private"
    table = pq.read_table(path if path.exists() else path.with_suffix(".parquet"))
    column = table["embedding"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1).astype(np.float32), table["label"].to_numpy().astype(int)


def nearest_rows(
    public: np.ndarray, public_labels: np.ndarray | None, X: np.ndarray, y: np.ndarray, repeat: int
) -> np.ndarray:
    """The index of the public row for each sampled row, as the decoder ``nearest:`` chooses."""
    if public_labels is None:
        return assign(public, X, repeat) if repeat else Search(public).nearest(X)[:, 0]
    index = np.empty(len(X), int)
    for label in np.unique(y):
        public_rows, sampled_rows = np.flatnonzero(public_labels == label), y == label
        index[sampled_rows] = public_rows[
            nearest_rows(public[public_rows], None, X[sampled_rows], y[sampled_rows], repeat)
        ]
    return index


def measured(
    private: tuple[np.ndarray, np.ndarray],
    public: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    epsilon: float,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Accuracies (%) at an epsilon."""
    X, y = private
    labels = list(range(int(y.max()) + 1))
    spec = {
        "dataset": {
            "path": "memory",
            "features": "x",
            "width": X.shape[1],
            "label": "label",
            "labels": labels,
        },
        "bounds": {"norm": 1.0},
        "privacy": {"epsilon": epsilon, "delta": args.delta},
        "model": {"components": "auto"},
    }
    with TemporaryDirectory() as folder:
        target = str(Path(folder) / "release")
        source = ArraySource(X, y, tuple(labels))
        release(ReleaseSpec.from_dict(spec), output=target, source=source)
        found = load_release(target)
    rows, row_labels = found.sample(args.rows or len(X), args.seed)
    likeliest = found.label_probabilities(test[0].astype(float)).argmax(axis=1)

    def network(train_X: np.ndarray) -> float:
        accuracy = classifier_accuracy(
            train_X, np.asarray(row_labels), *test, epochs=args.epochs, seed=args.seed
        )
        return round(100 * accuracy, 2)

    result: dict[str, Any] = {"epsilon": epsilon, "synthetic": network(rows)}
    if len(public[0]):
        used = nearest_rows(public[0], None, rows, row_labels, args.repeat)
        result["nearest"] = network(public[0][used])
        result["public_share_used"] = round(len(np.unique(used)) / len(public[0]), 3)
        used = nearest_rows(*public, rows, np.asarray(row_labels), args.repeat)
        result["nearest_of_label"] = network(public[0][used])
    result["posterior"] = round(100 * float(np.mean(likeliest == test[1])), 2)
    result["private_logistic"] = private_logistic(private, test, epsilon, args)
    return result


def private_logistic(
    private: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    epsilon: float,
    args: argparse.Namespace,
) -> float:
    """The accuracy (%) of logistic regression by noisy gradients."""
    X, y = private
    budget = simple_models.Budget(
        mu_from_epsilon_delta(epsilon, args.delta), np.random.default_rng(args.seed)
    )
    rows = simple_models.Rows(X.astype(float), y, int(y.max()) + 1, 1.0)
    predicted = simple_models.logistic(rows, budget).predict(test[0].astype(float))
    return round(100 * float(np.mean(predicted == test[1])), 2)


def main() -> None:
    """Print a line without privacy, then one for each epsilon."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.0, 10.0])
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--public", type=float, default=0.1, help="share of the training rows")
    parser.add_argument("--repeat", type=int, default=0, help="0: no limit")
    parser.add_argument("--rows", type=int, default=0, help="sampled rows; 0: as many as private")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--private-logistic", type=float, metavar="EPSILON")
    args = parser.parse_args()
    X, y = read(args.folder / "train")
    test = read(args.folder / "test")
    if args.private_logistic is not None:
        accuracy = private_logistic((X, y), test, args.private_logistic, args)
        print(f"DP logistic regression (NOT PRIVATE figure) {accuracy:.1f} %")
        return
    order = np.random.default_rng(SPLIT_SEED).permutation(len(X))
    count = round(args.public * len(X))
    public, private = (X[order[:count]], y[order[:count]]), (X[order[count:]], y[order[count:]])
    with threadpool_limits(1):
        settings = {"epochs": args.epochs, "seed": args.seed}
        line = {"private_rows": len(private[0]), "public_rows": count}
        for name, rows in (("real_private", private), ("real_public", public)):
            if len(rows[0]):
                line[name] = round(100 * classifier_accuracy(*rows, *test, **settings), 2)
        print(json.dumps(line), flush=True)
        for epsilon in args.epsilons:
            print(json.dumps(measured(private, public, test, epsilon, args)), flush=True)


if __name__ == "__main__":
    main()
