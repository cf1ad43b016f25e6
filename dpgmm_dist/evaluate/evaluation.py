"""How useful a release is, and whether it repeats its rows. TRUSTED side: NOT PRIVATE.

What is measured on real rows is a private fact: it stays with whoever may see the rows, and no
option of a later release should be chosen by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dpgmm_dist.artifact.load import Release, load_release
from dpgmm_dist.errors import SpecError
from dpgmm_dist.evaluate.classify import KINDS, Kind, majority_accuracy, predicted_labels
from dpgmm_dist.evaluate.density import log_likelihood
from dpgmm_dist.evaluate.distances import frechet_distance, memorisation, precision_and_recall
from dpgmm_dist.evaluate.real_rows import LabelledRows, Rows, rows_of

Floats = NDArray[np.float64]

NOT_PRIVATE = "NOT PRIVATE"
WARNING = (
    "NOT PRIVATE: measured on real rows, for the trusted side alone. Do not publish it, and do not "
    "choose options of a release by it"
)
_COMPARED_ROWS = 5000
"""Rows of each kind in the comparisons that look at every pair."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` measured; all of it NOT PRIVATE."""

    values: Mapping[str, Any]
    """Plain JSON values; "privacy" is "NOT PRIVATE"."""
    distances: tuple[Floats, Floats] | None
    """Distances (n,) of synthetic rows to the nearest training and held-out row, for the plot."""
    principal: tuple[Floats, Floats]
    """Held-out and synthetic rows (m, 2) on the held-out rows' first principal axes."""

    def __repr__(self) -> str:
        return f"<Evaluation of {self.values['release_id']!r}, {NOT_PRIVATE}>"


