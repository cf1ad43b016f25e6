"""How useful a release is, and whether it repeats its training rows. TRUSTED side: NOT PRIVATE.

What is measured on real rows is a private fact. It stays with people who may see the rows, and the
options of later releases should not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dpgmm_dist.artifact.load import Release, load_release
from dpgmm_dist.encode.embedding_map import Panel, map_axes
from dpgmm_dist.errors import SpecError
from dpgmm_dist.evaluate.classify import KINDS, Kind, majority_accuracy, predicted_labels
from dpgmm_dist.evaluate.density import log_likelihood
from dpgmm_dist.evaluate.distances import frechet_distance, memorisation, precision_and_recall
from dpgmm_dist.evaluate.public_use import public_use
from dpgmm_dist.evaluate.real_rows import LabelledRows, Rows, rows_of

Floats = NDArray[np.float64]

NOT_PRIVATE = "NOT PRIVATE"
WARNING = (
    "NOT PRIVATE: measured on real rows, for the trusted side alone. Do not publish it, and do not "
    "choose the options of a release by it"
)
_COMPARED_ROWS = 5000
"""Most rows of each kind in the comparisons of all pairs of rows."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The results of `evaluate`. All of them are NOT PRIVATE."""

    values: Mapping[str, Any]
    """Plain JSON values; "privacy" is "NOT PRIVATE"."""
    distances: tuple[Floats, Floats] | None
    """Distances (n,) from synthetic rows to the nearest training and held-out row, for the plot."""
    principal: tuple[Floats, Floats]
    """Held-out and synthetic rows (m, 2) on the first two principal axes of the held-out rows."""
    map: tuple[Panel, ...] = ()
    """Held-out and synthetic rows on the axes that best separate the labels of held-out rows."""

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
    public: str | None = None,
    public_embedding: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Evaluation:
    """Measure a release against real rows. NOT PRIVATE.

    Parameters
    ----------
    release : a loaded release, or its directory or URL.
    data : held-out rows: real rows that were not used for the release. The path of Parquet files
        with the columns of the input, or (X, y).
    training : the rows that the release was made from. They are needed to compare with classifiers
        and mixtures of real rows, and for the memorisation check; None leaves these out.
    synthetic : sampled rows as written by `write_samples`; None samples from the release.
    rows : number of rows to sample. None takes the noisy number of rows in the release, at most
        ``max_rows``.
    max_rows : a larger set of real rows is reduced to a random subset of this size.
    epochs, hidden : epochs and hidden units of the two-layer network, which is not tuned.
    seed : of sampling, of random subsets and of the network.
    public, public_embedding : Parquet with the embeddings of public items, and their column (None
        for the only one), to tell how many of them the synthetic rows use; None leaves this out.
    storage_options : storage options of the rows.
    progress : called with the fraction of the work done.

    Raises
    ------
    SpecError
        When an argument is not valid, arrays do not fit the release, or scikit-learn is missing.
    DataError
        When the release or the rows cannot be read, or rows do not fit the release.
    """
    if max_rows < 1 or (rows is not None and rows < 1):
        raise SpecError(f"rows and max_rows must be at least 1, got {rows} and {max_rows}")
    loaded = load_release(release) if isinstance(release, str) else release
    report = progress or (lambda _: None)
    read = partial(rows_of, loaded, most=max_rows, seed=seed, storage_options=storage_options)
    held_out = read(data)
    training_rows = None if training is None else read(training)
    sampled = _sampled(loaded, rows, max_rows, seed) if synthetic is None else read(synthetic)
    report(0.1)
    with threadpool_limits(1):
        use = None
        if public is not None:
            use = public_use(public, public_embedding, sampled.X, held_out.X)
        measured = _measured(loaded, held_out, training_rows, sampled, epochs, hidden, seed, report)
    return replace(measured, values={**measured.values, "public_items": use})


def _sampled(release: Release, rows: int | None, most: int, seed: int) -> LabelledRows:
    if rows is None:
        noisy_rows = release.receipt.get("noisy_rows")
        rows = int(max(2, min(most, noisy_rows if isinstance(noisy_rows, (int, float)) else most)))
    X, y = release.sample(rows, seed)
    return rows_of(release, (X, y), rows, seed)


