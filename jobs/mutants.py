"""Mutation testing: small changes of the code that the guarantee rests on, one at a time.

    python jobs/mutants.py [--sample N] [--seed S] [--module NAME] [--jobs J]

Each mutant changes one operator, comparison or constant in a copy of the checkout, and the tests
of its module are run. One that no test notices survives and is printed: a test is missing, or the
change does not matter. docs/mutation.md has the last score and what was left. Without --sample all
are run, which takes hours.
"""

from __future__ import annotations

import argparse
import ast
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TESTS: dict[str, list[str]] = {
    "privacy/sensitivity.py": ["privacy/test_sensitivity.py", "privacy/test_bins.py"],
    "privacy/measure.py": ["privacy/test_gate.py", "privacy/test_exactness.py"],
    "privacy/exact.py": ["privacy/test_exactness.py"],
    "privacy/query.py": ["privacy/test_planted_bugs.py", "privacy/test_stored_queries.py"],
    "privacy/accounting.py": ["privacy/test_accounting.py"],
    "privacy/rounded_gaussian.py": [
        "privacy/test_rounded_gaussian.py",
        "privacy/test_rounded_gaussian_distribution.py",
    ],
    "data/lattice.py": ["unit/data/test_lattice.py"],
    "data/unit_rows.py": ["privacy/test_privacy_units.py"],
    "data/codes.py": ["unit/data/test_codes.py", "privacy/test_bins.py"],
    "passes/kernel.py": ["unit/passes/test_kernel.py", "privacy/test_sensitivity.py"],
    "budget/composition.py": ["unit/budget/test_ledger_accounts.py"],
    "budget/balance.py": ["unit/budget/test_balance.py"],
    "budget/period.py": ["unit/budget/test_ledger_period.py"],
    "budget/rounding.py": ["unit/budget/test_balance.py"],
}
OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
SECONDS = 900


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    module: str
    place: int
    """Which node of the module, in the order of `ast.walk`."""
    change: int
    """Which of the changes that the node allows."""

    def build(self) -> tuple[str, str]:
        """The changed source, and what was changed, for people."""
        tree = ast.parse((ROOT / "dpgmm_dist" / self.module).read_text())
        node: Any = next(n for i, n in enumerate(ast.walk(tree)) if i == self.place)
        before = ast.unparse(node)
        _apply(node, self.change)
        told = f"{self.module}:{node.lineno}: {before}  ->  {ast.unparse(node)}"
        return ast.unparse(tree), told


def mutants(module: str) -> Iterator[Mutant]:
    """All mutants of a module of the package."""
    tree = ast.parse((ROOT / "dpgmm_dist" / module).read_text())
    types = _annotations(tree)
    for place, node in enumerate(ast.walk(tree)):
        for change in range(0 if id(node) in types else _changes(node)):
            yield Mutant(module, place, change)


def _annotations(tree: ast.Module) -> set[int]:
    """The nodes that are in types, which nothing evaluates."""
    types = [
        getattr(node, name)
        for node in ast.walk(tree)
        for name in ("annotation", "returns")
        if getattr(node, name, None) is not None
    ]
    return {id(node) for kind in types for node in ast.walk(kind)}


def _changes(node: ast.AST) -> int:
    """How many ways there are to change a node."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        return int(type(node.op) in OPERATORS)
    if isinstance(node, ast.Compare):
        return sum(type(op) in OPERATORS for op in node.ops)
    if isinstance(node, ast.UnaryOp):
        return int(isinstance(node.op, ast.Not | ast.USub))
    if isinstance(node, ast.Constant):
        return int(type(node.value) in (int, float, bool))
    return 0


def _apply(node: Any, change: int) -> None:
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        node.op = OPERATORS[type(node.op)]()
    elif isinstance(node, ast.Compare):
        places = [i for i, op in enumerate(node.ops) if type(op) in OPERATORS]
        node.ops[places[change]] = OPERATORS[type(node.ops[places[change]])]()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node.op = ast.UAdd()
    elif isinstance(node, ast.UnaryOp):
        node.operand = ast.UnaryOp(ast.Not(), node.operand)
    elif isinstance(node, ast.Constant):
        node.value = (not node.value) if isinstance(node.value, bool) else node.value + 1


def survives(mutant: Mutant) -> bool:
    """Whether the tests of its module pass with the mutant in place of the module."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        for part in ("dpgmm_dist", "tests", "pyproject.toml"):
            copying = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copying(ROOT / part, folder / part)
        (folder / "dpgmm_dist" / mutant.module).write_text(mutant.build()[0])
        tests = [f"tests/{test}" for test in TESTS[mutant.module]]
        options = ["-x", "-q", "-n0", "-p", "no:cacheprovider", "-m", "not slow"]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *options, *tests],
                cwd=folder,
                env={"PYTHONPATH": name, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False  # a mutant that never ends is noticed
        return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, help="so many of them, chosen by --seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--module", choices=TESTS, help="of one module alone")
    parser.add_argument("--jobs", type=int, default=1)
    chosen = parser.parse_args()
    modules = [chosen.module] if chosen.module else list(TESTS)
    found = [mutant for module in modules for mutant in mutants(module)]
    total = len(found)
    if chosen.sample is not None and chosen.sample < total:
        found = random.Random(chosen.seed).sample(found, chosen.sample)
    left = noticed = 0
    with ThreadPoolExecutor(chosen.jobs) as pool:
        for mutant, alive in zip(found, pool.map(survives, found), strict=True):
            left, noticed = left + alive, noticed + (not alive)
            if alive:
                print(f"survives: {mutant.build()[1]}", flush=True)
    share = noticed / max(noticed + left, 1)
    print(f"{noticed} of {noticed + left} mutants noticed ({share:.0%}), of {total} that there are")


if __name__ == "__main__":
    main()
