"""The release beside simple private models, over rows, dimensions, labels and epsilon.

    python jobs/benchmarks/regimes.py [--data build/data] [--only PATTERN] [--seeds 3] [--json FILE]
    python jobs/benchmarks/regimes.py --list

A cell of the map is a set of rows and an epsilon. Its name says which: set, number of rows n,
columns d, labels or density, epsilon e, as in ``fashion_scatter128/n1000/d128/labels10/e1``.
Labelled cells are measured by the accuracy (%) of the posterior of the label on the test split, all
others by the log density of its rows in nats a row. ``--only`` takes a regular expression.

Each cell compares

* the release with defaults and ``components: auto``, through the public API, with private noise;
* the same with a number of components that is too large (``--excess``, for each label);
* the simple models of simple_models.py at the same budget: ``sphere``, ``nearest`` (means of labels
  alone), ``stages``; and ``logistic``, from which nothing can be sampled. Their noise is numpy's
  floating-point noise, calibrated by the accounting of the package: for measuring alone.

The regret is the release less the best of the simple models that can be sampled, by means over
seeds. The worst cell comes first, in units of its tolerance: half a point of accuracy, or .005 nats
a dimension. Labels of a ``.cut`` set are nearest means by construction, so only ``stages`` counts
there. Known mixtures have a column for the truth, and their gap is the KL divergence of the release
from it. The mixture, its rows and the noise are new for each seed; of a data set only the noise is.

No choice looks at the test split: releases and models take no option from it, and the constants of
simple models were chosen on held-out training rows and known mixtures. Data sets are the folders
below ``--data``, of which ``make data`` builds some; the first n rows are those of a permutation
seeded with 0. Absent sets are skipped. A release that is refused, fails, or takes longer than
``--time-limit`` seconds is shown as that.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import re
import resource
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simple_models
from mixtures import KnownMixture, Recipe, shape, spread_apart
from numpy.typing import NDArray
from simple_models import Budget, Rows
from threadpoolctl import threadpool_limits

from dpgmm_dist import ReleaseSpec, load_release, release
from dpgmm_dist.data.source import ArraySource
from dpgmm_dist.errors import DpgmmError
from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.privacy.accounting import mu_from_epsilon_delta

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Scores = dict[str, float]
"""What is measured of a model: "accuracy" in percent where there are labels, and "nats" a row."""

DELTA = 1e-5
FRESH_ROWS = 20_000
"""Rows of a known mixture that models are judged by."""
POINTS, NATS_A_DIMENSION = 0.5, 0.005
"""Tolerances of a cell: points of accuracy, or nats a row and dimension."""
RELEASE, EXCESS, TRUTH = "release", "excess", "truth"
SAMPLED = {
    "sphere": simple_models.sphere,
    "nearest": simple_models.nearest_mean,
    "stages": simple_models.stages,
}
CLASSIFIERS = {"logistic": simple_models.logistic}
MODELS = (RELEASE, EXCESS, *SAMPLED, *CLASSIFIERS, TRUTH)
FORK = multiprocessing.get_context("fork")


# Cells --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Split:
    """Rows to release from, rows to judge by, and what is public about them."""

    train: Rows
    test_X: Floats
    test_y: Integers
    truth: Mixture | None = None
    """The distribution of the rows, where it is known; a label is then a component."""


@dataclass(frozen=True)
class Cell:
    """One place of the map."""

    dataset: str
    rows: int
    columns: int
    labels: int
    """Number of labels; 0 for a density."""
    epsilon: float
    make: Callable[[Cell, Path, int], Split | None]
    """The rows, from the folder of data sets and a seed; None where the data set is absent."""
    components: int = 1
    """Components of the truth, where it is a known mixture without labels."""

    @property
    def name(self) -> str:
        """What ``--only`` matches."""
        what = f"labels{self.labels}" if self.labels else "density"
        return f"{self.dataset}/n{self.rows}/d{self.columns}/{what}/e{self.epsilon:g}"

    @property
    def measure(self) -> str:
        """The score that counts."""
        return "accuracy" if self.labels else "nats"

    @property
    def tolerance(self) -> float:
        """A regret below this is none."""
        return POINTS if self.labels else NATS_A_DIMENSION * self.columns

    @property
    def seed(self) -> int:
        """A number that no other cell is likely to have."""
        return zlib.crc32(self.name.encode())


# Data sets ----------------------------------------------------------------------------------

PIXELS = 255.0
NORMS = {"fashion_mnist_raw": 28.0, "nycflights13": math.sqrt(5)}
"""Public bounds on a row's length where it is not 1: a white image, five numbers in [-1, 1]."""
Labelled = tuple[Floats, Integers]


