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
        (mutant.function, mutant.build()[1].partition(": ")[2])
        for mutant in mutations.mutants("module.py")
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


CALLED = """
from functools import lru_cache

class Bound:
    @property
    def least(self):
        def inner():
            return 1
        return inner()

@lru_cache
def most(x):
    return x + 1

least = Bound.least.fget
imported = most
"""


@pytest.fixture
def called(tmp_path, monkeypatch):
    """The names of a module, and the change of each of its mutants, which is in place."""
    (tmp_path / "module.py").write_text(CALLED)
    monkeypatch.setattr(mutations, "PACKAGE", tmp_path)
    names = {}
    exec(compile(CALLED, str(tmp_path / "module.py"), "exec"), names)
    functions = [names["least"], names["most"].__wrapped__]

    def change(text):
        (code,) = [
            code
            for code, found in (mutant.build() for mutant in mutations.mutants("module.py"))
            if found.endswith(text)
        ]
        return mutations.replace(code, functions)

    return names, change


def test_whoever_holds_a_changed_function_calls_the_changed_one(called):
    names, change = called
    assert change("x + 1  ->  x - 1") == 1
    assert names["imported"](7) == 6
    assert names["Bound"]().least == 1


def test_a_function_within_a_function_is_changed(called):
    names, change = called
    assert change(":8: 1  ->  2") == 1
    assert names["Bound"]().least == 2
    assert names["imported"](7) == 8


def test_a_mutant_has_the_lines_of_its_statement_without_its_body(tmp_path, monkeypatch):
    (tmp_path / "module.py").write_text("if (1 +\n    2):\n    3\nelif 4:\n    5\n")
    monkeypatch.setattr(mutations, "PACKAGE", tmp_path)
    lines = {
        mutant.build()[1].partition(": ")[2]: mutant.lines
        for mutant in mutations.mutants("module.py")
    }
    assert lines == {
        "1 + 2  ->  1 - 2": range(1, 3),
        "1  ->  2": range(1, 3),
        "2  ->  3": range(1, 3),
        "3  ->  4": range(3, 4),
        "4  ->  5": range(4, 5),
        "5  ->  6": range(5, 6),
    }


def test_each_module_has_tests_that_exist():
    tree = ast.parse((ROOT / "jobs" / "mutant_tests.py").read_text())
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
