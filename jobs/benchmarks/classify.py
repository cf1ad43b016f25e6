"""Accuracy on real test rows of a network trained only on rows sampled from a release.

    python jobs/benchmarks/classify.py [--data build/data] [--epsilons 1,3,10] [--seeds 3]

One mixture per class; as many rows are sampled as the released counts say; a network of 256
hidden units (batches of 256, Adam) trains for a stated number of epochs. Every release runs the
real strategy through the real kernel, gate and accounting, in memory. Prints a table, writes
build/bench/classify.json. Noise is private unless --insecure-seeds makes runs repeatable.
With --validation the test split is never read: a slice of the training rows takes its place.
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
from dpgmm_dist.model.plan import Latent, Observed, PassPlan
from dpgmm_dist.model.problem import Fitted, Problem
from dpgmm_dist.model.strategy import fit
from dpgmm_dist.passes.kernel import Kernel
from dpgmm_dist.privacy.measure import measure
from dpgmm_dist.privacy.noise import NoiseSource, insecure_noise, noise_source
from dpgmm_dist.privacy.sensitivity import query_cost
from dpgmm_dist.translate import compile_pass, observe

SETS = ("fashion_scatter128", "fashion_effnet128", "spamassassin_minilm384")
# Chosen on validation slices: small sets need more passes over fewer rows.
EPOCHS = {"fashion_scatter128": 20, "fashion_effnet128": 20, "spamassassin_minilm384": 30}
DELTA = 1e-5
NORM = 1.0
BLOCK = 16_384
SPLIT_SEED = 0


class Rows:
    """Rows in memory that answer plans as a session would, and count what that costs."""

    def __init__(self, X: np.ndarray, y: np.ndarray, noise: NoiseSource) -> None:
        self.features = FeatureMap(X.shape[1], NORM)
        self.u, _ = self.features.to_lattice(X)
        self.y, self.noise, self.rho = y, noise, 0.0

    def ask(self, plan: PassPlan, latent: Latent) -> Observed:
        """Answer one plan through the kernel and the gate."""
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


def splits(folder: Path, validation: bool) -> tuple[np.ndarray, ...]:
    """Training and test rows; with ``validation`` a tenth of the training rows is the test."""
    X, y = load(folder, "train")
    if not validation:
        return (X, y, *load(folder, "test"))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(X))
    held, kept = order[: len(X) // 10], order[len(X) // 10 :]
    return X[kept], y[kept], X[held], y[held]


def sampled(fitted: Fitted, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As many rows as the release counts, in feature units, with their labels."""
    rows, component = fitted.mixture.sample(max(round(fitted.rows), 2), seed)
    return fitted.latent.to_features(rows), fitted.mixture.label_index[component]


def release(
    X: np.ndarray, y: np.ndarray, epsilon: float, noise: NoiseSource, args: argparse.Namespace
) -> tuple[Fitted, float]:
    """A released mixture and the rho it cost."""
    rho = args.rho or budget_rho(epsilon, DELTA, noise.accounting)
    # Shares of a budget add up to it but for rounding.
    spent = rho * (1 - 1e-9)
    rows = Rows(X, y, noise)
    problem = Problem(
        width=X.shape[1],
        norm=NORM,
        rho=spent,
        label_values=tuple(range(int(y.max()) + 1)),
        components=args.components if args.components == "auto" else int(args.components),
        assignment="hard",
    )
    fitted = fit(problem, rows.ask)
    if rows.rho > rho:
        raise SystemExit(f"the release cost rho {rows.rho}, more than its budget {rho}")
    return fitted, rows.rho


def noise_of(args: argparse.Namespace, seed: int) -> NoiseSource:
    """The noise that was asked for, repeatable with --insecure-seeds."""
    if args.insecure_seeds:
        return insecure_noise(args.noise, seed)
    return noise_source(args.noise)


def run_set(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """All methods on one data set."""
    X, y, test_X, test_y = splits(args.data / name, args.validation)
    epochs = args.epochs or EPOCHS.get(name, 20)
    results: list[dict[str, Any]] = []

    def network(rows: np.ndarray, labels: np.ndarray, seed: int) -> float:
        return classifier_accuracy(rows, labels, test_X, test_y, epochs=epochs, seed=seed)

    def record(method: str, epsilon: float | None, seed: int, accuracy: float, t: float) -> None:
        results.append(
            {
                "data": name,
                "method": method,
                "epsilon": epsilon,
                "delta": DELTA,
                "seed": seed,
                "accuracy": round(100 * accuracy, 2),
                "epochs": epochs,
                "seconds": round(time.perf_counter() - t, 1),
            }
        )
        print(f"{name} {method} eps={epsilon} seed={seed} {100 * accuracy:.2f}", file=sys.stderr)

    for epsilon in args.epsilons:
        for seed in range(args.seeds):
            noise = noise_of(args, seed)
            start = time.perf_counter()
            fitted, _ = release(X, y, epsilon, noise, args)
            record("dpgmm", epsilon, seed, network(*sampled(fitted, seed), seed), start)
            if args.no_baselines:
                continue
            rho = args.rho or budget_rho(epsilon, DELTA, noise.accounting)
            problem = baselines.Task(Rows(X, y, noise).ask, X, y, test_X, test_y, rho, seed)
            for method, run in baselines.PRIVATE.items():
                start = time.perf_counter()
                outcome = run(problem)
                scored = outcome if isinstance(outcome, float) else network(*outcome, seed)
                record(method, epsilon, seed, scored, start)
    if not args.no_baselines:
        start = time.perf_counter()
        record("majority", None, 0, majority_accuracy(y, test_y), start)
        record("network on real rows, not private", None, 0, network(X, y, 0), start)
        start = time.perf_counter()
        rows = baselines.unperturbed(X, y)
        record("mixture without noise, not private", None, 0, network(*rows, 0), start)
    return results


def table(results: list[dict[str, Any]]) -> str:
    """Mean and worst accuracy over seeds, one line a data set, method and epsilon."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for one in results:
        key = (one["data"], one["method"], one["epsilon"])
        groups.setdefault(key, []).append(one["accuracy"])
    lines = [f"{'data':24} {'method':38} {'epsilon':>7} {'mean':>6} {'worst':>6} seeds"]
    for (data, method, epsilon), values in groups.items():
        shown = "-" if epsilon is None else f"{epsilon:g}"
        lines.append(
            f"{data:24} {method:38} {shown:>7} {np.mean(values):6.2f} {min(values):6.2f} "
            f"{len(values):5}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/data"))
    parser.add_argument("--sets", type=lambda s: s.split(","), default=list(SETS))
    parser.add_argument(
        "--epsilons", type=lambda s: [float(e) for e in s.split(",")], default=[1.0, 3.0, 10.0]
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--components", default="auto")
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--rho", type=float, default=None, help="zCDP budget in place of epsilon's")
    parser.add_argument("--validation", action="store_true", help="never read the test split")
    parser.add_argument("--insecure-seeds", action="store_true", help="repeatable, NOT PRIVATE")
    parser.add_argument("--no-baselines", action="store_true", help="releases alone")
    parser.add_argument(
        "--noise", choices=("auto", "gaussian", "discrete_gaussian"), default="auto"
    )
    parser.add_argument("--output", type=Path, default=Path("build/bench/classify.json"))
    args = parser.parse_args()
    results: list[dict[str, Any]] = []
    with threadpool_limits(1):
        for name in args.sets:
            results += run_set(name, args)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    shared = {
        "validation": args.validation,
        "insecure_seeds": args.insecure_seeds,
        "noise": args.noise,
    }
    args.output.write_text(json.dumps({**shared, "results": results}, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