def folder_split(cell: Cell, data: Path, seed: int) -> Split | None:
    """The first rows and columns of a data set."""
    parts = read_folder(data / cell.dataset)
    return None if parts is None else _split(cell, *parts)


def cut_split(cell: Cell, data: Path, seed: int) -> Split | None:
    """Ten labels in place of each: the nearest of its ten k-means centres."""
    name = cell.dataset.removesuffix(".cut")
    parts = read_folder(data / name)
    if parts is None:
        return None
    train, test = parts
    return _split(cell, *_cut_labels(train, test), norm=NORMS.get(name, 1.0))


def skewed_split(cell: Cell, data: Path, seed: int) -> Split | None:
    """Half as many rows of each label as of the one before; the test split is as it was."""
    parts = read_folder(data / cell.dataset.removesuffix(".skewed"))
    if parts is None:
        return None
    (X, y), test = parts
    order = np.random.default_rng(0).permutation(len(X))
    kept = [order[y[order] == label][:n] for label, n in enumerate(SKEWED_ROWS)]
    chosen = np.concatenate(kept)
    return _split(cell, (X[chosen], y[chosen]), test)


SKEWED_ROWS = [6000 // 2**label + 20 for label in range(10)]


def _split(cell: Cell, train: Labelled, test: Labelled, norm: float | None = None) -> Split:
    X, y = train
    first = np.random.default_rng(0).permutation(len(X))[: cell.rows]
    labels = max(cell.labels, 1)
    if not cell.labels:
        y, test = np.zeros_like(y), (test[0], np.zeros_like(test[1]))
    bound = NORMS.get(cell.dataset, 1.0) if norm is None else norm
    rows = Rows(X[first, : cell.columns].astype(np.float64), y[first], labels, bound)
    return Split(rows, test[0][:, : cell.columns].astype(np.float64), test[1])


@lru_cache(maxsize=1)
def read_folder(folder: Path) -> tuple[Labelled, Labelled] | None:
    """Training and test rows of a data set; without a test split the last tenth of the rows."""
    if (folder / "train.parquet").exists() and (folder / "test.parquet").exists():
        return _read([folder / "train.parquet"]), _read([folder / "test.parquet"])
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        return None
    X, y = _read(parts)
    kept = len(X) - len(X) // 10
    return (X[:kept], y[:kept]), (X[kept:], y[kept:])


def _read(files: Sequence[Path]) -> Labelled:
    """Rows (n, d) float32 and labels (n,) from 0."""
    table = pa.concat_tables([pq.read_table(file) for file in files])
    pixels = "pixels" in table.column_names
    column = table["pixels" if pixels else "embedding"].combine_chunks()
    X = np.asarray(column.flatten()).astype(np.float32).reshape(len(table), -1)
    _, y = np.unique(np.asarray(table["label"]), return_inverse=True)
    return (X / np.float32(PIXELS) if pixels else X), y.astype(np.int64)


def _cut_labels(train: Labelled, test: Labelled) -> tuple[Labelled, Labelled]:
    from sklearn.cluster import KMeans

    (X, y), (test_X, test_y) = train, test
    cut, test_cut = 10 * y, 10 * test_y
    for label in np.unique(y):
        model = KMeans(10, n_init=1, random_state=0).fit(X[y == label])
        cut[y == label] += model.labels_
        test_cut[test_y == label] += model.predict(test_X[test_y == label])
    return (X, cut), (test_X, test_cut)


# Known mixtures -----------------------------------------------------------------------------


def mixture_split(cell: Cell, data: Path, seed: int) -> Split:
    """A known mixture whose true posterior misassigns 4.5% of the rows, new for each seed.

    The name of its set says "isotropic" (one variance) or "full" (covariances of their own), and
    "balanced" or "unbalanced" (each component half as heavy as the one before).
    """
    count = cell.labels or cell.components
    seed += cell.seed
    family = shape(cell.columns, count, seed)
    weights = np.full(count, 1 / count)
    if ".unbalanced" in cell.dataset:
        weights = np.maximum(0.5 ** np.arange(count), 1e-3)
        weights /= weights.sum()
    covariances = family.covariances
    if ".isotropic" in cell.dataset:
        variance = np.trace(covariances[0]) / cell.columns
        covariances = np.broadcast_to(variance * np.eye(cell.columns), covariances.shape)
    recipe = Recipe(cell.dataset, cell.rows, cell.columns, count)
    truth = spread_apart(Mixture(weights, family.means, covariances), recipe.misassigned, seed)
    return _known_split(cell, truth, recipe, seed)


def gaussian_split(cell: Cell, data: Path, seed: int) -> Split:
    """One Gaussian a label, all with one covariance whose trace is 1; new for each seed.

    It is a multiple of the identity ("isotropic"), or has eigenvalues in proportion to 1, 1/2, 1/3,
    ... along random axes ("decaying"). Means of labels are drawn from a multiple of it.
    """
    d, labels, seed = cell.columns, max(cell.labels, 1), seed + cell.seed
    rng = np.random.default_rng(seed)
    values = np.ones(d) if ".isotropic" in cell.dataset else 1 / np.arange(1.0, d + 1)
    values /= values.sum()
    axes = np.linalg.qr(rng.standard_normal((d, d)))[0]
    covariance = (axes * values) @ axes.T
    covariance = (covariance + covariance.T) / 2
    means = rng.standard_normal((labels, d)) * np.sqrt(BETWEEN * values / d) @ axes.T
    stacked = np.repeat(covariance[None], labels, axis=0)
    truth = Mixture(np.full(labels, 1 / labels), means, stacked)
    return _known_split(cell, truth, Recipe(cell.dataset, cell.rows, d, labels), seed)


BETWEEN = 10.0
"""Mean squared distance of a label's mean from the centre, in units of the covariance."""


def _known_split(cell: Cell, truth: Mixture, recipe: Recipe, seed: int) -> Split:
    # A bound as somebody would state it who knows the scale; rows of its own show it.
    trial, _ = truth.sample(FRESH_ROWS, np.random.SeedSequence([seed, 3]))
    norm = round(1.3 * float(np.quantile(np.linalg.norm(trial, axis=1), 0.999)), 3)
    known = KnownMixture(recipe, seed, truth, norm)
    (X, y), (fresh, fresh_y) = known.labelled_rows(), known.labelled_fresh(FRESH_ROWS)
    if not cell.labels:
        y, fresh_y = np.zeros_like(y), np.zeros_like(fresh_y)
    return Split(Rows(X, y, max(cell.labels, 1), norm), fresh, fresh_y, truth)


# The map ------------------------------------------------------------------------------------


def _cells() -> Iterator[Cell]:
    labelled: list[tuple[str, int, int, int, tuple[float, ...]]] = [
        ("fashion_scatter128", 1_000, 128, 10, (1, 3)),
        ("fashion_scatter128", 3_000, 128, 10, (1,)),
        ("fashion_scatter128", 10_000, 128, 10, (1,)),
        ("fashion_scatter128", 60_000, 128, 10, (1, 3, 10)),
        ("fashion_effnet128", 1_000, 128, 10, (1,)),
        ("fashion_effnet128", 3_000, 128, 10, (1,)),
        ("fashion_effnet128", 60_000, 128, 10, (1,)),
        ("cifar10_effnet512", 50_000, 512, 10, (1, 3, 10)),
        ("cifar10_effnet512", 5_000, 512, 10, (1,)),
        ("banking77_minilm384", 10_003, 384, 77, (1, 3, 10)),
        ("spamassassin_minilm384", 4_836, 384, 2, (1, 3)),
        ("fashion_mnist_raw", 60_000, 784, 10, (1,)),
        ("nycflights13", 294_612, 5, 3, (1,)),
    ]
    for name, rows, columns, labels, epsilons in labelled:
        for epsilon in epsilons:
            yield Cell(name, rows, columns, labels, epsilon, folder_split)
    skewed = sum(SKEWED_ROWS)
    yield Cell("fashion_scatter128.cut", 60_000, 128, 100, 1, cut_split)
    yield Cell("cifar10_effnet512.cut", 50_000, 512, 100, 1, cut_split)
    yield Cell("fashion_scatter128.skewed", skewed, 128, 10, 1, skewed_split)

    densities: list[tuple[str, int, int, tuple[float, ...]]] = [
        ("fashion_scatter128", 1_000, 8, (1,)),
        ("fashion_scatter128", 3_000, 16, (1,)),
        ("fashion_scatter128", 1_000, 32, (1,)),
        ("fashion_scatter128", 5_000, 32, (1,)),
        ("fashion_scatter128", 10_000, 64, (1,)),
        ("fashion_scatter128", 60_000, 64, (1,)),
        ("fashion_scatter128", 1_000, 128, (1,)),
        ("fashion_scatter128", 3_000, 128, (1,)),
        ("fashion_scatter128", 5_000, 128, (1,)),
        ("fashion_scatter128", 30_000, 128, (1,)),
        ("fashion_scatter128", 60_000, 128, (1, 10)),
        ("spamassassin_minilm384", 1_000, 384, (1,)),
        ("spamassassin_minilm384", 4_836, 384, (1, 10)),
        ("cifar10_effnet512", 2_000, 512, (1,)),
        ("cifar10_effnet512", 50_000, 512, (1, 10)),
        ("banking77_minilm384", 10_003, 384, (1, 10)),
        ("nycflights13", 3_000, 5, (1,)),
        ("nycflights13", 294_612, 5, (1,)),
    ]
    for name, rows, columns, epsilons in densities:
        for epsilon in epsilons:
            yield Cell(name, rows, columns, 0, epsilon, folder_split)
    yield from _known_cells()


def _known_cells() -> Iterator[Cell]:
    for kind in ("isotropic", "decaying"):
        for rows, columns in ((1_000, 8), (1_000, 32), (16_000, 64), (3_000, 128)):
            yield Cell(f"gaussian.{kind}", rows, columns, 0, 1, gaussian_split)
    yield Cell("gaussian.decaying", 20_000, 768, 10, 1, gaussian_split)
    for kind in ("isotropic", "full"):
        for weights in ("balanced", "unbalanced"):
            name = f"mixture.{kind}.{weights}"
            yield Cell(name, 3_000, 8, 0, 1, mixture_split, components=5)
            yield Cell(name, 30_000, 16, 0, 1, mixture_split, components=5)
            yield Cell(name, 2_000, 32, 10, 1, mixture_split)
    name = "mixture.full.balanced"
    yield Cell(name, 100_000, 10, 0, 0.5, mixture_split, components=5)
    yield Cell(name, 100_000, 10, 0, 1, mixture_split, components=5)
    yield Cell(name, 300_000, 32, 0, 1, mixture_split, components=10)
    yield Cell(name, 30_000, 64, 20, 1, mixture_split)


CELLS = tuple(_cells())


# Measuring ----------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What one model did in a cell: scores, one a seed, or why there are none."""

    scores: list[Scores]
    seconds: list[float]
    gibibytes: float | None = None
    """The most memory that a release's process held, the benchmark's rows included."""
    problem: str | None = None

    def values(self, measure: str) -> Floats:
        """One score a seed; nothing where it failed with any of them."""
        if self.problem:
            return np.array([])
        values = np.array([scores[measure] for scores in self.scores])
        return np.where(np.isnan(values), -np.inf, values)

    def mean(self, measure: str) -> float:
        """The mean over seeds; minus infinity where it failed."""
        values = self.values(measure)
        return float(values.mean()) if len(values) else -math.inf

    def public(self) -> dict[str, Any]:
        """For JSON."""
        out: dict[str, Any] = {"seconds": round(float(np.mean(self.seconds or [0])), 2)}
        if self.gibibytes is not None:
            out["gibibytes"] = round(self.gibibytes, 2)
        if self.problem:
            return out | {"problem": self.problem}
        for measure in self.scores[0]:
            values = self.values(measure)
            out[measure] = {
                "mean": _finite(values.mean()),
                "worst": _finite(values.min()),
                "values": [_finite(value) for value in values],
            }
        return out


@dataclass
class Result:
    """A measured cell."""

    cell: Cell
    outcomes: dict[str, Outcome]

    @cached_property
    def best(self) -> str | None:
        """The best simple model that can be sampled."""
        fair = ("stages",) if self.cell.make is cut_split else SAMPLED
        names = [name for name in fair if name in self.outcomes]
        return max(names, key=lambda name: self._mean(name), default=None)

    def regret(self, model: str = RELEASE) -> float | None:
        """The release less the best simple model; minus infinity where it failed."""
        if model not in self.outcomes or self.best is None:
            return None
        return self._mean(model) - self._mean(self.best)

    def regret_error(self, model: str = RELEASE) -> float | None:
        """Standard error of the regret, from its values over seeds."""
        if self.best is None or model not in self.outcomes:
            return None
        released = self.outcomes[model].values(self.cell.measure)
        if len(released) < 2:
            return None
        if not np.isfinite(released).all():
            return None
        apart = released - self.outcomes[self.best].values(self.cell.measure)
        return float(apart.std(ddof=1) / math.sqrt(len(apart)))

    @property
    def gap(self) -> float | None:
        """KL divergence of the release from a known mixture, in nats a row."""
        if TRUTH not in self.outcomes or RELEASE not in self.outcomes:
            return None
        return self.outcomes[TRUTH].mean("nats") - self.outcomes[RELEASE].mean("nats")

    def _mean(self, name: str) -> float:
        return self.outcomes[name].mean(self.cell.measure)

    def public(self) -> dict[str, Any]:
        """For JSON, where a failed release has no regret."""
        cell = self.cell
        return {
            "name": cell.name,
            "dataset": cell.dataset,
            "rows": cell.rows,
            "columns": cell.columns,
            "labels": cell.labels,
            "epsilon": cell.epsilon,
            "measure": cell.measure,
            "tolerance": cell.tolerance,
            "best": self.best,
            "regret": _finite(self.regret()),
            "regret_error": _finite(self.regret_error()),
            "regret_excess": _finite(self.regret(EXCESS)),
            "gap": _finite(self.gap),
            "models": {name: outcome.public() for name, outcome in self.outcomes.items()},
        }


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 4)


