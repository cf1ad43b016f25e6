"""Accuracy on real test rows of a network that is trained only on rows sampled from a release.

    python jobs/benchmarks/classify.py [--data build/data] [--epsilons 1,3,10] [--seeds 3]

A release has a mixture for each label. As many rows are sampled as the release counts (five times
as many of the mails, which are few). A network with 256 hidden units (batches of 256, Adam) trains
for a fixed number of epochs. Releases run in memory, with the strategy, kernel, privacy gate and
accounting of the package. Prints a table and writes build/bench/classify.json. Noise is private
unless --insecure-seeds makes runs repeatable.
With --validation the test split is not read, and a tenth of the training rows takes its place. With
--folds 10 each tenth of them does in turn, and the accuracy is that of all ten releases together.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import classify_baselines as baselines
import numpy as np
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from dpgmm_dist.artifact.receipt import budget_rho
from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.evaluate.classify import classifier_accuracy, majority_accuracy
from dpgmm_dist.model.pass_plan import Latent, Observed, PassPlan
from dpgmm_dist.model.problem import Fitted, Problem
from dpgmm_dist.model.strategy import fit
from dpgmm_dist.passes.kernel import Kernel
from dpgmm_dist.pipeline.compile import compile_pass, observe
from dpgmm_dist.privacy.measure import measure
from dpgmm_dist.privacy.noise import NoiseSource, insecure_noise, noise_source
from dpgmm_dist.privacy.sensitivity import query_cost

SETS = ("fashion_scatter128", "fashion_effnet128", "spamassassin_minilm384")
# Chosen by cross-validation on training rows.
EPOCHS = {"fashion_scatter128": 20, "fashion_effnet128": 20, "spamassassin_minilm384": 5}
TIMES = {"spamassassin_minilm384": 5}
"""Rows that are sampled for each one that the release counts; a small set needs more."""
DELTA = 1e-5
NORM = 1.0
BLOCK = 16_384
SPLIT_SEED = 0


class Rows:
    """Rows in memory that answer plans as a session does, and add up the cost."""

    def __init__(
        self, X: np.ndarray, y: np.ndarray, noise: NoiseSource, features: FeatureMap | None = None
    ) -> None:
        self.features = features or FeatureMap(X.shape[1], NORM)
        self.u, _ = self.features.to_lattice(X)
        self.y, self.noise, self.rho = y, noise, 0.0

    def ask(self, plan: PassPlan, latent: Latent) -> Observed:
        """Answer one plan through the kernel and the privacy gate."""
        query = compile_pass(plan, latent, self.features.step)
        self.rho += float(query_cost(query))
        kernel = Kernel(query)
        total = kernel.start()
        for start in range(0, len(self.u), BLOCK):
            rows = slice(start, start + BLOCK)
            kernel.accumulate(total, self.u[rows], self.y[rows])
        noisy = measure(total.finish(), query, self.noise)
        return observe(query, noisy, latent, self.features.step)


def load(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, d) float32 and labels (n,) of one split."""
    table = pq.read_table(folder / f"{split}.parquet")
    column = table["embedding"].combine_chunks()
    X = np.asarray(column.flatten(), dtype=np.float32).reshape(len(table), -1)
    return X, np.asarray(table["label"], dtype=np.int64)


