"""Locks name exact files, and the bill of materials lists what they install."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from .scripts import ROOT, script

sbom = script("sbom")
LOCKS = ("requirements.lock", "deploy/kubernetes/requirements.lock")


@pytest.fixture(scope="module")
def bill(tmp_path_factory):
    if sys.version_info[:2] != (3, 11):
        pytest.skip("requirements.lock is for Python 3.11")
    path = tmp_path_factory.mktemp("sbom") / "sbom.json"
    command = [sys.executable, str(ROOT / "jobs" / "sbom.py"), "--output", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_bytes())


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_of_a_lock_has_a_version_and_hashes(name):
    locked = sbom.read_lock((ROOT / name).read_text())
    assert len(locked) > 20
    assert len({part.name for part in locked}) == len(locked)


def test_the_image_runs_what_the_tests_ran(bill):
    required = {part["name"] for part in bill["components"] if part["scope"] == "required"}
    everything, image = (sbom.read_lock((ROOT / name).read_text()) for name in LOCKS)
    assert image == [part for part in everything if part.name in required | {"setuptools"}]


@pytest.mark.parametrize("line", ["numpy==2.4.6\n", "numpy>=2 --hash=sha256:" + "0" * 64])
def test_a_line_without_a_hash_or_a_version_is_refused(line):
    with pytest.raises(ValueError, match="numpy has no exact version with a hash"):
        sbom.read_lock(line)


def test_the_environment_is_installed_by_hashes():
    makefile = (ROOT / "Makefile").read_text()
    assert "--require-hashes -r requirements.lock" in makefile
    containerfile = (ROOT / "deploy" / "kubernetes" / "Containerfile").read_text()
    assert "--require-hashes -r requirements.lock" in containerfile
    # What is not in the lock is this checkout, or has an exact version.
    for text, least in ((makefile, 4), (containerfile, 2)):
        found = re.findall(r"(?:pip|\(PIP\)) install (-[^;\n]*)", text.replace("\\\n", " "))
        assert len(found) >= least
        for options in found:
            assert any(
                word in options
                for word in (
                    *("--require-hashes", "--no-deps", "-c clients.lock"),
                    "-r requirements-docs.lock",
                )
            )


def test_the_bill_lists_the_lock(bill):
    locked = sbom.read_lock((ROOT / "requirements.lock").read_text())
    assert {part["purl"]: len(part["hashes"]) for part in bill["components"]} == {
        part.ref: len(part.sha256) for part in locked
    }
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", bill["serialNumber"])
    assert all(part["licenses"] for part in bill["components"])


def test_references_in_the_bill_lead_to_components(bill):
    refs = {part["bom-ref"] for part in bill["components"]}
    refs.add(bill["metadata"]["component"]["bom-ref"])
    assert {part["ref"] for part in bill["dependencies"]} == refs
    for part in bill["dependencies"]:
        assert set(part["dependsOn"]) <= refs - {part["ref"]}


def test_the_bill_tells_what_runs_from_what_tests(bill):
    scopes = {part["name"]: part["scope"] for part in bill["components"]}
    assert scopes["opendp"] == scopes["numpy"] == scopes["tornado"] == "required"
    assert scopes["pytest"] == scopes["scikit-learn"] == "optional"


def test_another_environment_than_the_lock_is_refused(tmp_path):
    lock = tmp_path / "other.lock"
    lock.write_text("numpy==1.0 --hash=sha256:" + "0" * 64)
    command = [sys.executable, str(ROOT / "jobs" / "sbom.py"), "--lock", str(lock)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search("numpy is installed as .*, the lock has 1.0", done.stderr)