def run_cell(cell: Cell, args: argparse.Namespace) -> Result | None:
    """Every model on every seed of a cell; None where its data set is absent."""
    outcomes: dict[str, Outcome] = {}
    split: Split | None = None
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        # The rows of a data set are the same for every seed.
        if split is None or split.truth is not None:
            split = cell.make(cell, args.data, seed)
        if split is None:
            return None
        for name in _models(cell, split, args):
            outcome = outcomes.setdefault(name, Outcome([], []))
            if outcome.problem is None:
                _add(outcome, name, cell, split, seed, args)
                _say(cell, name, seed, outcome)
    return Result(cell, outcomes)


def _models(cell: Cell, split: Split, args: argparse.Namespace) -> list[str]:
    names = [name for name in MODELS if name in args.models]
    if not cell.labels:
        names = [name for name in names if name not in ("nearest", *CLASSIFIERS)]
    return [name for name in names if name != TRUTH or split.truth is not None]


def _add(
    outcome: Outcome, name: str, cell: Cell, split: Split, seed: int, args: argparse.Namespace
) -> None:
    """Measure one model on one seed."""
    start = time.perf_counter()
    if name in (RELEASE, EXCESS):
        components = "auto" if name == RELEASE else max(args.excess, 2 * cell.components)
        work = partial(released_scores, cell, split, components, args.delta)
        found = in_child(work, args.time_limit)
        if isinstance(found, str):
            outcome.problem = found
        else:
            scores, memory = found
            outcome.scores.append(scores)
            outcome.gibibytes = max(memory, outcome.gibibytes or 0.0)
    elif name == TRUTH:
        outcome.scores.append(_truth_scores(cell, split))
    else:
        budget = Budget(
            mu_from_epsilon_delta(cell.epsilon, args.delta),
            np.random.default_rng([seed, cell.seed]),
        )
        outcome.scores.append(_simple_scores(name, split, budget))
    outcome.seconds.append(time.perf_counter() - start)


