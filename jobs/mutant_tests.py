"""The tests that mutants are tried by: which lines of the changed modules each of them runs."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import Phase, settings
from mutations import PACKAGE, Mutant

ROOT = PACKAGE.parent
TESTS: dict[str, list[str]] = {
    "privacy/accounting.py": ["privacy/test_accounting.py"],
    "privacy/exact.py": ["privacy/test_exactness.py"],
    "privacy/gaussian_cell.py": [
        "privacy/test_rounded_gaussian.py",
        "privacy/test_sampler_enclosure.py",
    ],
    "privacy/keystream.py": ["privacy/test_rounded_gaussian.py", "privacy/test_noise.py"],
    "privacy/measure.py": ["privacy/test_gate.py", "privacy/test_exactness.py"],
    "privacy/noise.py": ["privacy/test_noise.py", "privacy/test_gate.py"],
    "privacy/normal_quantile.py": ["privacy/test_normal_quantile.py"],
    "privacy/normal_tail.py": ["privacy/test_normal_tail.py", "privacy/test_accounting.py"],
    "privacy/query.py": [
        "privacy/test_stored_queries.py",
        "privacy/test_sensitivity.py",
        "privacy/test_gate.py",
        "privacy/test_scores.py",
        "privacy/test_bins.py",
        "unit/data/test_lattice.py",
    ],
    "privacy/rounded_gaussian.py": [
        "privacy/test_rounded_gaussian.py",
        "privacy/test_rounded_gaussian_distribution.py",
    ],
    "privacy/sensitivity.py": [
        "privacy/test_sensitivity.py",
        "privacy/test_bins.py",
        "privacy/test_scores.py",
    ],
    "passes/kernel.py": [
        "unit/passes/test_kernel.py",
        "privacy/test_sensitivity.py",
        "privacy/test_scores.py",
        "privacy/test_bins.py",
    ],
    "passes/unit_tasks.py": ["privacy/test_privacy_units.py"],
    "data/lattice.py": ["unit/data/test_lattice.py"],
    "data/codes.py": ["unit/data/test_codes.py", "privacy/test_bins.py"],
    "data/unit_rows.py": ["privacy/test_privacy_units.py"],
    "data/unit_values.py": ["unit/data/test_unit_values.py", "privacy/test_privacy_units.py"],
    "budget/balance.py": ["unit/budget/test_balance.py", "unit/budget/test_ledger_accounts.py"],
    "budget/composition.py": ["unit/budget/test_ledger_accounts.py"],
    "budget/period.py": ["unit/budget/test_ledger_period.py"],
    "budget/rounding.py": ["unit/budget/test_balance.py"],
}
"""The modules that are changed, and the tests of each."""
_CACHED = type(lru_cache(len))
Lines = dict[str, list[int]]
"""For each module the lines in its functions that were run."""


@dataclass(eq=False)
class Recorder:
    """A plugin of pytest: the lines that each test runs, and its time."""

    lines: dict[str, Lines] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    _seen: dict[str, set[int]] = field(
        default_factory=lambda: {str(PACKAGE / module): set() for module in TESTS}
    )

    def _trace(self, frame: FrameType, event: str, value: object) -> Any:
        code = frame.f_code
        if code.co_filename in self._seen and code.co_flags & inspect.CO_OPTIMIZED:  # a function
            self._seen[code.co_filename].add(frame.f_lineno)
            return self._trace
        return None

    def start(self) -> None:
        for lines in self._seen.values():
            lines.clear()
        clear_caches()
        threading.settrace(self._trace)
        sys.settrace(self._trace)

    def stop(self) -> Lines:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]  # None ends it
        return {module: sorted(self._seen[str(PACKAGE / module)]) for module in TESTS}

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Iterator[None]:
        self.start()
        try:
            return (yield)
        finally:
            self.lines[""] = self.stop()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.start()
        start = time.process_time()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.process_time() - start
            self.lines[item.nodeid] = self.stop()


def clear_caches() -> None:
    """Of the changed modules, so that a test runs what it uses, although one before it did."""
    for module in TESTS:
        found = sys.modules.get("dpgmm_dist." + module.removesuffix(".py").replace("/", "."))
        for value in list(vars(found).values()) if found else []:
            if isinstance(value, _CACHED):
                value.cache_clear()


def run_pytest(files: list[str], plugin: object) -> int:
    """In this process, quietly; failing examples are not made smaller."""
    options = ["-x", "-qq", "-s", "--no-summary", "-m", "not slow"]
    options += ["-p", "no:cacheprovider", "-p", "no:xdist"]
    return int(pytest.main([*options, *files], plugins=[plugin, _NoShrinking()]))


class _NoShrinking:
    """A plugin of pytest: hypothesis only looks for a failing example."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", settings.get_profile("dpgmm"), phases=phases)
        settings.load_profile("mutants")