def _measured(
    release: Release,
    held_out: LabelledRows,
    training: LabelledRows | None,
    sampled: LabelledRows,
    epochs: int,
    hidden: int,
    seed: int,
    report: Callable[[float], None],
) -> Evaluation:
    density = log_likelihood(release, held_out, training, seed)
    report(0.3)
    test = _feature_units(release, held_out)
    synthetic = _feature_units(release, sampled)
    real = None if training is None else _feature_units(release, training)
    accuracy, predicted = _accuracy(release, synthetic, real, test, epochs, hidden, seed)
    report(0.7)
    test_part = test.subset(_COMPARED_ROWS, seed)
    synthetic_part = synthetic.subset(_COMPARED_ROWS, seed)
    size = min(len(test_part), len(synthetic_part))
    precision, recall = precision_and_recall(
        test_part.subset(size, 1).X, synthetic_part.subset(size, 1).X
    )
    memorised, distances = None, None
    if real is not None:
        real_part = real.subset(_COMPARED_ROWS, seed)
        memorised, to_training, to_held_out = memorisation(
            synthetic_part.X, real_part.X, test_part.X, seed
        )
        distances = (to_training, to_held_out)
    report(0.9)
    values = {
        "privacy": NOT_PRIVATE,
        "warning": WARNING,
        "release_id": release.release_id,
        "release_privacy": release.manifest.privacy,
        "rows": {
            "synthetic": len(sampled),
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
        "memorisation": memorised,
        "labels": _by_label(release, synthetic, test, predicted),
        "settings": {"epochs": epochs, "hidden": hidden, "seed": seed},
    }
    report(1.0)
    principal = _principal_axes(test_part.X, synthetic_part.X)
    return Evaluation(values, distances, principal, _map(release, test_part, synthetic_part))


def _map(release: Release, test: LabelledRows, synthetic: LabelledRows) -> tuple[Panel, ...]:
    """Held-out and synthetic rows on the axes that best separate the labels of held-out rows."""

    def names(rows: LabelledRows) -> list[str] | None:
        return [str(release.label_values[i]) for i in rows.y] if release.label_values else None

    axes = map_axes(test.X, names(test))
    return (
        Panel(f"held-out, {axes.name} axes: NOT PRIVATE", axes(test.X), names(test)),
        Panel("synthetic", axes(synthetic.X), names(synthetic)),
    )


def _feature_units(release: Release, rows: LabelledRows) -> LabelledRows:
    """Rows scaled by their public bounds, so that the columns of a table are comparable."""
    transform = release.transform
    return LabelledRows((rows.X - transform.center) / transform.half_width, rows.y)


def _accuracy(
    release: Release,
    synthetic: LabelledRows,
    real: LabelledRows | None,
    test: LabelledRows,
    epochs: int,
    hidden: int,
    seed: int,
) -> tuple[dict[str, Any] | None, dict[str, NDArray[Any]]]:
    """Accuracy on the test rows, by classifier and training rows.

    Also the labels that each classifier predicts after training on synthetic rows.
    """
    if len(release.label_values) < 2:
        return None, {}
    accuracy: dict[str, Any] = {"majority": majority_accuracy(synthetic.y, test.y)}
    predicted: dict[str, NDArray[Any]] = {}

    def predictions(kind: Kind, rows: LabelledRows) -> NDArray[Any]:
        return predicted_labels(
            kind, rows.X, rows.y, test.X, hidden=hidden, epochs=epochs, seed=seed
        )

    for kind in KINDS:
        predicted[kind] = predictions(kind, synthetic)
        accuracy[kind] = {
            "trained_on_synthetic": float((predicted[kind] == test.y).mean()),
            "trained_on_real": None,
        }
        if real is not None:
            accuracy[kind]["trained_on_real"] = float((predictions(kind, real) == test.y).mean())
    return accuracy, predicted


def _by_label(
    release: Release,
    synthetic: LabelledRows,
    test: LabelledRows,
    predicted: Mapping[str, NDArray[Any]],
) -> list[dict[str, Any]]:
    entries = []
    for index, label in enumerate(release.label_values):
        in_test, in_synthetic = test.y == index, synthetic.y == index
        entry: dict[str, Any] = {
            "label": label,
            "held_out_rows": int(in_test.sum()),
            "share_held_out": float(in_test.mean()),
            "share_synthetic": float(in_synthetic.mean()),
            "network_recall": None,
            "frechet_distance": None,
        }
        if in_test.any():
            if "network" in predicted:
                entry["network_recall"] = float((predicted["network"][in_test] == index).mean())
            if in_synthetic.any():
                entry["frechet_distance"] = frechet_distance(
                    synthetic.X[in_synthetic], test.X[in_test]
                )
        entries.append(entry)
    return entries


def _principal_axes(test: Floats, synthetic: Floats) -> tuple[Floats, Floats]:
    """Both sets of rows on the first two principal axes of the test rows.

    The second coordinate is 0 if there is only one dimension.
    """
    centre = test.mean(axis=0)
    axes = np.linalg.eigh(np.cov(test, rowvar=False).reshape(test.shape[1], -1))[1][:, ::-1][:, :2]

    def projected(rows: Floats) -> Floats:
        coordinates = (rows - centre) @ axes
        return np.asarray(np.pad(coordinates, ((0, 0), (0, 2 - coordinates.shape[1]))))

    return projected(test), projected(synthetic)