def _simple_scores(name: str, split: Split, budget: Budget) -> Scores:
    if name in CLASSIFIERS:
        rule = CLASSIFIERS[name](split.train, budget)
        return {"accuracy": _accuracy(rule.predict(split.test_X), split)}
    model = SAMPLED[name](split.train, budget)
    scores = {"nats": float(model.log_density(split.test_X).mean())}
    if split.train.labels > 1:
        scores["accuracy"] = _accuracy(model.predict(split.test_X), split)
    return scores


def _truth_scores(cell: Cell, split: Split) -> Scores:
    assert split.truth is not None
    scores = {"nats": float(split.truth.log_prob(split.test_X).mean())}
    if cell.labels:
        likeliest = split.truth.responsibilities(split.test_X).argmax(axis=1)
        scores["accuracy"] = _accuracy(likeliest, split)
    return scores


def released_scores(
    cell: Cell, split: Split, components: int | str, delta: float
) -> tuple[Scores, float]:
    """Scores of a release that is written and read back, and the memory (GiB) it took."""
    rows, labels = split.train, list(range(cell.labels))
    labelled = {"label": "label", "labels": labels} if labels else {}
    spec = ReleaseSpec.from_dict(
        {
            "dataset": {"path": "memory", "features": "x", "width": rows.width, **labelled},
            "bounds": {"norm": rows.norm},
            "privacy": {"epsilon": cell.epsilon, "delta": delta},
            "model": {"components": components},
        }
    )
    source = ArraySource(rows.X, rows.y, tuple(labels)) if labels else ArraySource(rows.X)
    with TemporaryDirectory() as folder:
        target = str(Path(folder) / "release")
        release(spec, output=target, source=source)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        found = load_release(target)
    scores = {"nats": float(found.score_samples(split.test_X).mean())}
    if labels:
        likeliest = found.label_probabilities(split.test_X).argmax(axis=1)
        scores["accuracy"] = _accuracy(likeliest, split)
    return scores, memory


