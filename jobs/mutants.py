"""Mutation testing: small changes of the code that the guarantee rests on, one at a time.

    python jobs/mutants.py [--module NAME] [--sample N] [--seed S] [--jobs J] [--seconds T]

First the tests run once, and which functions of those modules each of them calls is recorded. Each
mutant (jobs/mutations.py) is then tried in a fork of this process, by the tests that call the
changed function, the fastest first, up to T seconds of them, until the first that fails. A
mutant that no test notices survives: a test is missing, or the change does not matter.

Results are kept in build/mutants/. The next run tries what survived, and what is in changed
modules. docs/mutation.md has the last score and what was left.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.abc
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from types import CodeType, FrameType
from typing import Any

import pytest
from hypothesis import Phase, settings
from mutations import PACKAGE, Mutant, mutants

ROOT = PACKAGE.parent
RESULTS = ROOT / "build" / "mutants"
TESTS: dict[str, list[str]] = {
    "privacy/accounting.py": ["privacy/test_accounting.py"],
    "privacy/exact.py": ["privacy/test_exactness.py"],
    "privacy/gaussian_cell.py": ["privacy/test_sampler_enclosure.py"],
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
    "budget/balance.py": ["unit/budget/test_balance.py"],
    "budget/composition.py": ["unit/budget/test_ledger_accounts.py"],
    "budget/period.py": ["unit/budget/test_ledger_period.py"],
    "budget/rounding.py": ["unit/budget/test_balance.py"],
}
"""The modules that are changed, and the tests of each."""
MEMORY = 12 << 30
"""Of address space: a mutant that asks for more ends with an error, which is noticed."""
LEAST_SECONDS = 20
"""Of processor time that a mutant has at least, imports included, and three times what its tests
take; then it never ends, which is noticed. It may wait for so much time `WAITING` times over, since
a machine may be busy."""
WAITING = 20
Function = tuple[str, int]
"""Module, and first line of the function in it."""


@dataclass(eq=False)
class Recorder:
    """A plugin of pytest: the functions that each test calls, and its time."""

    calls: dict[str, list[Function]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    _seen: set[Function] = field(default_factory=set)
    _modules: dict[str, str] = field(
        default_factory=lambda: {str(PACKAGE / module): module for module in TESTS}
    )

    def _trace(self, frame: FrameType, event: str, value: object) -> None:
        module = self._modules.get(frame.f_code.co_filename)
        if module is not None:
            self._seen.add((module, frame.f_code.co_firstlineno))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._seen.clear()
        start = time.process_time()
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]  # None ends it
            self.calls[item.nodeid] = sorted(self._seen)
            self.seconds[item.nodeid] = time.process_time() - start


@dataclass(eq=False)
class Chooser:
    """A plugin of pytest: runs these tests, in this order, without a search for small examples."""

    order: dict[str, int]

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", settings.get_profile("dpgmm"), phases=phases)
        settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self.order]
        items[:] = sorted(chosen, key=lambda item: self.order[item.nodeid])


class Mutated(importlib.abc.MetaPathFinder):
    """Finds one module in its changed form; all others are found as always."""

    def __init__(self, module: str, code: CodeType) -> None:
        self._name = "dpgmm_dist." + module.removesuffix(".py").replace("/", ".")
        self._path = str(PACKAGE / module)
        self._code = code

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self._name:
            return None
        loader = SourceFileLoader(name, self._path)
        loader.get_code = lambda _: self._code  # type: ignore[method-assign, assignment]  # of one loader
        return importlib.util.spec_from_file_location(name, self._path, loader=loader)


def warm_up() -> None:
    """Import what tests need and no mutant changes, so that forks need not."""
    for name in ("cryptography", "distributed", "mpmath", "opendp.prelude", "pyarrow.parquet"):
        importlib.import_module(name)
    for name in (
        "scipy.stats",
        "scipy.optimize",
        "scipy.linalg",
        "typer",
        "_hypothesis_pytestplugin",
    ):
        importlib.import_module(name)


def run_pytest(files: list[str], plugin: object) -> int:
    """In this process, quietly and no further than needed."""
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow"]
    return int(pytest.main([*options, *files], plugins=[plugin]))


def recorded(modules: list[str]) -> tuple[dict[Function, list[str]], dict[str, float]]:
    """The tests that call each function of these modules, and the seconds of each test."""
    path = RESULTS / "calls.json"
    stored = json.loads(path.read_bytes()) if path.exists() else {}
    code = b"".join((PACKAGE / module).read_bytes() for module in TESTS)
    records: dict[str, dict[str, Any]] = {}
    for name in sorted({f"tests/{test}" for module in modules for test in TESTS[module]}):
        digest = hashlib.sha256(code + (ROOT / name).read_bytes()).hexdigest()
        if stored.get(name, {}).get("digest") != digest:
            print(f"recording {name}", flush=True)
            stored[name] = {"digest": digest, **_record(name)}
            path.write_text(json.dumps(stored))
        records[name] = stored[name]
    tests: dict[Function, list[str]] = {}
    for calls in (record["calls"] for record in records.values()):
        for test, functions in calls.items():
            for module, line in functions:
                tests.setdefault((module, line), []).append(test)
    return tests, {
        test: took for record in records.values() for test, took in record["seconds"].items()
    }


def _record(name: str) -> dict[str, Any]:
    """What the tests of a file call, found in a fork, which ends with what it imported."""
    passed = RESULTS / "recorded.json"
    if (process := os.fork()) == 0:
        recorder = Recorder()
        code = run_pytest([name], recorder)
        passed.write_text(json.dumps({"calls": recorder.calls, "seconds": recorder.seconds}))
        os._exit(code)
    if os.waitpid(process, 0)[1]:
        sys.exit(f"{name} fails without any mutant")
    return dict(json.loads(passed.read_bytes()))


def chosen_tests(
    mutant: Mutant, tests: dict[Function, list[str]], seconds: dict[str, float], most: float
) -> list[str]:
    """The tests that call the changed function, the fastest first, up to so many seconds."""
    if mutant.function:
        found = set(tests.get((mutant.module, mutant.function), []))
    else:
        found = {
            t for (module, _), names in tests.items() if module == mutant.module for t in names
        }
    chosen, total = [], 0.0
    for test in sorted(found, key=lambda test: (seconds[test], test)):
        total += seconds[test]
        if chosen and total > most:
            break
        chosen.append(test)
    return chosen


def start(mutant: Mutant, tests: list[str], most: int) -> int:
    """Fork a process that runs the tests with the mutant, and ends with pytest's exit code.

    It has ``most`` seconds of processor time.
    """
    if (process := os.fork()) != 0:
        return process
    os.setpgid(0, 0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (most, most))
        sys.meta_path.insert(0, Mutated(mutant.module, mutant.build()[0]))
        order = {test: index for index, test in enumerate(tests)}
        code = run_pytest(sorted({test.partition("::")[0] for test in tests}), Chooser(order))
    finally:
        os._exit(code)


def tried(
    found: list[Mutant],
    tests: dict[Function, list[str]],
    seconds: dict[str, float],
    jobs: int,
    most: float,
) -> Iterator[tuple[Mutant, bool]]:
    """Each mutant, and whether it survived its tests."""
    waiting, running = list(reversed(found)), dict[int, tuple[Mutant, float]]()
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            chosen = chosen_tests(mutant, tests, seconds, most)
            if not chosen:
                yield mutant, True  # no test calls the function
                continue
            limit = LEAST_SECONDS + int(3 * sum(seconds[test] for test in chosen))
            until = time.monotonic() + WAITING * limit
            running[start(mutant, chosen, limit)] = (mutant, until)
        for process, (_, until) in running.items():
            if time.monotonic() > until:  # it waits for something that never comes
                os.killpg(process, signal.SIGKILL)
        process, status = os.waitpid(-1, os.WNOHANG) if running else (0, 0)
        if process:
            yield running.pop(process)[0], status == 0
        else:
            time.sleep(0.02)


class Results:
    """What became of each mutant, as long as its module is as it was."""

    def __init__(self) -> None:
        self._path = RESULTS / "results.jsonl"
        self._alive: dict[str, bool] = {}
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        for line in lines:
            key, alive, _ = json.loads(line)
            self._alive[key] = alive

    def alive(self, mutant: Mutant) -> bool | None:
        """None if it was not tried."""
        return self._alive.get(_key(mutant))

    def add(self, mutant: Mutant, alive: bool) -> None:
        key, text = _key(mutant), mutant.build()[1]
        self._alive[key] = alive
        with self._path.open("a") as file:
            file.write(json.dumps([key, alive, text]) + "\n")
        if alive:
            print(f"survives: {text}", flush=True)


def _key(mutant: Mutant) -> str:
    digest = hashlib.sha256((PACKAGE / mutant.module).read_bytes()).hexdigest()[:16]
    return f"{mutant.module} {digest} {mutant.place} {mutant.change}"


def summary(results: Results) -> Iterator[str]:
    """A table: for each module how many of its mutants were noticed, of those that were tried."""
    total = [0, 0, 0]
    yield "| module | mutants | tried | noticed | survived |"
    yield "|---|---|---|---|---|"
    for module in TESTS:
        found = [results.alive(mutant) for mutant in mutants(module)]
        counts = [len(found), found.count(False), found.count(True)]
        total = [a + b for a, b in zip(total, counts, strict=True)]
        yield _row(f"`{module}`", *counts)
    yield _row("all", *total)


def _row(name: str, count: int, noticed: int, survived: int) -> str:
    tried = noticed + survived
    share = f" ({noticed / tried:.0%})" if tried else ""
    return f"| {name} | {count:,} | {tried:,} | {noticed:,}{share} | {survived:,} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", choices=TESTS, action="append", help="of these alone")
    parser.add_argument("--sample", type=int, help="so many of them, chosen by --seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30, help="of tests for a mutant")
    parser.add_argument("--table", action="store_true", help="of the last results; tries nothing")
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    results = Results()
    if not options.table:
        warm_up()
        modules = options.module or list(TESTS)
        tests, seconds = recorded(modules)
        found = [mutant for module in modules for mutant in mutants(module)]
        if options.sample is not None and options.sample < len(found):
            found = random.Random(options.seed).sample(found, options.sample)
        # The same sample in every run: a run that was stopped goes on, then tries what survived.
        found = [mutant for mutant in found if results.alive(mutant) is not False]
        found.sort(key=lambda mutant: results.alive(mutant) is not None)
        for mutant, alive in tried(found, tests, seconds, options.jobs, options.seconds):
            results.add(mutant, alive)
    print("\n".join(summary(results)))


if __name__ == "__main__":
    main()
