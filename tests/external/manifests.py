"""Check the manifests on stdin, in the environment build/external/kubernetes.

    python manifests.py < manifests.yaml

Manifests of Kubernetes are checked against its schemas (1.31), and those of the Dask operator
against the definitions in its package. Problems are printed, and the exit code is then 1.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

VERSION = "1.31"


def operator_schema(kind):
    # Only located: to import it would need Dask.
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
    """Return the pods of a DaskJob. The definitions of the operator do not check them."""
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
