"""Mutation testing: small changes of the code that the guarantee rests on, one at a time.

    python jobs/mutants.py [--module NAME] [--sample N] [--seed S] [--jobs J] [--seconds T]

First the tests run once, and it is recorded which lines of those modules each of them runs
(jobs/mutant_tests.py). Then the tests are imported, and each mutant (jobs/mutations.py) is tried in
a fork of this process: the changed function gets its new code in place, and the tests that run the
changed statement are run, up to T seconds of them, until the first that fails. Where the changed
code runs at import (constants, default values), the fork imports the module and the tests itself. A
mutant that no test notices survives: a test is missing, or the change does not matter. In the end
the tests that noticed something run once without any mutant, and have to pass.

Results are kept in build/mutants/. The next run tries what survived, and what is in changed
modules. docs/mutation.md has the last score and what was left.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib.abc
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.machinery import SourceFileLoader
from types import CodeType, FunctionType
from typing import Any, NoReturn

import pytest
from mutant_tests import ROOT, TESTS, Tests, clear_caches, run_pytest
from mutations import PACKAGE, Mutant, mutants, replace

RESULTS = ROOT / "build" / "mutants"
MEMORY = 12 << 30
"""Of address space: a mutant that asks for more ends with an error, which is noticed."""
LEAST_SECONDS = 5
"""Of processor time that an import or a test has at least, beside three times what the test takes
without any mutant; then it never ends, which is noticed. It may wait for `WAITING` times as long,
since a machine may be busy."""
WAITING = 20
NOT_CHANGED = 255
"""Exit code of a fork that found no function to change."""
KILLED = 254
"""Exit code of a fork in which no test could be run."""


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
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    for name in (
        "_hypothesis_pytestplugin",
        "cryptography",
        "distributed",
        "fsspec",
        "mpmath",
        "opendp.prelude",
        "pyarrow.parquet",
        "pydantic",
        "scipy.linalg",
        "scipy.optimize",
        "scipy.stats",
        "typer",
    ):
        importlib.import_module(name)


@dataclass(frozen=True)
class Limits:
    """Of processor time and memory."""

    seconds: dict[str, float]
    """What each test takes without any mutant."""

    def allow(self, seconds: float) -> None:
        """Let this process run three times as long from now, and `LEAST_SECONDS`; then it ends."""
        most = int(time.process_time() + 3 * seconds + LEAST_SECONDS) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))


Run = Callable[[Mutant | None, list[str], Limits], int]
"""In a fork: change the code, run the tests, and return 0 if none fails."""
Choice = Callable[[Mutant], list[str]]
"""The tests of a mutant, at the time when it is tried."""


class InPlace:
    """A plugin of pytest: instead of running the tests, it hands them to ``work``."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._items: dict[str, pytest.Item] = {}
        self._functions: list[FunctionType] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            stop("the tests cannot be imported")
        self._items = {item.nodeid: item for item in session.items}
        make_queries()
        found = [value for value in gc.get_objects() if isinstance(value, FunctionType)]
        self._functions = [f for f in found if f.__code__.co_filename.startswith(str(PACKAGE))]
        gc.freeze()  # forks share what is here
        self._work()
        return True

    def run(self, mutant: Mutant | None, tests: list[str], limits: Limits) -> int:
        """Change the functions and run the tests."""
        if mutant and not replace(mutant.build()[0], self._functions):
            return NOT_CHANGED
        return run_items([self._items[test] for test in tests], limits)


def make_queries() -> None:
    """The queries of real fits, which many tests ask: forks share them, and need no fit."""
    if (queries := sys.modules.get("tests.queries")) is not None:
        for name in queries.PROBLEMS:
            queries.real_queries(name)
    clear_caches()


@dataclass(eq=False)
class AtImport:
    """A plugin of pytest: runs these tests, in this order."""

    tests: list[str]
    limits: Limits
    failed: int = 0

    @classmethod
    def run(cls, mutant: Mutant | None, tests: list[str], limits: Limits) -> int:
        """Import the changed module and run the tests."""
        if mutant:
            sys.meta_path.insert(0, Mutated(mutant.module, mutant.build()[0]))
        limits.allow(0)
        plugin = cls(tests, limits)
        code = run_pytest(sorted({test.partition("::")[0] for test in tests}), plugin)
        return plugin.failed or (code and KILLED)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if not session.testsfailed:  # all tests could be imported
            items = {item.nodeid: item for item in session.items}
            self.failed = run_items([items[test] for test in self.tests], self.limits)
        return True


