"""A bill of materials (CycloneDX 1.6, JSON) of what requirements.lock installs.

    python jobs/sbom.py [--lock requirements.lock] [--output build/sbom.json]

One component for each line of the lock: name, version, licence, the SHA-256 of the files that may
be installed, and what it depends on. Scope `required` is what the package itself needs, `optional`
what its extras add. The same lock gives the same file: it has no time and no random number.
Licences and dependencies are those of the packages that are installed beside this interpreter.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import uuid
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "dpgmm-dist"
_LONGEST = 100
"""A licence field beyond this is the text of a licence, not its name."""


@dataclass(frozen=True)
class Locked:
    """A line of the lock."""

    name: str
    version: str
    sha256: tuple[str, ...]

    @property
    def ref(self) -> str:
        """The package URL, which names it in the bill."""
        return f"pkg:pypi/{self.name}@{self.version}"


def read_lock(text: str) -> list[Locked]:
    """The packages of a lock file with hashes.

    Raises
    ------
    ValueError
        A package has no hash, so that anything could be installed in its place.
    """
    found = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = re.match(r"([\w.-]+)==(\S+)", line)
        hashes = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
        if match is None or not hashes:
            name = re.split(r"[^\w.-]", line)[0]
            raise ValueError(f"{name} has no exact version with a hash; remake the lock")
        found.append(Locked(str(canonicalize_name(match[1])), match[2], hashes))
    return found


def needs(installed: Distribution, extras: tuple[str, ...] = ("",)) -> set[str]:
    """Names of what a distribution needs on this interpreter, with these of its extras."""
    wanted = [Requirement(text) for text in installed.requires or ()]
    return {
        str(canonicalize_name(requirement.name))
        for requirement in wanted
        if requirement.marker is None
        or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
    }


def licences(installed: Distribution) -> list[dict[str, Any]]:
    """As CycloneDX writes them: an expression, or names."""
    metadata = installed.metadata
    if expression := metadata.get("License-Expression"):
        return [{"expression": expression}]
    name = metadata.get("License") or ""
    if name and "\n" not in name and len(name) <= _LONGEST:
        return [{"license": {"name": name}}]
    classifiers = metadata.get_all("Classifier") or []
    names = [line.split(" :: ")[-1] for line in classifiers if line.startswith("License ::")]
    return [{"license": {"name": name}} for name in names]


def bill_of(locked: list[Locked], installed: dict[str, Distribution]) -> dict[str, Any]:
    """The bill of materials, as JSON values.

    Parameters
    ----------
    installed : the distributions by name: those that are locked, and the package.
    """
    package = installed[PACKAGE]
    refs = {entry.name: entry.ref for entry in locked}
    own_ref = f"pkg:pypi/{PACKAGE}@{package.version}"
    edges = {entry.name: needs(installed[entry.name]) & set(refs) for entry in locked}
    extras = tuple(package.metadata.get_all("Provides-Extra") or ())
    required = _reached(needs(package) & set(refs), edges)
    components = [
        {
            "type": "library",
            "bom-ref": entry.ref,
            "name": entry.name,
            "version": entry.version,
            "purl": entry.ref,
            "scope": "required" if entry.name in required else "optional",
            "licenses": licences(installed[entry.name]),
            "hashes": [{"alg": "SHA-256", "content": digest} for digest in entry.sha256],
        }
        for entry in locked
    ]
    direct = needs(package, ("", *extras)) & set(refs)
    dependencies = [{"ref": own_ref, "dependsOn": sorted(refs[name] for name in direct)}]
    dependencies += [
        {"ref": entry.ref, "dependsOn": sorted(refs[name] for name in edges[entry.name])}
        for entry in locked
    ]
    main = {
        "type": "library",
        "bom-ref": own_ref,
        "name": PACKAGE,
        "version": package.version,
        "purl": own_ref,
        "licenses": licences(package),
    }
    body = {
        "version": 1,
        "metadata": {"component": main},
        "components": components,
        "dependencies": dependencies,
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True))
    head = {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}"}
    return {**head, **body}


def _reached(start: set[str], edges: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += edges[name]
    return found


def installed_beside(locked: list[Locked]) -> dict[str, Distribution]:
    """The distributions of the lock and the package itself, of this interpreter's environment."""
    found, wrong = {}, []
    versions = {entry.name: entry.version for entry in locked}
    for name, version in (versions | {PACKAGE: None}).items():
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            wrong.append(f"{name} is not installed")
            continue
        if version not in (None, found[name].version):
            wrong.append(f"{name} is installed as {found[name].version}, the lock has {version}")
    if wrong:
        sys.exit("sbom: " + "; ".join(wrong) + ". Install the lock first, as `make sbom` does.")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements.lock")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "sbom.json")
    options = parser.parse_args()
    locked = read_lock(options.lock.read_text())
    bill = bill_of(locked, installed_beside(locked))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(bill, indent=1) + "\n")
    print(f"{options.output}: {len(locked)} components")


if __name__ == "__main__":
    main()
