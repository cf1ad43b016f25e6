"""A scheduler that accepts only TLS, two workers, and certificates made by the test."""

from __future__ import annotations

import datetime
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ..system.releases import Rows, digests, done, dpgmm, environment, labelled, write_spec
from .emulators import free_port

NOISE = ("--insecure-test-noise", 3, "--release-id", "same")


@dataclass(frozen=True)
class Certificates:
    ca: Path
    cert: Path
    key: Path

    @property
    def section(self) -> dict[str, str]:
        return {"ca_file": str(self.ca), "cert": str(self.cert), "key": str(self.key)}


def make_certificates(folder: Path) -> Certificates:
    """Make an authority, and one certificate of it for all parts of a cluster."""
    folder.mkdir()
    ca_key, ca = _signed("authority", None, None)
    key, cert = _signed("dpgmm", ca_key, ca)
    paths = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    paths.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    paths.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    paths.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


def _signed(
    name: str, by_key: ec.EllipticCurvePrivateKey | None, by: x509.Certificate | None
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
    )
    return key, builder.sign(by_key or key, hashes.SHA256())


@contextmanager
def process(*arguments: object, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a ``dask`` process; end it afterwards."""
    with log.open("wb") as out:
        command = [sys.executable, "-m", "dask", *map(str, arguments)]
        child = subprocess.Popen(command, stdout=out, stderr=out, env=environment(), cwd=log.parent)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path / "certificates")


@pytest.fixture
def scheduler(certificates: Certificates, tmp_path: Path) -> Iterator[str]:
    """The address of a TLS scheduler with two workers."""
    address = f"tls://127.0.0.1:{free_port()}"
    tls = ["--tls-ca-file", certificates.ca, "--tls-cert", certificates.cert]
    tls += ["--tls-key", certificates.key]
    with ExitStack() as stack:
        flags = ("--host", address, "--no-dashboard", "--protocol", "tls", *tls)
        stack.enter_context(process("scheduler", *flags, log=tmp_path / "scheduler.log"))
        for number in range(2):
            log = tmp_path / f"worker-{number}.log"
            flags = (address, "--nthreads", 1, "--no-dashboard", "--no-nanny", *tls)
            stack.enter_context(process("worker", *flags, log=log))
        _wait_for(tmp_path / "scheduler.log", "Register worker", 2)
        yield address


def _wait_for(log: Path, text: str, times: int) -> None:
    deadline = time.monotonic() + 300
    while log.read_text(errors="replace").count(text) < times:
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
        time.sleep(0.1)


def test_a_release_over_tls_is_that_of_the_threads(
    scheduler: str, certificates: Certificates, tmp_path: Path
) -> None:
    data = Rows.make().write(tmp_path / "data", files=4, row_group=100)
    spec = write_spec(tmp_path / "spec.yaml", data, dataset=labelled())
    done("release", spec, *NOISE, "--output", tmp_path / "threads")

    document = yaml.safe_load(spec.read_text())
    document["cluster"] = {"kind": "scheduler", "address": scheduler, "tls": certificates.section}
    spec.write_text(yaml.safe_dump(document))
    done("release", spec, *NOISE, "--output", tmp_path / "cluster")
    assert digests(tmp_path / "threads") == digests(tmp_path / "cluster")
    assert scheduler not in (tmp_path / "cluster" / "receipt.json").read_text()

    # A certificate of another authority is refused, and the message names the scheduler.
    other = make_certificates(tmp_path / "other")
    document["cluster"]["tls"] = other.section
    spec.write_text(yaml.safe_dump(document))
    refused = dpgmm("release", spec, *NOISE, "--output", tmp_path / "never")
    assert refused.returncode == 5
    assert scheduler in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "never").exists()
