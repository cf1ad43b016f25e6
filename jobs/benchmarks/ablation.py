"""How much each part of the method contributes: releases with one part left out.

    python jobs/benchmarks/ablation.py [--sets overlapping] [--epsilons 1] [--seeds 2]

The data are the known mixtures of density.py, from other seeds (100 and up) than its results. The
gap is the KL divergence from the truth in nats per row. The noise is insecure and repeatable: it is
the same for every line of the table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import density
import numpy as np
from mixtures import RECIPES
from threadpoolctl import threadpool_limits

from dpgmm_dist.model import allocation
from dpgmm_dist.model.fitting import cells
from dpgmm_dist.model.pass_plan import PassPlan

FIRST_SEED = 100
PREFIX = "dpgmm_dist.model."
_PLAN = cells._plan


def _without_second(*arguments: Any) -> PassPlan:
    """A cells pass without second moments, whose budget goes to counts and sums."""
    return _PLAN(*arguments[:-1], False)


WITHOUT: dict[str, dict[str, Any]] = {
    "all of it": {},
    "joint fit (each pass alone, matched)": {
        "fitting.joint_fit.MOST_PARAMETERS": 0,
        "fitting.initialisation.MOST_PARAMETERS": 0,
    },
    "second moments of cells": {"fitting.cells._plan": _without_second},
    "over-seeding (8 cells)": {"fitting.cells._CELLS": 8, "fitting.cells._CELLS_TOGETHER": 8},
    "many starts": {
        "fitting.initialisation._RESTARTS": 1,
        "fitting.initialisation._CLUSTERINGS": 1,
        "fitting.initialisation._MOMENT_FITS": 1,
    },
    "moves out of wrong optima": {"fitting.split_merge._MOST_MOVES": 0},
    "clipping (sqrt(p) + 2)": {"fitting.components.component_radius": allocation.whitened_radius},
    "mild clipping (a fifth of the rows)": {"allocation.CLIPPED": 0.2},
    "KL split (even)": {},
}
"""The parts by the names that docs/method.md and --without use, and the names in `dpgmm_dist.model`
that are replaced to leave a part out. "all of it" leaves out nothing."""


def gap(name: str, seed: int, epsilon: float, without: str) -> float:
    """KL divergence of one release from the truth, in nats per row."""
    arguments = argparse.Namespace(insecure_seeds=True)
    case = density.known_case(RECIPES[name], seed)
    allocation_name = "even" if without.startswith("KL") else "kl"
    with ExitStack() as stack:
        for path, value in WITHOUT[without].items():
            stack.enter_context(patch(PREFIX + path, value))
        return case.gap(density.released(case, epsilon, allocation_name, arguments))[0]


def lines(args: argparse.Namespace) -> Iterator[str]:
    """The lines of the table."""
    yield f"{'data':12} {'epsilon':>7} {'without':38} {'mean gap':>9} {'worst':>9} seeds"
    for name in args.sets:
        for epsilon in args.epsilons:
            for without in args.without:
                gaps = [
                    gap(name, FIRST_SEED + seed, epsilon, without) for seed in range(args.seeds)
                ]
                yield (
                    f"{name:12} {epsilon:7g} {without:38} {np.mean(gaps):9.4f} {max(gaps):9.4f} "
                    f"{len(gaps):5}"
                )


def main() -> None:
    """Release, score and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", type=lambda s: s.split(","), default=["overlapping"])
    parser.add_argument(
        "--epsilons", type=lambda s: [float(e) for e in s.split(",")], default=[1.0]
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--without", type=lambda s: s.split(";"), default=list(WITHOUT))
    args = parser.parse_args()
    with threadpool_limits(1):
        for line in lines(args):
            print(line)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
