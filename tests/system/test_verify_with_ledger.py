"""What `dpgmm verify` can know: with the ledger, a receipt that leaves queries out is found."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from dpgmm_dist.artifact.receipt import epsilon_of, mu_of
from dpgmm_dist.artifact.sign import SIGNATURE, sign_release, signature_problems
from dpgmm_dist.artifact.verify import verify_release
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.data.source import ArraySource
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.pipeline.charged import ledger_problems
from dpgmm_dist.pipeline.release import release

from ..privacy.test_gate import rows, spec
from .releases import dpgmm


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("made")
    Ledger.init(str(place / "ledger"), 1.0, 1e-6)
    source: ArraySource = rows()
    release(
        spec(place / "ledger", noise="auto"),
        output=str(place / "out"),
        source=source,
        release_id="week-1",
    )
    return place


@pytest.fixture
def place(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def mend(out: Path, receipt: dict[str, Any], stored: dict[str, Any] | None = None) -> None:
    """Write a receipt, with totals and digests that agree with it."""
    rho = sum(query["rho"] for query in receipt["queries"]) * (1 + 1e-12)
    epsilon = epsilon_of(rho, receipt["totals"]["delta"], receipt["accounting"])
    receipt["totals"] |= {"rho": rho, "mu": mu_of(rho), "epsilon": epsilon}
    data = json.dumps(receipt).encode()
    (out / "receipt.json").write_bytes(data)
    manifest = json.loads((out / "release.json").read_bytes())
    digest = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest["files"]["receipt.json"] = digest
    manifest["stored"] = stored or manifest["stored"]
    (out / "release.json").write_text(json.dumps(manifest))


def receipt_in(out: Path) -> dict[str, Any]:
    return json.loads((out / "receipt.json").read_bytes())


def problems(place: Path) -> list[str]:
    return ledger_problems(str(place / "out"), str(place / "ledger"))


def test_a_release_agrees_with_its_ledger(place):
    assert problems(place) == []
    result = dpgmm("verify", place / "out", "--ledger", place / "ledger", "--json")
    assert result.returncode == 0, result.stderr
    assert "are those stored beside the charge" in json.loads(result.stdout)["scope"]
    alone = dpgmm("verify", place / "out")
    assert "not shown: that no others were asked" in alone.stdout


def test_a_receipt_without_one_of_its_queries_is_found_by_the_manifest(place):
    receipt = receipt_in(place / "out")
    del receipt["queries"][1]
    mend(place / "out", receipt)
    found = verify_release(str(place / "out"))
    assert not found.ok
    assert any("the manifest says that" in problem for problem in found.problems)


def test_a_receipt_and_a_manifest_without_a_query_are_found_by_the_ledger(place):
    receipt = receipt_in(place / "out")
    del receipt["queries"][1]
    stored = {"queries": len(receipt["queries"]), "sha256": "0" * 64}
    mend(place / "out", receipt, stored)
    assert verify_release(str(place / "out")).ok  # all that it can know
    found = problems(place)
    assert any("the journal holds" in problem for problem in found)
    result = dpgmm("verify", place / "out", "--ledger", place / "ledger")
    assert result.returncode == 4


def test_a_query_that_was_another_is_found_by_the_ledger(place):
    receipt = receipt_in(place / "out")
    block = receipt["queries"][0]["blocks"][0]
    block["groups"] += 1
    mend(place / "out", receipt)
    assert verify_release(str(place / "out")).ok
    assert any("query 0 of the receipt" in problem for problem in problems(place))


def test_an_answer_that_was_exchanged_is_found(place):
    journal = place / "ledger" / "journal" / "week-1"
    manifest = json.loads((place / "out" / "release.json").read_bytes())
    manifest["stored"]["sha256"] = "1" * 64
    (place / "out" / "release.json").write_text(json.dumps(manifest))
    assert any("is not that of the manifest" in problem for problem in problems(place))
    (journal / "answer-0001.bin").unlink()
    assert any("lost records" in problem for problem in problems(place))


def test_a_ledger_without_the_charge_or_with_another_is_found(place, tmp_path):
    Ledger.init(str(tmp_path / "other"), 1.0, 1e-6)
    found = ledger_problems(str(place / "out"), str(tmp_path / "other"))
    assert found == ["the ledger has no charge for the release 'week-1'"]
    receipt = receipt_in(place / "out")
    receipt["budget"]["epsilon"] = 2.0
    mend(place / "out", receipt)
    assert any("epsilon of the release is 2.0" in problem for problem in problems(place))


# ---------------------------------------------------------------- signatures


def pem(folder: Path, key: Any) -> tuple[Path, Path]:
    private, public = folder / "key.pem", folder / "public.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def test_a_signed_release_is_verified_by_its_key_alone(place, tmp_path):
    private, public = pem(tmp_path, Ed25519PrivateKey.generate())
    result = dpgmm("sign", place / "out", "--key", private)
    assert result.returncode == 0, result.stderr
    assert dpgmm("verify", place / "out", "--public-key", public).returncode == 0
    assert sign_release(str(place / "out"), private)  # a second time changes nothing
    (tmp_path / "other").mkdir()
    other_private, other_public = pem(tmp_path / "other", Ed25519PrivateKey.generate())
    assert signature_problems(str(place / "out"), other_public)
    with pytest.raises(DataError, match="another key"):
        sign_release(str(place / "out"), other_private)
    manifest = place / "out" / "release.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    assert verify_release(str(place / "out")).ok
    assert signature_problems(str(place / "out"), public)
    result = dpgmm("verify", place / "out", "--public-key", public)
    assert result.returncode == 4
    assert "is not a signature" in result.stderr


def test_a_release_without_a_signature_or_with_a_damaged_one_is_not_verified(place, tmp_path):
    _, public = pem(tmp_path, Ed25519PrivateKey.generate())
    assert signature_problems(str(place / "out"), public)
    for text in ("", "{}", '{"signature": 5}', '{"signature": "zz"}', '{"signature": "00"}'):
        (place / "out" / SIGNATURE).write_text(text)
        assert len(signature_problems(str(place / "out"), public)) == 1


def test_a_file_that_is_no_key_is_refused_with_what_to_do(place, tmp_path):
    private, public = pem(tmp_path, generate_private_key(SECP256R1()))
    none = tmp_path / "none.pem"
    none.write_text("nothing")
    for path in (private, none, public):
        with pytest.raises(SpecError, match="openssl genpkey"):
            sign_release(str(place / "out"), path)
    for path in (public, none):
        with pytest.raises(SpecError, match="Ed25519"):
            signature_problems(str(place / "out"), path)
    with pytest.raises(SpecError, match="cannot be read"):
        sign_release(str(place / "out"), tmp_path / "missing.pem")
