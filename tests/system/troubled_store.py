"""A file system for tests: local files, and trouble at the very moment that a test ordered.

``troubled:///path`` is ``/path``. :class:`tests.system.troubled.Job` makes it known to a driver and
its workers as plug-ins of fsspec are, and writes what is to happen: in which pass, at the read of
which file, how often. So trouble comes in the middle of a pass, in the process that reads, without
anybody watching a clock. It imports nothing of this project: the processes import it alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem


class TroubledStore(AbstractFileSystem):
    """Local files below ``troubled://``, read through ranges as those of an object store are."""

    protocol = "troubled"
    cachable = False

    def __init__(self, orders: str, **options: Any) -> None:
        super().__init__(**options)
        self.orders = Path(orders)
        self.local = LocalFileSystem()

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        return self.local.info(self._strip_protocol(path))

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        return self.local.ls(self._strip_protocol(path), detail=detail)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        known = ("block_size", "autocommit", "cache_options", "cache_type")
        return TroubledFile(self, path, mode, **{k: options[k] for k in known if k in options})


class TroubledFile(AbstractBufferedFile):
    """One file open for reading."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        trouble = self._trouble()
        if trouble == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if trouble == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if trouble == "fill memory":
            _fill_memory()
        if trouble == "kill another":
            os.kill(int((self.fs.orders / "victim").read_text()), signal.SIGKILL)
        if trouble == "scancel":
            subprocess.run(["scancel", os.environ["SLURM_JOB_ID"]], check=True)
            signal.pause()  # until Slurm ends this process
        if trouble == "wait":
            while not (self.fs.orders / "go").exists():
                time.sleep(0.05)
        if trouble == "503":
            raise OSError("503 Slow Down: row 123.4")
        if trouble == "touch":
            status = os.stat(self.path)
            os.utime(self.path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
        if trouble == "remove":
            os.unlink(self.path)
        with open(self.path, "rb") as file:
            file.seek(start)
            data = file.read(end - start)
        return data[: len(data) // 2] if trouble == "truncated" else data

    def _trouble(self) -> str | None:
        """What is ordered for this read, and happens once: whoever makes its note first has it."""
        orders = json.loads((self.fs.orders / "orders.json").read_text())
        now = len(list(Path(orders["journal"]).glob("query-*.bin"))) - 1  # the pass that runs
        if now < 0:
            return None
        name = os.path.basename(self.path)
        with open(self.fs.orders / "reads", "a") as reads:
            reads.write(f"{now} {name} {os.getpid()}\n")
        for number, order in enumerate(orders["troubles"]):
            if order["passes"] is not None and now not in order["passes"]:
                continue
            if order["file"] not in (None, name):
                continue
            for count in range(order["times"]):
                note = self.fs.orders / f"done-{number}-{now}-{count}"
                with suppress(FileExistsError), note.open("x") as file:
                    file.write(f"{os.getpid()}")
                    return str(order["trouble"])
        return None


def _fill_memory() -> None:
    """Take memory until the process is ended for it; a limit of its own ends a test gone wrong."""
    taken = []
    for _ in range(256):
        taken.append(b"\x01" * (16 << 20))
    signal.pause()