def evaluate(
    release: Release | str,
    data: str | Rows,
    training: str | Rows | None = None,
    *,
    synthetic: str | Rows | None = None,
    rows: int | None = None,
    max_rows: int = 60_000,
    epochs: int = 20,
    hidden: int = 256,
    seed: int = 0,
    storage_options: Mapping[str, Any] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Evaluation:
    """Measure a release against real rows. NOT PRIVATE.

    Parameters
    ----------
    release
        A loaded release, or its directory or URL.
    data
        Held-out rows: real rows that had no part in the release. A Parquet path with the input's
        columns, or (X, y).
    training
        The rows the release was made from, for comparisons with classifiers and mixtures of real
        rows and for the memorisation check; None leaves these out.
    synthetic
        Sampled rows, as written by `write_samples`; None samples from the release.
    rows
        Number of rows to sample; as many as the release says there were when None, at most
        ``max_rows``.
    max_rows
        Of larger sets of real rows a random part of this size is used.
    epochs, hidden
        Of the two-layer network, which is never tuned.
    seed
        Of sampling, of choosing rows and of the network.
    storage_options
        Given to the file system of the rows.
    progress
        Called with the fraction of measurements done.

    Raises
    ------
    SpecError, DataError
        When something cannot be read or does not fit, or scikit-learn is missing.
    """
    if max_rows < 1 or (rows is not None and rows < 1):
        raise SpecError(f"rows and max_rows must be at least 1, got {rows} and {max_rows}")
    loaded = load_release(release) if isinstance(release, str) else release
    report = progress or (lambda _: None)
    held_out = rows_of(loaded, data, max_rows, seed, storage_options)
    known = None
    if training is not None:
        known = rows_of(loaded, training, max_rows, seed, storage_options)
    if synthetic is not None:
        made = rows_of(loaded, synthetic, max_rows, seed, storage_options)
    else:
        made = _sampled(loaded, rows, max_rows, seed)
    report(0.1)
    with threadpool_limits(1):
        return _measured(loaded, held_out, known, made, epochs, hidden, seed, report)


def _sampled(release: Release, rows: int | None, most: int, seed: int) -> LabelledRows:
    if rows is None:
        said = release.receipt.get("noisy_rows")
        rows = int(max(2, min(most, said if isinstance(said, (int, float)) else most)))
    X, y = release.sample(rows, seed)
    return rows_of(release, (X, y), rows, seed)


def _measured(
    release: Release,
    held_out: LabelledRows,
    training: LabelledRows | None,
    made: LabelledRows,
    epochs: int,
    hidden: int,
    seed: int,
    report: Callable[[float], None],
) -> Evaluation:
    density = log_likelihood(release, held_out, training, seed)
    report(0.3)
    test, real, synthetic = (
        None if rows is None else _feature_units(release, rows)
        for rows in (held_out, training, made)
    )
    assert test is not None and synthetic is not None  # noqa: S101 - for the type checker
    accuracy, guesses = _accuracy(release, synthetic, real, test, epochs, hidden, seed)
    report(0.7)
    few_test, few_made = test.some(_COMPARED_ROWS, seed), synthetic.some(_COMPARED_ROWS, seed)
    size = min(len(few_test), len(few_made))
    precision, recall = precision_and_recall(few_test.some(size, 1).X, few_made.some(size, 1).X)
    remembered, distances = None, None
    if real is not None:
        few_real = real.some(_COMPARED_ROWS, seed)
        remembered, *nearest = memorisation(few_made.X, few_real.X, few_test.X, seed)
        distances = (nearest[0], nearest[1])
    report(0.9)
    values = {
        "privacy": NOT_PRIVATE,
        "warning": WARNING,
        "release_id": release.release_id,
        "release_privacy": release.manifest.privacy,
        "rows": {
            "synthetic": len(made),
            "held_out": len(held_out),
            "training": None if training is None else len(training),
        },
        "accuracy": accuracy,
        "log_likelihood": density,
        "frechet_distance": {
            "synthetic_to_held_out": frechet_distance(synthetic.X, test.X),
            "training_to_held_out": None if real is None else frechet_distance(real.X, test.X),
        },
        "precision": precision,
        "recall": recall,
        "memorisation": remembered,
        "labels": _by_label(release, synthetic, test, guesses),
        "settings": {"epochs": epochs, "hidden": hidden, "seed": seed},
    }
    report(1.0)
    return Evaluation(values, distances, _principal(few_test.X, few_made.X))


def _feature_units(release: Release, rows: LabelledRows) -> LabelledRows:
    """Rows on the scale of their public bounds, so that a table's columns are comparable."""
    transform = release.transform
    return LabelledRows((rows.X - transform.center) / transform.half_width, rows.y)


def _accuracy(
    release: Release,
    made: LabelledRows,
    real: LabelledRows | None,
    test: LabelledRows,
    epochs: int,
    hidden: int,
    seed: int,
) -> tuple[dict[str, Any] | None, dict[str, NDArray[Any]]]:
    """Accuracy on held-out rows by training rows and classifier, and what each predicted."""
    if len(release.label_values) < 2:
        return None, {}
    found: dict[str, Any] = {"majority": majority_accuracy(made.y, test.y)}
    guesses: dict[str, NDArray[Any]] = {}

    def score(kind: Kind, rows: LabelledRows) -> NDArray[Any]:
        return predicted_labels(
            kind, rows.X, rows.y, test.X, hidden=hidden, epochs=epochs, seed=seed
        )

    for kind in KINDS:
        guesses[kind] = score(kind, made)
        found[kind] = {
            "trained_on_synthetic": float((guesses[kind] == test.y).mean()),
            "trained_on_real": None,
        }
        if real is not None:
            found[kind]["trained_on_real"] = float((score(kind, real) == test.y).mean())
    return found, guesses


def _by_label(
    release: Release, made: LabelledRows, test: LabelledRows, guesses: Mapping[str, NDArray[Any]]
) -> list[dict[str, Any]]:
    out = []
    for index, label in enumerate(release.label_values):
        here, there = test.y == index, made.y == index
        entry: dict[str, Any] = {
            "label": label,
            "held_out_rows": int(here.sum()),
            "share_held_out": float(here.mean()),
            "share_synthetic": float(there.mean()),
            "network_recall": None,
            "frechet_distance": None,
        }
        if here.any():
            if "network" in guesses:
                entry["network_recall"] = float((guesses["network"][here] == index).mean())
            if there.any():
                entry["frechet_distance"] = frechet_distance(made.X[there], test.X[here])
        out.append(entry)
    return out


def _principal(test: Floats, made: Floats) -> tuple[Floats, Floats]:
    """Both on the first two principal axes of the held-out rows (one axis, then zeros, if d=1)."""
    centre = test.mean(axis=0)
    axes = np.linalg.eigh(np.cov(test, rowvar=False).reshape(test.shape[1], -1))[1][:, ::-1][:, :2]

    def onto(rows: Floats) -> Floats:
        flat = (rows - centre) @ axes
        return np.asarray(np.pad(flat, ((0, 0), (0, 2 - flat.shape[1]))))

    return onto(test), onto(made)
