"""The manifests ask for no more than they need: no root, no token, no strangers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dpgmm_dist.version import __version__

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "kubernetes"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def of_cronjob(kind: str) -> dict[str, Any]:
    return next(found for found in documents("cronjob.yaml") if found["kind"] == kind)


def pods_of(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    cluster = job["spec"]["cluster"]["spec"]
    return {
        "job": job["spec"]["job"]["spec"],
        "worker": cluster["worker"]["spec"],
        "scheduler": cluster["scheduler"]["spec"],
    }


def pods() -> dict[str, dict[str, Any]]:
    """Every pod that the manifests describe."""
    weekly = yaml.safe_load(of_cronjob("ConfigMap")["data"]["daskjob.yaml"])
    start = of_cronjob("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return {
        **pods_of(documents("daskjob.yaml")[0]),
        **{f"weekly {name}": pod for name, pod in pods_of(weekly).items()},
        "weekly start": start,
    }


@pytest.mark.parametrize("name", pods())
def test_a_pod_runs_without_rights(name):
    pod = pods()[name]
    # Only the pod that starts the weekly job talks to Kubernetes.
    assert pod.get("automountServiceAccountToken", True) is (name == "weekly start")
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        assert key not in pod
    for container in pod["containers"]:
        rights = container["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
        # What is written goes to a volume that ends with the pod.
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes[mounted["/tmp"]]["emptyDir"] == {}
        assert all(
            mount.get("readOnly")
            for mount in container["volumeMounts"]
            if mount["mountPath"] != "/tmp"
        )


def test_the_user_of_the_image_is_the_one_that_pods_run_as():
    image = (FOLDER / "Containerfile").read_text()
    users = {pod["securityContext"]["runAsUser"] for pod in pods().values()}
    assert users == {10001}
    assert "--uid 10001" in image
    assert "\nUSER 10001\n" in image


def test_images_are_named_by_version():
    images = {container["image"] for pod in pods().values() for container in pod["containers"]}
    built = {image for image in images if image.startswith("dpgmm:")}
    assert built == {f"dpgmm:{__version__}"}
    assert all(re.search(r":[0-9]+\.[0-9]+\.[0-9]+$", image) for image in images)
    (base,) = re.findall(r"^FROM (.*)$", (FOLDER / "Containerfile").read_text(), re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.[0-9]+-slim-[a-z]+@sha256:[0-9a-f]{64}", base)


def test_only_pods_of_a_cluster_reach_each_other():
    for policy in (found["spec"] for found in documents("networkpolicy.yaml")):
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        for rule in policy.get("ingress", []):
            assert rule["from"] == [{"podSelector": policy["podSelector"]}]
        for rule in policy["egress"]:
            # To the pods of the same cluster, or to few ports.
            assert rule.get("to", [{"podSelector": policy["podSelector"]}]) == [
                {"podSelector": policy["podSelector"]}
            ]
            assert "to" in rule or {port["port"] for port in rule["ports"]} <= {53, 443, 6443}


def test_each_pod_has_a_network_policy():
    """Those of a DaskJob by the label of the operator, the one that starts it by its own."""
    selectors = [found["spec"]["podSelector"] for found in documents("networkpolicy.yaml")]
    assert {
        "matchExpressions": [{"key": "dask.org/cluster-name", "operator": "Exists"}]
    } in selectors
    template = of_cronjob("CronJob")["spec"]["jobTemplate"]["spec"]["template"]
    assert {"matchLabels": template["metadata"]["labels"]} in selectors


def test_roles_have_no_wildcards_and_no_secrets():
    for document in documents("rbac.yaml") + documents("cronjob.yaml"):
        for rule in document.get("rules", []):
            words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "*" not in words
            assert "secrets" not in rule["resources"]


def test_the_weekly_job_may_touch_dask_jobs_alone():
    (rule,) = of_cronjob("Role")["rules"]
    assert rule["apiGroups"] == ["kubernetes.dask.org"]
    assert rule["resources"] == ["daskjobs"]
    assert set(rule["verbs"]) <= {"get", "list", "watch", "create", "delete"}
