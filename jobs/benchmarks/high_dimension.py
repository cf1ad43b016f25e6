"""Gap to the truth of releases of known mixtures in many dimensions, one line for each seed.

    python jobs/benchmarks/high_dimension.py [--rows 300000] [--width 32] [--components 10]

The mixtures are drawn as in density.py: "overlapping" (4.5% of the rows are misassigned by the true
posterior), and "separated" with means twice as far apart. Epsilon is 1, delta 1e-6, the noise is
insecure and repeatable, and seeds start at 100.
"""

from __future__ import annotations

import argparse
import sys

import density
from mixtures import Recipe
from threadpoolctl import threadpool_limits


def main() -> None:
    """Release, score and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--components", type=int, default=10)
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    args.insecure_seeds = True
    print(f"{'data':12} {'seed':>4} {'gap':>8} {'without privacy':>15}")
    for name, apart in (("overlapping", 1.0), ("separated", 2.0)):
        recipe = Recipe(name, args.rows, args.width, args.components, apart=apart)
        for seed in range(100, 100 + args.seeds):
            case = density.known_case(recipe, seed)
            with threadpool_limits(1):
                gap, _ = case.gap(density.released(case, args.epsilon, "kl", args))
            plain, _ = case.gap(case.fitted.log_prob(case.fresh))
            print(f"{name:12} {seed:4} {gap:8.4f} {plain:15.4f}")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
