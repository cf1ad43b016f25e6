"""What the order in which categories are listed costs a table without labels.

    python jobs/benchmarks/category_order.py --data DIR [--orders 2] [--epsilon 1] [--components 1]

DIR holds adult, whose training rows are released without the label income: six columns of whole
numbers and eight of words. The values of each column of words are listed in the order of the
alphabet, and in random orders. Of as many sampled rows it prints the mean total variation of single
columns of words, of pairs of them, and of pairs of one with a number in 10 bins of about equally
many rows, with real test rows to compare with. "real" compares the training rows with them.
"""

from __future__ import annotations

import argparse
from itertools import combinations, product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import tables

from dpgmm_dist.artifact.load import load_release
from dpgmm_dist.artifact.sample import Sampler
from dpgmm_dist.pipeline.release import release
from dpgmm_dist.spec.release_spec import ReleaseSpec

Ints = npt.NDArray[np.int64]
Words = dict[str, list[str]]


def sampled(train: pa.Table, values: Words, epsilon: float, components: int) -> pa.Table:
    """Rows sampled from a new private release without labels."""
    spec = ReleaseSpec.from_dict(
        {
            "dataset": {
                "path": "memory",
                "features": list(tables.ADULT),
                "categories": values,
                "nulls": "model",
            },
            "bounds": {"columns": {name: [0, most] for name, most in tables.ADULT.items()}},
            "privacy": {"epsilon": epsilon, "delta": tables.DELTA},
            "model": {"components": components},
        }
    )
    with TemporaryDirectory() as folder:
        release(spec, output=f"{folder}/release", source=train)
        return Sampler.of(load_release(f"{folder}/release"), 0).table(len(train))[0]


def codes(
    rows: pa.Table, values: Words, cuts: dict[str, npt.NDArray[np.float64]]
) -> dict[str, Ints]:
    """Each column as whole numbers: the word, or the bin."""
    found = {name: np.searchsorted(edges, rows[name].to_numpy()) for name, edges in cuts.items()}
    for name, known in values.items():
        place = pc.index_in(rows[name], pa.array(known)).fill_null(len(known))
        found[name] = place.to_numpy().astype(np.int64)
    return found


def compared(
    codes_a: dict[str, Ints], codes_b: dict[str, Ints], values: Words
) -> tuple[float, ...]:
    """Total variation of words, of pairs of words, and of words with numbers."""

    def apart(*names: str) -> float:
        sizes = [max(int(codes_a[name].max()), int(codes_b[name].max())) + 1 for name in names]
        joint = (
            np.ravel_multi_index([table_codes[name] for name in names], sizes)
            for table_codes in (codes_a, codes_b)
        )
        counts = (np.bincount(code, minlength=int(np.prod(sizes))) for code in joint)
        return tables.variation(*(count.astype(np.float64) for count in counts))

    single = [apart(name) for name in values]
    pairs = [apart(*names) for names in combinations(values, 2)]
    mixed = [apart(*names) for names in product(values, tables.ADULT)]
    return tuple(float(np.mean(found)) for found in (single, pairs, mixed))


def main() -> None:
    """Run the comparison and print a line for each order."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--orders", type=int, default=2)
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--components", type=int, default=1)
    args = parser.parse_args()
    train, test, values = tables.adult(args.data / "adult")
    tenths = np.linspace(0.1, 0.9, 9)
    cuts = {name: np.unique(np.quantile(test[name].to_numpy(), tenths)) for name in tables.ADULT}
    print(f"{'':24} {'words':>7} {'pairs':>7} {'mixed':>7}")

    def say(name: str, rows: pa.Table) -> None:
        found = compared(codes(rows, values, cuts), codes(test, values, cuts), values)
        print(f"{name:24} " + " ".join(f"{value:7.4f}" for value in found), flush=True)

    say("real", train)
    say("alphabet", sampled(train, values, args.epsilon, args.components))
    for seed in range(args.orders):
        rng = np.random.default_rng(seed)
        shuffled = {name: rng.permutation(known).tolist() for name, known in values.items()}
        rows = sampled(train, shuffled, args.epsilon, args.components)
        say(f"random order {seed}", rows)


if __name__ == "__main__":
    main()
