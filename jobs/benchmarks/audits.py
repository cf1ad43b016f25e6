"""What an audit shows of epsilon, for each kind of job at three budgets: the table of the docs.

    python jobs/benchmarks/audits.py [--job NAME] [--epsilon E] [--draws N]

By default all jobs, with as many draws as each needs. Seconds are those of the processor.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from dpgmm_dist.audit.run import audit
from dpgmm_dist.spec.release_spec import ReleaseSpec

JOBS: dict[str, dict[str, Any]] = {
    "embeddings of 8, three labels": {
        "dataset": {"features": "x", "width": 8, "label": "y", "labels": ["a", "b", "c"]},
        "bounds": {"norm": 1.0},
    },
    "table of 3, bounds given": {
        "dataset": {"features": ["age", "income", "hours"]},
        "bounds": {"columns": {"age": [0, 100], "income": [0, 2e5], "hours": [0, 80]}},
    },
    "persons of up to 4 rows": {
        "dataset": {
            "features": "x",
            "width": 3,
            "privacy_unit": {"column": "user", "max_rows": 4},
        },
        "bounds": {"norm": 1.0},
    },
    "table of 2, bounds found": {
        "dataset": {"features": ["age", "income"]},
        "bounds": {"columns": "auto"},
    },
    "categories and empty cells": {
        "dataset": {
            "features": ["age"],
            "categories": {"sex": ["f", "m"], "grade": [1, 2, 3]},
            "nulls": "model",
        },
        "bounds": {"columns": {"age": [0, 100]}},
    },
    "persons of up to 4 rows of a table, bounds found": {
        "dataset": {
            "features": ["age", "income"],
            "privacy_unit": {"column": "user", "max_rows": 4},
        },
        "bounds": {"columns": "auto"},
    },
}
EPSILONS = (0.5, 1.0, 4.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", choices=JOBS, action="append", help="of these alone")
    parser.add_argument("--epsilon", type=float, action="append", help="of these alone")
    parser.add_argument("--draws", type=int)
    options = parser.parse_args()
    print("| job | epsilon | shown at 95% | share | moved | draws a side | refuted | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.job or JOBS:
        sections = JOBS[name]
        for epsilon in options.epsilon or EPSILONS:
            document = {key: dict(value) for key, value in sections.items()}
            document["dataset"]["path"] = "made up"
            document["privacy"] = {"epsilon": epsilon, "delta": 1e-6}
            document["model"] = {"components": 1}
            start = time.process_time()
            found = audit(ReleaseSpec.from_dict(document), draws=options.draws)
            worst = found.worst
            print(
                f"| {name} | {epsilon:g} | {worst.shown_epsilon:.3g} | {worst.share:.0%} "
                f"| {worst.moved:.2%} | {found.draws:,} | {len(found.refuted)} "
                f"| {time.process_time() - start:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
