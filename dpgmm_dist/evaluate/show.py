"""An evaluation as a table, as JSON and as plots, each marked NOT PRIVATE."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from dpgmm_dist.artifact.part_files import new_file, resolve, storage_errors
from dpgmm_dist.encode.embedding_map import draw
from dpgmm_dist.evaluate.evaluation import WARNING, Evaluation

FILES = ("evaluation.json", "evaluation.txt", "evaluation.png", "map.png")
PICTURES = "pictures.png"
_CLASSIFIERS = {"network": "two-layer network", "logistic": "logistic regression", "lda": "LDA"}


def table(evaluation: Evaluation) -> str:
    """The evaluation as text. The first line says that it is NOT PRIVATE."""
    values = evaluation.values
    rows = values["rows"]
    training = "" if rows["training"] is None else f", {rows['training']:,} training"
    counts = f"{rows['synthetic']:,} synthetic, {rows['held_out']:,} held-out{training} rows"
    lines = [
        WARNING,
        f"release {values['release_id']}: {counts}",
        "",
        *_accuracy_lines(values["accuracy"]),
        *_measure_lines(values),
    ]
    if values["labels"]:
        lines += [
            "",
            f"{'label':>12} {'held-out':>9} {'real %':>7} {'synth %':>8} "
            f"{'recall %':>9} {'Frechet':>9}",
        ]
        lines += [
            f"{entry['label']!s:>12} {entry['held_out_rows']:>9,} "
            f"{100 * entry['share_held_out']:7.2f} {100 * entry['share_synthetic']:8.2f} "
            f"{_percent(entry['network_recall']):>9} {_number(entry['frechet_distance']):>9}"
            for entry in values["labels"]
        ]
    return "\n".join(lines)


def _accuracy_lines(accuracy: Mapping[str, Any] | None) -> list[str]:
    if accuracy is None:
        return []
    lines = [f"{'accuracy on held-out rows, %, trained on':42} {'synthetic':>10} {'real':>7}"]
    for kind, name in _CLASSIFIERS.items():
        synthetic = _percent(accuracy[kind]["trained_on_synthetic"])
        real = _percent(accuracy[kind]["trained_on_real"])
        lines.append(f"  {name:40} {synthetic:>10} {real:>7}")
    return [*lines, f"  {'majority class':40} {_percent(accuracy['majority']):>10}", ""]


def _measure_lines(values: Mapping[str, Any]) -> list[str]:
    """A line for each measure other than accuracy."""
    density, frechet = values["log_likelihood"], values["frechet_distance"]
    measures = [
        ("log-likelihood of held-out rows, nats a row", _number(density["held_out"])),
        ("  that of a mixture fitted without privacy", _number(density["reference"])),
        ("  gap", _number(density["gap"])),
        ("  training less held-out rows", _number(density["training_less_held_out"])),
        ("Frechet distance, synthetic to held-out", _number(frechet["synthetic_to_held_out"])),
        ("  training to held-out", _number(frechet["training_to_held_out"])),
        ("precision, %", _percent(values["precision"])),
        ("recall, %", _percent(values["recall"])),
    ]
    use = values["public_items"]
    if use is not None:
        measures += [
            (f"share of {use['items']:,} public items used, %", _percent(use["share_used"])),
            ("  by as many held-out rows", _percent(use["share_used_by_as_many_held_out_rows"])),
            ("  most rows that become one item", str(use["most_rows_of_an_item"])),
            ("median distance to the nearest public item", _number(use["median_distance"])),
            ("  of held-out rows", _number(use["median_distance_of_held_out"])),
        ]
    memory = values["memorisation"]
    if memory is not None:
        share, error = memory["share_nearer_to_training"], memory["standard_error"]
        measures += [
            (
                "synthetic rows nearer to a training row, %",
                f"{100 * share:.1f} (50 expected, +- {100 * error:.1f})",
            ),
            ("exact copies of training rows", str(memory["exact_copies_of_training_rows"])),
        ]
    return [f"{name:53} {value}" for name, value in measures]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def to_json(evaluation: Evaluation) -> str:
    """The evaluation as JSON; "privacy" is "NOT PRIVATE"."""
    return json.dumps(evaluation.values, indent=2, allow_nan=False) + "\n"


def write_evaluation(
    evaluation: Evaluation,
    output: str,
    options: Mapping[str, Any] | None = None,
    page: bytes | None = None,
) -> None:
    """Write `FILES` to a folder or URL. They replace those of an earlier evaluation.

    A ``page`` of real pictures beside synthetic ones becomes the file `PICTURES`.
    """
    with storage_errors("write the evaluation", output):
        fs, root = resolve(output, options)
        fs.makedirs(root, exist_ok=True)
        contents = (to_json(evaluation).encode(), table(evaluation).encode() + b"\n")
        pictures = (plot(evaluation), draw(evaluation.map, WARNING))
        files = dict(zip(FILES, (*contents, *pictures), strict=True))
        if page is not None:
            files[PICTURES] = page
        for name, data in files.items():
            with new_file(output, options, name) as file:
                file.write(data)


def plot(evaluation: Evaluation) -> bytes:
    """A PNG with three panels: recall by label, rows on principal axes, nearest neighbours."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        "NOT PRIVATE: measured on real rows, for the trusted side alone", color="#b00020"
    )
    labels, scatter, nearest = figure.subplots(1, 3)
    _plot_labels(labels, evaluation)
    test, synthetic = evaluation.principal
    scatter.scatter(*test[:2000].T, s=3, alpha=0.4, label="held-out", color="#1b6ca8")
    scatter.scatter(*synthetic[:2000].T, s=3, alpha=0.4, label="synthetic", color="#e07b39")
    scatter.set(title="rows on the first two principal axes", xticks=[], yticks=[])
    scatter.legend(markerscale=3, loc="upper right")
    _plot_distances(nearest, evaluation)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=90, metadata={"Description": WARNING, "Software": None})
    return data.getvalue()


def _plot_labels(axes: Any, evaluation: Evaluation) -> None:
    entries = [
        entry for entry in evaluation.values["labels"] if entry["network_recall"] is not None
    ]
    axes.set(title="recall of each label, trained on synthetic rows", ylim=(0, 1))
    if not entries:
        axes.text(0.5, 0.5, "no labels", ha="center", transform=axes.transAxes)
        return
    axes.bar(
        [str(entry["label"]) for entry in entries],
        [entry["network_recall"] for entry in entries],
        color="#e07b39",
    )


def _plot_distances(axes: Any, evaluation: Evaluation) -> None:
    axes.set(title="synthetic rows: distance to the nearest")
    if evaluation.distances is None:
        axes.text(0.5, 0.5, "no training rows given", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    for values, name, color in zip(
        evaluation.distances, ("training", "held-out"), ("#b00020", "#1b6ca8"), strict=True
    ):
        axes.hist(values, bins=60, histtype="step", label=f"{name} row", color=color)
    axes.legend()