def _accuracy(labels: Integers, split: Split) -> float:
    return 100 * float(np.mean(labels == split.test_y))


def in_child(work: Callable[[], Any], seconds: float) -> Any:
    """What ``work`` returns in a forked process, or a line that says why it did not."""
    receiver, sender = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_send, args=(sender, work))
    child.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            return f"over time: still running after {seconds:g} s"
        return receiver.recv()
    except EOFError:
        child.join()
        return f"failed: the process ended with exit code {child.exitcode}"
    finally:
        child.kill()
        child.join()


def _send(sender: Any, work: Callable[[], Any]) -> None:
    try:
        found = work()
    except (DpgmmError, MemoryError) as error:
        found = f"refused: {_first_line(error)}"
    except Exception as error:
        found = f"failed: {type(error).__name__}: {_first_line(error)}"
    sender.send(found)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# Showing ------------------------------------------------------------------------------------


def table(results: Sequence[Result]) -> str:
    """One line a cell, the worst regret first, in units of the cell's tolerance."""
    width = max([len(result.cell.name) for result in results], default=4)
    header = f"{'cell':{width}} {'regret':>9} {'error':>7} {'excess':>9} {'of':8}"
    header += "".join(f"{name:>10}" for name in (RELEASE, "(worst)", *MODELS[1:], "gap"))
    lines = [header]
    for result in sorted(results, key=_badness):
        measure = result.cell.measure
        line = f"{result.cell.name:{width}} {_signed(result.regret()):>9}"
        line += f" {_number(result.regret_error()):>7} {_signed(result.regret(EXCESS)):>9}"
        line += f" {result.best or '-':8}"
        for name in MODELS:
            outcome = result.outcomes.get(name)
            line += f"{_shown(outcome, measure):>10}"
            if name == RELEASE:
                values = outcome.values(measure) if outcome else []
                line += f"{_number(min(values, default=None)):>10}"
        lines.append(f"{line}{_number(_finite(result.gap)):>10}")
    return "\n".join([*lines, "", *_problems(results), *_summary(results)])