class Tests:
    """What each test runs, and in what time."""

    def __init__(self, results: Path, modules: list[str]) -> None:
        """Run the test files that are new or changed since the last time."""
        path = results / "lines.json"
        stored = json.loads(path.read_bytes()) if path.exists() else {}
        code = b"".join((PACKAGE / module).read_bytes() for module in TESTS)
        self.files = sorted({f"tests/{name}" for module in modules for name in TESTS[module]})
        for name in self.files:
            digest = hashlib.sha256(code + (ROOT / name).read_bytes()).hexdigest()
            if stored.get(name, {}).get("digest") != digest:
                print(f"recording {name}", flush=True)
                stored[name] = {"digest": digest, **_record(name, results / "recorded.json")}
                path.write_text(json.dumps(stored))
        records = [stored[name] for name in self.files]
        self.seconds: dict[str, float] = {k: v for r in records for k, v in r["seconds"].items()}
        self._lines = {
            (test, module): set(lines)
            for record in records
            for test, modules in record["lines"].items()
            for module, lines in modules.items()
            if test
        }
        self._noticed: Counter[tuple[str, str]] = Counter()
        self._at_import = {
            module: {line for record in records for line in record["lines"][""][module]}
            for module in TESTS
        }

    def at_import(self, mutant: Mutant) -> bool:
        """Whether the changed code runs when modules or tests are imported."""
        return not mutant.function or not self._at_import[mutant.module].isdisjoint(mutant.lines)

    def chosen(self, mutant: Mutant, most: float) -> list[str]:
        """The tests that run the changed statement, up to ``most`` seconds of them.

        First those of the module, then those of others: quick ones, and those that have noticed
        many mutants of the module.
        """
        of_module = tuple(f"tests/{name}::" for name in TESTS[mutant.module])
        found = [
            test
            for (test, module), lines in self._lines.items()
            if module == mutant.module
            and (lines if self.at_import(mutant) else not lines.isdisjoint(mutant.lines))
        ]

        def order(test: str) -> tuple[bool, float, str]:
            price = self.seconds[test] / (1 + self._noticed[mutant.module, test])
            return not test.startswith(of_module), price, test

        chosen, total = [], 0.0
        for test in sorted(found, key=order):
            total += self.seconds[test]
            if chosen and total > most:
                break
            chosen.append(test)
        return chosen

    def notices(self, mutant: Mutant, test: str) -> None:
        """Remember that this test noticed a mutant."""
        self._noticed[mutant.module, test] += 1

    @property
    def noticing(self) -> list[str]:
        """The tests that have noticed a mutant."""
        return sorted({test for _, test in self._noticed})


def _record(name: str, passed: Path) -> dict[str, Any]:
    """What the tests of a file run, found in a fork, which ends with what it imported."""
    if (process := os.fork()) == 0:
        recorder = Recorder()
        code = run_pytest([name], recorder)
        passed.write_text(json.dumps({"lines": recorder.lines, "seconds": recorder.seconds}))
        os._exit(code)
    if os.waitpid(process, 0)[1]:
        sys.exit(f"{name} fails without any mutant")
    return dict(json.loads(passed.read_bytes()))