def splits(folder: Path, args: argparse.Namespace) -> list[tuple[np.ndarray, ...]]:
    """(X, y, test_X, test_y) of each split; with --validation or --folds, of training rows only."""
    X, y = load(folder, "train")
    if not args.validation and not args.folds:
        return [(X, y, *load(folder, "test"))]
    order = np.random.default_rng(SPLIT_SEED).permutation(len(X))
    tests = np.array_split(order, args.folds) if args.folds else [order[: len(X) // 10]]
    trains = [np.setdiff1d(order, test, assume_unique=True) for test in tests]
    return [
        (X[train], y[train], X[test], y[test]) for train, test in zip(trains, tests, strict=True)
    ]


def sampled(fitted: Fitted, seed: int, times: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """``times`` as many rows as the release counts, in feature units, and their labels."""
    rows, component = fitted.mixture.sample(max(round(times * fitted.rows), 2), seed)
    return fitted.latent.to_features(rows), fitted.mixture.label_index[component]


def release(
    X: np.ndarray, y: np.ndarray, epsilon: float, noise: NoiseSource, args: argparse.Namespace
) -> tuple[Fitted, float]:
    """A released mixture, and the rho that it cost."""
    rho = args.rho or budget_rho(epsilon, DELTA, noise.accounting)
    rows = Rows(X, y, noise)
    problem = Problem(
        width=X.shape[1],
        norm=NORM,
        rho=rho * (1 - 1e-9),  # the parts of a budget add up to it only up to rounding
        label_values=tuple(range(int(y.max()) + 1)),
        components=args.components if args.components == "auto" else int(args.components),
        assignment="hard",
    )
    fitted = fit(problem, rows.ask)
    if rows.rho > rho:
        raise SystemExit(f"the release cost rho {rows.rho}, more than its budget {rho}")
    return fitted, rows.rho


def noise_of(args: argparse.Namespace, seed: int) -> NoiseSource:
    """The noise of --noise, repeatable with --insecure-seeds."""
    if args.insecure_seeds:
        return insecure_noise(args.noise, seed)
    return noise_source(args.noise)


class Results:
    """The accuracies, written to a file after each one."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.lines = args, list[dict[str, Any]]()
        self.start = time.perf_counter()

    def record(
        self, data: str, method: str, epsilon: float | None, seed: int, accuracy: float
    ) -> None:
        """Record an accuracy. Its time is that since the one before it."""
        line = {
            "data": data,
            "method": method,
            "epsilon": epsilon,
            "delta": DELTA,
            "seed": seed,
            "accuracy": round(100 * accuracy, 2),
            "epochs": epochs_of(data, self.args),
            "times": self.args.times or TIMES.get(data, 1),
            "seconds": round(time.perf_counter() - self.start, 1),
        }
        self.start = time.perf_counter()
        self.lines.append(line)
        print(f"{data} {method} eps={epsilon} seed={seed} {100 * accuracy:.2f}", file=sys.stderr)
        names = ("validation", "folds", "insecure_seeds", "noise")
        shared = {name: getattr(self.args, name) for name in names}
        self.args.output.parent.mkdir(parents=True, exist_ok=True)
        self.args.output.write_text(json.dumps({**shared, "results": self.lines}, indent=1) + "\n")


def epochs_of(name: str, args: argparse.Namespace) -> int:
    """Number of epochs of the network for a data set."""
    return int(args.epochs or EPOCHS.get(name, 20))


def run_releases(name: str, args: argparse.Namespace, results: Results) -> None:
    """Train networks on rows sampled from releases, one for each seed and fold."""
    folds = splits(args.data / name, args)
    epochs = epochs_of(name, args)
    for epsilon in args.epsilons:
        for seed in range(args.seeds):
            correct = total = 0.0
            for fold, (X, y, test_X, test_y) in enumerate(folds):
                fitted, _ = release(X, y, epsilon, noise_of(args, len(folds) * seed + fold), args)
                rows = sampled(fitted, seed, args.times or TIMES.get(name, 1))
                accuracy = classifier_accuracy(*rows, test_X, test_y, epochs=epochs, seed=seed)
                correct, total = correct + accuracy * len(test_y), total + len(test_y)
            results.record(name, "dpgmm", epsilon, seed, correct / total)


def run_baselines(name: str, args: argparse.Namespace, results: Results) -> None:
    """Run all other methods on the same rows with the same network."""
    X, y, test_X, test_y = splits(args.data / name, args)[0]
    epochs = epochs_of(name, args)

    def network(rows: np.ndarray, labels: np.ndarray, seed: int) -> float:
        return classifier_accuracy(rows, labels, test_X, test_y, epochs=epochs, seed=seed)

    results.record(name, "majority", None, 0, majority_accuracy(y, test_y))
    results.record(name, "network on real rows, not private", None, 0, network(X, y, 0))
    rows = baselines.unperturbed(X, y)
    results.record(name, "mixture without noise, not private", None, 0, network(*rows, 0))
    for epsilon in args.epsilons:
        for seed in range(args.seeds):
            noise = noise_of(args, seed)
            rho = args.rho or budget_rho(epsilon, DELTA, noise.accounting)
            task = baselines.Task(Rows(X, y, noise).ask, X, y, test_X, test_y, rho, seed)
            for method, run in baselines.PRIVATE.items():
                outcome = run(task)
                accuracy = outcome if isinstance(outcome, float) else network(*outcome, seed)
                results.record(name, method, epsilon, seed, accuracy)


def table(results: list[dict[str, Any]]) -> str:
    """Mean and worst accuracy over seeds, one line for each data set, method and epsilon."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for result in results:
        key = (result["data"], result["method"], result["epsilon"])
        groups.setdefault(key, []).append(result["accuracy"])
    lines = [f"{'data':24} {'method':38} {'epsilon':>7} {'mean':>6} {'worst':>6} seeds"]
    for (data, method, epsilon), values in groups.items():
        shown = "-" if epsilon is None else f"{epsilon:g}"
        lines.append(
            f"{data:24} {method:38} {shown:>7} {np.mean(values):6.2f} {min(values):6.2f} "
            f"{len(values):5}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the methods, print the table and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/data"))
    parser.add_argument("--sets", type=lambda s: s.split(","), default=list(SETS))
    parser.add_argument(
        "--epsilons", type=lambda s: [float(e) for e in s.split(",")], default=[1.0, 3.0, 10.0]
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--components", default="auto")
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--rho", type=float, default=None, help="zCDP budget, in place of epsilon")
    parser.add_argument("--validation", action="store_true", help="do not read the test split")
    parser.add_argument("--folds", type=int, default=0, help="cross-validate on training rows")
    parser.add_argument("--times", type=int, default=None, help="rows sampled for each one counted")
    parser.add_argument("--insecure-seeds", action="store_true", help="repeatable, NOT PRIVATE")
    parser.add_argument("--no-baselines", action="store_true", help="run releases only")
    parser.add_argument("--no-releases", action="store_true", help="run baselines only")
    parser.add_argument(
        "--noise", choices=("auto", "gaussian", "discrete_gaussian"), default="auto"
    )
    parser.add_argument("--output", type=Path, default=Path("build/bench/classify.json"))
    args = parser.parse_args()
    results = Results(args)
    with threadpool_limits(1):
        for name in [] if args.no_releases else args.sets:
            run_releases(name, args, results)
        for name in [] if args.no_baselines or args.folds else args.sets:
            run_baselines(name, args, results)
    print(table(results.lines))


if __name__ == "__main__":
    main()
