"""Which cluster a specification asks for, and what Dask's libraries are told."""

from __future__ import annotations

import inspect
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dpgmm_dist.engine import clusters, open_engine
from dpgmm_dist.engine.config import ClusterConfig, Elastic, TlsFiles
from dpgmm_dist.engine.local import LocalEngine
from dpgmm_dist.errors import ClusterError, SpecError
from dpgmm_dist.pipeline.resolve import cluster_config
from dpgmm_dist.spec.release_spec import ReleaseSpec

SECRET = "hunter2hunter2"


def spec(**cluster: Any) -> ReleaseSpec:
    return ReleaseSpec.from_dict(
        {
            "dataset": {"path": "data/", "features": "x", "width": 3},
            "bounds": {"norm": 1.0},
            "privacy": {"epsilon": 1.0, "delta": 1e-6},
            "cluster": cluster,
        }
    )


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ({"kind": "yarn"}, "must be one of threads, local, scheduler, slurm, kubernetes, mpi"),
        ({"kind": "slurm"}, "cluster.workers: missing"),
        ({"kind": "slurm", "workers": {"minimum": 2}}, "{minimum: 1, maximum: 8}"),
        ({"kind": "slurm", "workers": {"maximum": 2, "most": 3}}, "{minimum: 1, maximum: 8}"),
        ({"kind": "local", "workers": {"minimum": 3, "maximum": 2}}, "must not be larger"),
        ({"kind": "local", "workers": {"minimum": 0, "maximum": 2}}, "got 0"),
        ({"workers": {"maximum": 2}}, "cluster.workers: belongs to kind local or slurm"),
        ({"kind": "local", "workers": 0}, "cluster.workers: got 0"),
        ({"kind": "local", "workers": 2, "address": "tcp://x:1"}, "belongs to kind scheduler"),
        ({"workers": 2}, "cluster.workers: belongs to kind local or slurm or kubernetes"),
        ({"kind": "scheduler"}, "address or scheduler_file, one of them"),
        ({"kind": "local", "workers": 1, "options": {"a": 1}}, "cluster.options: belongs to"),
        (
            {
                "kind": "scheduler",
                "address": "tcp://x:1",
                "tls": {"ca_file": "a", "cert": "b", "key": "c"},
            },
            "must begin with tls://",
        ),
    ],
)
def test_mistakes_name_the_key(cluster: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(**cluster)
    assert said in str(caught.value)


def test_where_it_runs_is_no_part_of_what_is_released() -> None:
    there = spec(kind="slurm", workers=4, options={"account": SECRET})
    assert there.digest() == spec().digest()
    assert there.difference(spec()) == []
    assert "cluster" not in there.public_dict()
    assert SECRET not in repr(there)


def test_flags_come_before_the_section() -> None:
    wanted = ClusterConfig(kind="scheduler", address="tcp://127.0.0.1:1")
    with open_engine(cluster=ClusterConfig(threads=3)) as engine:
        assert isinstance(engine, LocalEngine)
        assert engine.threads == 3
    with pytest.raises(SpecError, match="at most one"), open_engine(1, "tcp://x", cluster=wanted):
        pass


def test_certificates_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no file"):
        clusters.security_of(TlsFiles(ca_file=str(tmp_path / "ca"), cert="b", key="c"))
    assert clusters.security_of(None) is None


@pytest.mark.parametrize(
    ("kind", "module", "name"),
    [
        ("slurm", "dask_jobqueue", "SLURMCluster"),
        ("kubernetes", "dask_kubernetes.operator", "KubeCluster"),
    ],
)
def test_dask_is_told_what_the_specification_says(
    kind: str, module: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    class Cluster:
        def __init__(self, **options: Any) -> None:
            given.update(options)

        def __enter__(self) -> Cluster:
            return self

        def __exit__(self, *_: object) -> None:
            given["closed"] = True

        def scale(self, jobs: int) -> None:
            given["jobs"] = jobs

    stand_in = ModuleType(module)
    setattr(stand_in, name, Cluster)
    monkeypatch.setitem(sys.modules, module, stand_in)
    client = SimpleNamespace(Client=lambda cluster: nullcontext(cluster))
    monkeypatch.setattr(clusters, "_distributed", lambda: client)
    wanted = spec(kind=kind, workers=3, threads=2, memory="6GB", options={"namespace": "x"}).cluster
    with ExitStack() as stack:
        start = {"slurm": clusters.start_slurm, "kubernetes": clusters.start_kubernetes}[kind]
        assert isinstance(start(stack, wanted), Cluster)
    assert given["namespace"] == "x"
    assert given["closed"]
    if kind == "slurm":
        assert (given["jobs"], given["cores"], given["memory"]) == (3, 2, "6GB")
    else:
        assert given["n_workers"] == 3
        assert given["resources"]["limits"] == {"cpu": "2", "memory": "6G"}


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with ExitStack() as stack, pytest.raises(ClusterError, match=r"dpgmm-dist\[cluster\]"):
        clusters.start_slurm(stack, ClusterConfig(kind="slurm", workers=1))


def test_kubernetes_options_exist() -> None:
    operator = pytest.importorskip("dask_kubernetes.operator")
    known = inspect.signature(operator.KubeCluster.__init__).parameters
    assert {"n_workers", "resources", "env", "quiet", "image", "namespace"} <= known.keys()


def test_elastic_workers_reach_the_engine() -> None:
    workers = {"minimum": 2, "maximum": 9}
    wanted = cluster_config(spec(kind="slurm", workers=workers).cluster)
    assert wanted.workers == Elastic(2, 9)
    assert cluster_config(spec(kind="local", workers={"maximum": 3}).cluster).workers == Elastic(
        1, 3
    )


def test_slurm_and_kubernetes_follow_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask's own classes take the bounds under these names."""
    from distributed.deploy.adaptive import Adaptive

    adapted: list[dict[str, Any]] = []
    cluster = SimpleNamespace(adapt=lambda **bounds: adapted.append(bounds))
    clusters.scale(cluster, Elastic(2, 9))
    assert (adapted[0]["minimum"], adapted[0]["maximum"]) == (2, 9)
    assert set(adapted[0]) <= set(inspect.signature(Adaptive).parameters)


@pytest.mark.parametrize("given", ["0", "many", 0, -1])
def test_workers_of_the_command_are_a_number_or_auto(given: Any) -> None:
    with pytest.raises(SpecError, match="or auto"), open_engine(given):
        pass
