"""Mutants: a change of the code is noticed where a test looks, and survives where none does."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from .scripts import ROOT, script

mutations = script("mutations")
SOURCE = '''
"""Sums."""
LIMIT = 3


@cached(7)
def bounded(x: "int < 5", y):
    if x < LIMIT or y:
        raise ValueError(f"{x + 1} is wrong")
    return min(x, -y) + np.floor(2)
'''


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """What each mutant of the source changes."""
    (tmp_path / "module.py").write_text(SOURCE)
    monkeypatch.setattr(mutations, "PACKAGE", tmp_path)
    return [
        (one.function, one.build()[1].partition(": ")[2]) for one in mutations.mutants("module.py")
    ]


def test_operators_comparisons_constants_and_names_are_changed(changed):
    assert sorted(changed) == [
        (0, "3  ->  4"),
        (6, "-y  ->  +y"),
        (6, "2  ->  3"),
        (6, "min  ->  max"),
        (6, "min(x, -y) + np.floor(2)  ->  min(x, -y) - np.floor(2)"),
        (6, "np.floor  ->  np.ceil"),
        (6, "x < LIMIT  ->  x <= LIMIT"),
        (6, "x < LIMIT or y  ->  x < LIMIT and y"),
    ]


def test_types_decorators_and_messages_are_left_alone(changed):
    assert not any("7" in text or "5" in text or "wrong" in text for _, text in changed)


def test_each_module_has_tests_that_exist():
    tree = ast.parse((ROOT / "jobs" / "mutants.py").read_text())
    (tests,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "TESTS"
    ]
    for module, names in tests.items():
        assert (ROOT / "dpgmm_dist" / module).is_file()
        assert names
        assert all((ROOT / "tests" / name).is_file() for name in names)
    privacy = {f"privacy/{path.name}" for path in (ROOT / "dpgmm_dist" / "privacy").glob("*.py")}
    assert privacy - {"privacy/__init__.py"} <= set(tests)


@pytest.mark.slow
def test_all_mutants_of_a_small_module_are_noticed():
    command = [sys.executable, "jobs/mutants.py", "--module", "budget/period.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if "`budget/period.py`" in line]
    assert row.endswith("| 3 | 3 | 3 (100%) | 0 |")
