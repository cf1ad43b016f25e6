"""The manifests against the schemas of the operator, and submit.sh with a stub of kubectl."""

from __future__ import annotations

import copy
import importlib.util
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .emulators import INSTALL, ROOT

DEPLOY = ROOT / "deploy" / "kubernetes"
CRDS = "operator/deployment/helm/dask-kubernetes-operator/crds"


def schema(kind: str) -> dict[str, Any]:
    """Return the operator's schema of a kind, changed so that unknown keys are errors."""
    package = importlib.util.find_spec("dask_kubernetes")
    if package is None or package.origin is None or importlib.util.find_spec("jsonschema") is None:
        pytest.skip(f"dask-kubernetes or jsonschema is not installed: {INSTALL}")
    path = Path(package.origin).parent / CRDS / f"{kind}.yaml"
    versions = yaml.safe_load(path.read_text())["spec"]["versions"]
    (version,) = [version for version in versions if version["served"]]
    return _closed(version["schema"]["openAPIV3Schema"], top=True)


def _closed(part: Any, top: bool = False) -> Any:
    if isinstance(part, list):
        return [_closed(item) for item in part]
    if not isinstance(part, dict):
        return part
    result = {key: _closed(value) for key, value in part.items()}
    free = part.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in part
    if isinstance(part.get("properties"), dict) and not free and not top:
        result["additionalProperties"] = False
    # Keywords of Kubernetes, in those of JSON Schema.
    if result.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if result.pop("nullable", False) and isinstance(result.get("type"), str):
        result["type"] = [result["type"], "null"]
    return result


def problems(manifest: dict[str, Any], kind: str) -> list[str]:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema(kind))
    return [error.message for error in validator.iter_errors(manifest)]


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def test_the_operator_accepts_the_job() -> None:
    (job,) = manifests("daskjob.yaml")
    assert problems(job, "daskjob") == []
    cluster = job["spec"]["cluster"]
    images = {
        container["image"]
        for spec in (
            job["spec"]["job"]["spec"],
            cluster["spec"]["worker"]["spec"],
            cluster["spec"]["scheduler"]["spec"],
        )
        for container in spec["containers"]
    }
    assert len(images) == 1, "with several images, versions may differ"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "cluster", "spec", "worker", "replicas"), "many"),
        (("spec", "cluster", "spec", "worker", "replicaz"), 3),
        (("spec", "job", "spec", "containers"), None),
        (("spec", "job", "spec", "containers", 0, "imagee"), "x"),
        (("spec", "cluster", "spec", "scheduler", "service", "ports", 0, "port"), "http"),
    ],
)
def test_a_mistake_in_the_job_is_found(path: tuple[Any, ...], value: Any) -> None:
    (job,) = manifests("daskjob.yaml")
    wrong = copy.deepcopy(job)
    parent: Any = wrong
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    assert problems(wrong, "daskjob")


def test_the_accounts_that_the_manifests_name_exist() -> None:
    documents = manifests("rbac.yaml")
    accounts = {d["metadata"]["name"] for d in documents if d["kind"] == "ServiceAccount"}
    roles = {d["metadata"]["name"] for d in documents if d["kind"] == "Role"}
    (binding,) = [d for d in documents if d["kind"] == "RoleBinding"]
    assert binding["roleRef"]["name"] in roles
    assert {subject["name"] for subject in binding["subjects"]} <= accounts
    text = (DEPLOY / "daskjob.yaml").read_text()
    named = {
        line.split(":")[1].strip() for line in text.splitlines() if "serviceAccountName" in line
    }
    assert named <= accounts
    # No rule has a wildcard or access to secrets.
    for role in (d for d in documents if d["kind"] == "Role"):
        for rule in role["rules"]:
            assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
            assert "secrets" not in rule["resources"]


KUBECTL = """\
#!/usr/bin/env bash
echo "$*" >> "$RECORD"
case "$*" in
  *"create secret"*) echo "kind: Secret" ;;
  *"apply -f -"*) cat >> "$RECORD" ;;
  *jobStatus*) echo -n "$STATUS" ;;
  *jobRunnerPodName*) echo -n runner-pod ;;
  *exitCode*) echo -n "$CODE" ;;
  *"logs runner-pod"*) echo '{"status": "released"}' ;;
esac
"""


@pytest.mark.parametrize(("status", "code"), [("Successful", 0), ("Failed", 3)])
def test_submit_ends_with_the_exit_code_of_the_job(tmp_path: Path, status: str, code: int) -> None:
    kubectl, record, spec = tmp_path / "kubectl", tmp_path / "record", tmp_path / "spec.yaml"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    spec.write_text("dataset: {}\n")
    env = os.environ | {"KUBECTL": str(kubectl), "RECORD": str(record)}
    env |= {"STATUS": status, "CODE": str(code), "POLL_SECONDS": "0"}
    command = [str(DEPLOY / "submit.sh"), str(spec), "weekly-1", "--namespace", "n"]
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == code, done.stderr
    assert done.stdout == '{"status": "released"}\n'
    calls = record.read_text()
    assert f"create secret generic weekly-1 --from-file=spec.yaml={spec}" in calls
    assert "name: weekly-1" in calls
    assert "dpgmm-release" not in calls
    assert all(line.startswith("--namespace n ") for line in calls.splitlines() if "get " in line)


def test_submit_refuses_names_that_kubernetes_refuses(tmp_path: Path) -> None:
    command = [str(DEPLOY / "submit.sh"), "spec.yaml", "Weekly_1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2
    assert "Weekly_1" in done.stderr
