"""How the error of a release falls with rows and separation: the experiment of docs/method.md.

    python jobs/benchmarks/recovery.py [--rows 10000,30000,100000,300000] [--apart 1,2,4]

The data are three Gaussians in four dimensions. "apart" multiplies the distances at which the true
posterior misassigns 4.5% of the rows. The gap is the KL divergence from the truth in nats per row;
"no noise" is that of a fit to the same rows without noise.
"""

from __future__ import annotations

import argparse

import density
import numpy as np
from mixtures import Recipe
from threadpoolctl import threadpool_limits

WIDTH, COMPONENTS = 4, 3


def gaps(rows: int, apart: float, seed: int, epsilon: float) -> tuple[float, float]:
    """KL divergence from the truth of a release, and of a fit without noise."""
    case = density.known_case(Recipe("recovery", rows, WIDTH, COMPONENTS, apart=apart), seed)
    arguments = argparse.Namespace(insecure_seeds=True)
    released = density.released(case, epsilon, "kl", arguments)
    return case.gap(released)[0], case.gap(case.fitted.log_prob(case.fresh))[0]


def main() -> None:
    """Release, score and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--rows",
        type=lambda s: [int(r) for r in s.split(",")],
        default=[10_000, 30_000, 100_000, 300_000],
    )
    parser.add_argument(
        "--apart", type=lambda s: [float(a) for a in s.split(",")], default=[1.0, 2.0, 4.0]
    )
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    print(f"{'apart':>5} {'rows':>7} {'mean gap':>9} {'worst':>9} {'no noise':>9} seeds")
    with threadpool_limits(1):
        for apart in args.apart:
            for rows in args.rows:
                runs = [gaps(rows, apart, seed, args.epsilon) for seed in range(args.seeds)]
                released, plain = np.array(runs).T
                print(
                    f"{apart:5g} {rows:7} {released.mean():9.5f} {released.max():9.5f} "
                    f"{plain.mean():9.5f} {len(runs):5}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