def _badness(result: Result) -> float:
    regret = result.regret()
    return math.inf if regret is None else regret / result.cell.tolerance


def _problems(results: Sequence[Result]) -> list[str]:
    return [
        f"{result.cell.name}, {name}: {outcome.problem}"
        for result in results
        for name, outcome in result.outcomes.items()
        if outcome.problem
    ]


def _summary(results: Sequence[Result]) -> list[str]:
    lines = []
    for model, words in ((RELEASE, "the release"), (EXCESS, "with too many components")):
        measured = [result for result in results if result.regret(model) is not None]
        if not measured:
            continue
        below = [result for result in measured if result.regret(model) < -result.cell.tolerance]
        lines.append(
            f"{words}: below the best simple model by more than the tolerance in {len(below)} of "
            f"{len(measured)} cells"
        )
    return [*lines, "simple models have numpy's floating-point noise: for measuring alone"]


def _shown(outcome: Outcome | None, measure: str) -> str:
    if outcome is None:
        return "-"
    return outcome.problem.split(":")[0] if outcome.problem else _number(outcome.mean(measure))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _signed(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:+.2f}" if math.isfinite(value) else "none"


def _say(cell: Cell, name: str, seed: int, outcome: Outcome) -> None:
    shown = outcome.problem or f"{outcome.scores[-1][cell.measure]:.3f}"
    print(f"{cell.name} {name} seed={seed} {shown} ({outcome.seconds[-1]:.1f} s)", file=sys.stderr)


