"""Runs the command in forked processes that have their imports behind them.

A process of its own for every command, as a user's is, without the second that imports take each
time. The server is started once by each process of tests, imports, and never does anything else:
it has no thread and no connection that a fork could break. A line on stdin is a request
(``arguments``, ``env``, ``folder``, paths of ``stdout`` and ``stderr``), a line on stdout the exit
code.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

# Not distributed: it reads its settings from the environment when it is imported.
_IMPORTS = (
    *("asyncio", "cryptography.hazmat.primitives.ciphers", "dateutil.parser", "fsspec.core"),
    *("fsspec.implementations.local", "html", "pyarrow.dataset", "scipy.linalg", "scipy.spatial"),
    *("scipy.cluster.vq", "dpgmm_dist.artifact.report", "dpgmm_dist.engine.local"),
    *("dpgmm_dist.cli.main", "dpgmm_dist.cli.metrics", "dpgmm_dist.pipeline.release"),
    *("dpgmm_dist.pipeline.work_estimate", "dpgmm_dist.artifact.verify"),
)


def run_command(arguments: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run ``dpgmm`` with these arguments and this environment; return what it printed."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with TemporaryDirectory() as name:
        out, err = Path(name, "stdout"), Path(name, "stderr")
        request = {
            "arguments": arguments,
            "env": env,
            "folder": os.getcwd(),
            "stdout": str(out),
            "stderr": str(err),
        }
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        assert answer, "the command server ended"
        return subprocess.CompletedProcess(
            arguments, json.loads(answer), out.read_text(), err.read_text()
        )


@cache
def _server() -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    server = subprocess.Popen([sys.executable, __file__], text=True, **pipes)
    atexit.register(server.kill)
    return server


def _serve(requests: IO[str], answers: IO[str]) -> list[str] | None:
    """Answer requests; in a forked child return its arguments, at the end nothing."""
    # Not "for line in requests": a child must not inherit lines that were read ahead.
    while line := requests.readline():
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(request)
            return request["arguments"]
        _, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()
    return None


def _become(request: dict[str, Any]) -> None:
    """Have the environment, folder and files of the process that was asked for, and no others."""
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["folder"])
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["stdout"], os.O_WRONLY | os.O_CREAT),
        (2, request["stderr"], os.O_WRONLY | os.O_CREAT),
    ):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)


if __name__ == "__main__":
    for module in _IMPORTS:
        importlib.import_module(module)
    given = _serve(sys.stdin, sys.stdout)
    if given is not None:
        from dpgmm_dist.cli.main import main

        main(given)
