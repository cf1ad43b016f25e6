"""The manifests ask for no more than they need: no root, no token, no strangers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "kubernetes"


def pods() -> dict[str, dict[str, Any]]:
    job = yaml.safe_load((FOLDER / "daskjob.yaml").read_text())["spec"]
    cluster = job["cluster"]["spec"]
    return {
        "job": job["job"]["spec"],
        "worker": cluster["worker"]["spec"],
        "scheduler": cluster["scheduler"]["spec"],
    }


@pytest.mark.parametrize("name", ["job", "worker", "scheduler"])
def test_a_pod_runs_without_rights(name):
    pod = pods()[name]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    for container in pod["containers"]:
        rights = container["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["capabilities"] == {"drop": ["ALL"]}
        # What is written goes to a volume that ends with the pod.
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes[mounted["/tmp"]]["emptyDir"] == {}


def test_the_user_of_the_image_is_the_one_that_pods_run_as():
    image = (FOLDER / "Containerfile").read_text()
    users = {pod["securityContext"]["runAsUser"] for pod in pods().values()}
    assert users == {10001}
    assert "--uid 10001" in image
    assert "\nUSER 10001\n" in image


def test_only_pods_of_a_cluster_reach_each_other():
    policy = yaml.safe_load((FOLDER / "networkpolicy.yaml").read_text())["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    (rule,) = policy["ingress"]
    (source,) = rule["from"]
    assert source == {"podSelector": policy["podSelector"]}


def test_roles_have_no_wildcards_and_no_secrets():
    for document in yaml.safe_load_all((FOLDER / "rbac.yaml").read_text()):
        for rule in document.get("rules", []):
            words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "*" not in words
            assert "secrets" not in rule["resources"]
