"""Runs the command in processes that begin with its imports behind them.

A process of its own for every command, as a user's is, without the seconds that imports take each
time. They are forked from multiprocessing's fork server, which imports and never does anything
else: it has no thread and no connection that a fork could break. Settings that libraries read when
they are imported come too late for it: a command with such settings gets a new interpreter.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory
from weakref import WeakSet

_IMPORTS = (
    *("asyncio", "cryptography.hazmat.primitives.ciphers", "dateutil.parser", "distributed"),
    *("fsspec.core", "fsspec.implementations.local", "html", "pyarrow.dataset", "scipy.linalg"),
    *("scipy.spatial", "scipy.cluster.vq", "dpgmm_dist.artifact.report"),
    *("dpgmm_dist.engine.local", "dpgmm_dist.engine.cluster", "dpgmm_dist.cli.main"),
    *("dpgmm_dist.cli.metrics", "dpgmm_dist.pipeline.release"),
    *("dpgmm_dist.pipeline.work_estimate", "dpgmm_dist.artifact.verify"),
    *("dpgmm_dist.cli.progress_bar", "dpgmm_dist.privacy.accounting", "dpgmm_dist.spec.yaml_file"),
    *("email.policy", "fsspec.implementations.chained", "opentelemetry.trace"),
    # Of this repository: what each process would import and build first.
    *("tests.system.command_server", "tests.system.warm_command"),
)
_PATIENCE = 1000
_started: WeakSet[Command] = WeakSet()


class Command:
    """A running command, with the names of ``subprocess.Popen``.

    It leads a process group of its own. ``before`` is called in its process first.
    """

    def __init__(
        self, arguments: list[str], env: dict[str, str], before: Callable[[], None] | None = None
    ) -> None:
        self.args = arguments
        self._folder = TemporaryDirectory()
        self._printed = tuple(Path(self._folder.name, name) for name in ("stdout", "stderr"))
        for path in self._printed:
            path.touch()
        printed = tuple(map(str, self._printed))
        self._process = _fork_server().Process(
            target=_run, args=(arguments, env, os.getcwd(), printed, before)
        )
        self._process.start()
        _started.add(self)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float = _PATIENCE) -> tuple[str, str]:
        """Wait for the end; return what was printed on stdout and stderr, once."""
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.args, timeout)
        stdout, stderr = (path.read_text() for path in self._printed)
        self._folder.cleanup()
        return stdout, stderr


def run_command(arguments: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run ``dpgmm`` with these arguments and this environment; return what it printed."""
    if any(_is_read_by_imports(name) and os.environ.get(name) != env[name] for name in env):
        fresh = [sys.executable, "-m", "dpgmm_dist.cli", *arguments]
        return subprocess.run(fresh, env=env, capture_output=True, text=True, check=False)
    running = Command(arguments, env)
    stdout, stderr = running.communicate()
    assert running.returncode is not None
    return subprocess.CompletedProcess(arguments, running.returncode, stdout, stderr)


def _is_read_by_imports(variable: str) -> bool:
    return variable.startswith("DASK_") or variable.endswith("_NUM_THREADS")


@cache
def _fork_server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTS))
    # Registered after multiprocessing's own, so run before it, which waits for all of them.
    atexit.register(lambda: [running.kill() for running in _started])
    return context


def _run(
    arguments: list[str],
    env: dict[str, str],
    folder: str,
    printed: tuple[str, str],
    before: Callable[[], None] | None,
) -> None:
    os.setsid()
    # The server was started with "ignore Ctrl-C", as what a shell runs in the background is.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _become(env, folder, printed)
    if before is not None:
        before()
    from dpgmm_dist.cli.main import main

    try:
        main(arguments)
    finally:
        # As an interpreter ends, but for tearing down its modules, which takes half a second.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()


def _become(env: dict[str, str], folder: str, printed: tuple[str, str]) -> None:
    """Have the environment, folder and files of the process that was asked for, and no others."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    out, err = printed
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, out, os.O_WRONLY | os.O_CREAT),
        (2, err, os.O_WRONLY | os.O_CREAT),
    ):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(0)
