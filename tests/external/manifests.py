"""Checks the manifests on stdin; runs in build/external/kubernetes, which has the schemas.

    python manifests.py < several.yaml

Kinds of Kubernetes against its own schemas (1.31), kinds of the Dask operator against the
definitions in its package. Ends with code 1 and the problems.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

VERSION = "1.31"


def operator_schema(kind):
    # Found, not imported: importing it would need Dask.
    package = Path(find_spec("dask_kubernetes").submodule_search_locations[0])
    folder = package / "operator/deployment/helm/dask-kubernetes-operator/crds"
    definition = yaml.safe_load((folder / f"{kind.lower()}.yaml").read_text())
    return definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def check(document):
    if document["apiVersion"].startswith("kubernetes.dask.org/"):
        jsonschema.validate(document, operator_schema(document["kind"]))
        for pod in pods(document):
            check({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod})
    else:
        kubernetes_validate.validate(document, VERSION, strict=True)


def pods(daskjob):
    """The operator's definitions leave pods open; Kubernetes will not."""
    cluster = daskjob["spec"]["cluster"]["spec"]
    return [daskjob["spec"]["job"]["spec"], cluster["worker"]["spec"], cluster["scheduler"]["spec"]]


failed = 0
for document in yaml.safe_load_all(sys.stdin):
    try:
        check(document)
    except Exception as problem:
        failed = 1
        print(document["kind"], str(problem).splitlines()[0])
sys.exit(failed)