def run_items(items: list[pytest.Item], limits: Limits) -> int:
    """Run tests until the first that fails, and return its place in the list, from 1; or 0."""
    for place, item in enumerate(items, start=1):
        limits.allow(limits.seconds[item.nodeid])
        following = items[place] if place < len(items) else None
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        if item.session.testsfailed:
            return min(place, KILLED - 1)
    return 0


def stop(reason: str) -> NoReturn:
    """End this process, which pytest may be running in."""
    print(reason, file=sys.stderr, flush=True)
    os._exit(1)


def start(run: Run, mutant: Mutant | None, tests: list[str], limits: Limits) -> int:
    """Fork a process that tries the mutant, and ends with what ``run`` returns."""
    if (process := os.fork()) != 0:
        return process
    os.setpgid(0, 0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    code = KILLED
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        code = run(mutant, tests, limits)
    finally:
        os._exit(code)


def tried(
    run: Run, found: list[Mutant], choose: Choice, limits: Limits, jobs: int
) -> Iterator[tuple[Mutant, bool, str | None]]:
    """Each mutant, whether it survived, and the test that failed, if one did."""
    waiting = list(reversed(found))
    running: dict[int, tuple[Mutant, list[str], float]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            tests = choose(mutant)
            if not tests:
                yield mutant, True, None  # no test runs it
                continue
            took = sum(limits.seconds[test] for test in tests)
            until = time.monotonic() + WAITING * (LEAST_SECONDS + took)
            running[start(run, mutant, tests, limits)] = (mutant, tests, until)
        for process, (_, _, until) in running.items():
            if time.monotonic() > until:  # it waits for something that never comes
                os.killpg(process, signal.SIGKILL)
        process, status = os.waitpid(-1, os.WNOHANG) if running else (0, 0)
        if process:
            mutant, tests, _ = running.pop(process)
            code = os.waitstatus_to_exitcode(status)
            if code == NOT_CHANGED:
                stop(f"nothing to change in place: {mutant.build()[1]}")
            yield mutant, code == 0, tests[code - 1] if 0 < code <= len(tests) else None
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


def try_all(found: list[Mutant], options: argparse.Namespace) -> None:
    """First the mutants that are put in place, then those of code that runs at import."""
    tests = Tests(RESULTS, options.module or list(TESTS))
    limits = Limits(tests.seconds)
    in_place = [mutant for mutant in found if not (options.import_all or tests.at_import(mutant))]
    at_import = [mutant for mutant in found if mutant not in set(in_place)]

    def work(run: Run, group: list[Mutant]) -> None:
        results = Results()
        choose = partial(tests.chosen, most=options.seconds)
        for mutant, alive, test in tried(run, group, choose, limits, options.jobs):
            results.add(mutant, alive)
            if test:
                tests.notices(mutant, test)
        if tests.noticing and os.waitpid(start(run, None, tests.noticing, limits), 0)[1]:
            stop("a test that noticed a mutant fails without any, too: no result counts")

    if in_place and (process := os.fork()) == 0:  # which ends with what it imported
        plugin = InPlace(lambda: work(plugin.run, in_place))
        os._exit(run_pytest(tests.files, plugin))
    if in_place and os.waitpid(process, 0)[1]:
        sys.exit(1)
    if at_import:
        work(AtImport.run, at_import)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", choices=TESTS, action="append", help="of these alone")
    parser.add_argument("--sample", type=int, help="so many of them, chosen by --seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30, help="of tests for a mutant")
    parser.add_argument("--import-all", action="store_true", help="put no mutant in place")
    parser.add_argument("--table", action="store_true", help="of the last results; tries nothing")
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    results = Results()
    if not options.table:
        warm_up()
        found = [mutant for name in options.module or TESTS for mutant in mutants(name)]
        if options.sample is not None and options.sample < len(found):
            found = random.Random(options.seed).sample(found, options.sample)
        # A run that was stopped goes on, then tries what survived.
        found = [mutant for mutant in found if results.alive(mutant) is not False]
        found.sort(key=lambda mutant: results.alive(mutant) is not None)
        try_all(found, options)
    print("\n".join(summary(Results())))


if __name__ == "__main__":
    main()