def write(file: Path, results: Sequence[Result], skipped: Sequence[str], args: Any) -> None:
    """All results so far, worst first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    shared = {
        "delta": args.delta,
        "seeds": args.seeds,
        "first_seed": args.first_seed,
        "excess": args.excess,
        "time_limit": args.time_limit,
        "noise": {"release": "private", "simple models": "numpy, for measuring alone"},
        "skipped": list(skipped),
    }
    cells = [result.public() for result in sorted(results, key=_badness)]
    file.write_text(json.dumps({**shared, "cells": cells}, indent=1, allow_nan=False) + "\n")


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/data"))
    parser.add_argument("--only", default="", help="regular expression that a cell's name contains")
    parser.add_argument("--list", action="store_true", help="print the names of cells and stop")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="to run seeds in parts")
    parser.add_argument("--excess", type=int, default=10, help="components that are too many")
    parser.add_argument("--delta", type=float, default=DELTA)
    parser.add_argument(
        "--models", type=lambda s: s.split(","), default=list(MODELS), help=", ".join(MODELS)
    )
    parser.add_argument("--time-limit", type=float, default=900.0, help="seconds for each release")
    parser.add_argument("--json", type=Path, help="file for results, written after every cell")
    args = parser.parse_args(argv)
    unknown = set(args.models) - set(MODELS)
    if unknown:
        parser.error(f"unknown models {sorted(unknown)}; there are {', '.join(MODELS)}")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the cells that were asked for, print, write."""
    args = parsed(argv)
    cells = [cell for cell in CELLS if re.search(args.only, cell.name)]
    if args.list:
        print("\n".join(cell.name for cell in cells))
        return
    results: list[Result] = []
    skipped: list[str] = []
    with threadpool_limits(1):
        for cell in cells:
            result = run_cell(cell, args)
            if result is None:
                skipped.append(cell.name)
                print(f"{cell.name} skipped: no such data set in {args.data}", file=sys.stderr)
            else:
                results.append(result)
            if args.json:
                write(args.json, results, skipped, args)
    print(table(results))
    if skipped:
        print(f"skipped, as their data sets are absent: {', '.join(skipped)}")


if __name__ == "__main__":
    main()
