"""Markers in every place of the input are in no output, log, journal, ledger, page or left-over.

Values, texts, entries of dictionaries, names of privacy units and metadata of files are marked. All
commands that touch them run, with temporary files in a folder that is searched as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpgmm_dist.budget.ledger import Ledger

from . import test_release_bad_input as bad_input
from .releases import Rows, done, dpgmm, environment, write_spec
from .test_release_secrets import LABEL, ROWS, VALUE, files_below, find_markers
from .troubled import until

PERSON = f"{LABEL}-unit"
LABELS = ["somebody", "else"]


def marked(folder: Path) -> Path:
    """Rows whose values, dictionaries, unit names and metadata all hold markers."""
    folder.mkdir()
    x = pa.array([[VALUE, VALUE / 2, -VALUE]] * ROWS, pa.list_(pa.float64()))
    kind = pa.array([LABEL, LABELS[0]] * (ROWS // 2)).dictionary_encode()
    user = pa.array([f"{PERSON}-{i % 300}" for i in range(ROWS)])
    table = pa.table({"x": x, "y": kind, "user": user})
    table = table.replace_schema_metadata({"note": LABEL, "rows": str(VALUE)})
    pq.write_table(table, folder / "part-0.parquet")
    return folder


def job(place: Path) -> tuple[Path, dict[str, str]]:
    """A specification of the marked rows with a ledger, and where its files may be left."""
    Ledger.init(str(place / "ledger"), 2.0, 1e-5)
    left = place / "left"
    left.mkdir()
    spec = write_spec(
        place / "spec.yaml",
        marked(place / "data"),
        dataset={
            "label": "y",
            "labels": LABELS,
            "privacy_unit": {"column": "user", "max_rows": 3},
        },
        bounds={"norm": 400.0},
        privacy={"ledger": str(place / "ledger")},
    )
    return spec, {"TMPDIR": str(left), "DASK_LOGGING__DISTRIBUTED": "debug"}


def clean(place: Path, *results: Any) -> None:
    for result in results:
        assert find_markers(result.stdout + result.stderr) == []
    for path in files_below(*(place / name for name in ("out", "ledger", "left", "rows"))):
        assert find_markers(path.read_bytes()) == [], path
        assert find_markers(path.name) == [], path


def test_the_scan_finds_each_of_the_markers(tmp_path):
    data = marked(tmp_path / "data")
    content = next(files_below(data)).read_bytes()
    assert PERSON.encode() in content
    assert str(VALUE).encode() in content
    assert len(find_markers(content)) > 3


@pytest.mark.slow
def test_no_command_shows_a_marker(tmp_path):
    spec, env = job(tmp_path)
    out, rows = tmp_path / "out", tmp_path / "rows"
    release = ("release", spec, "--output", out, "--release-id", "first")
    clean(
        tmp_path,
        done("plan", spec, env=env),
        done("plan", spec, "--footers", env=env),
        done(*release, "--log-format", "json", "--metrics-file", tmp_path / "left" / "m", env=env),
        done(*release, env=env),
        done("show", out, "--json", env=env),
        done("verify", out, "--ledger", tmp_path / "ledger", env=env),
        done("report", out, env=env),
        done("sample", out, "--rows", 50, "--output", rows, env=env),
        done("ledger", "show", tmp_path / "ledger", "--json", env=env),
        done("ledger", "verify", tmp_path / "ledger", env=env),
        done("runs", tmp_path / "ledger", env=env),
        done("record", out, "--json", env=env),
        done("doctor", "--store", tmp_path / "ledger", env=env),
        done("init", tmp_path / "data", "--no-ask", env=env),
        done("audit", spec, "--draws", 100, "--rows", 50, env=env),
    )
    assert list(files_below(tmp_path / "left")) == [tmp_path / "left" / "m"]


def lengths(batch: Any) -> Any:
    """An encoder of texts."""
    return np.array([[len(text), 1.0] for text in batch], dtype=np.float32)


def fails(batch: Any) -> Any:
    """An encoder that fails, and quotes what it was given."""
    raise ValueError(f"cannot encode {list(batch)!r}")


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "code"), [(lengths, 0), (fails, 1)])
def test_encoding_shows_no_marker(encoder, code, tmp_path):
    """Its output holds private rows; what it says and what it leaves elsewhere does not."""
    data, left = marked(tmp_path / "data"), tmp_path / "left"
    left.mkdir()
    encode = ("encode", data, "--encoder", f"{__name__}:{encoder.__name__}", "--column", "user")
    result = dpgmm(*encode, "--output", tmp_path / "encoded", env={"TMPDIR": str(left)})
    assert result.returncode == code, result.stderr
    clean(tmp_path, result)


FAULTS = {name: make for name, (make, _) in bad_input.FILES.items()}
FAULTS["a page"] = bad_input.corrupt_page  # which the workers find


def marked_fault(fault: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A specification of files with this fault, whose rows hold markers."""
    monkeypatch.setattr(bad_input, "ROWS", Rows([[VALUE, VALUE / 2, -VALUE]] * 60, [3] * 60))
    return write_spec(place / "spec.yaml", FAULTS[fault](place), bounds={"norm": 400.0})


@pytest.mark.variant
@pytest.mark.parametrize("fault", FAULTS)
def test_no_failure_shows_a_marker(fault, tmp_path, monkeypatch):
    spec = marked_fault(fault, tmp_path, monkeypatch)
    left = tmp_path / "left"
    left.mkdir()
    result = dpgmm("release", spec, "--output", tmp_path / "out", env={"TMPDIR": str(left)})
    assert result.returncode in (2, 4), result.stderr
    clean(tmp_path, result)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Path]:
    """A folder with the scheduler's file of a running cluster, and its log at level debug."""
    place = tmp_path_factory.mktemp("cluster")
    file = place / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    common = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    env = environment({"DASK_LOGGING__DISTRIBUTED": "debug"})
    with (place / "log").open("w") as log:
        processes = [
            subprocess.Popen([*dask, *what, *common], stdout=log, stderr=log, cwd=place, env=env)
            for what in (["scheduler", "--port", "0"], ["worker", "--nthreads", "1", "--no-nanny"])
        ]
        try:
            until(file.exists, "the scheduler's file")
            yield place
        finally:
            for process in processes:
                process.kill()
                process.wait(30)


@pytest.mark.variant
@pytest.mark.parametrize("fault", FAULTS)
def test_no_failure_on_a_cluster_shows_a_marker(fault, cluster, tmp_path, monkeypatch):
    spec = marked_fault(fault, tmp_path, monkeypatch)
    where = ("--scheduler-file", cluster / "scheduler.json", "--log-format", "json")
    result = dpgmm("release", spec, "--output", tmp_path / "out", *where)
    assert result.returncode in (2, 4), result.stderr
    clean(tmp_path, result)
    logged = (cluster / "log").read_text()
    assert "Compute Failed" in logged or fault != "a page"  # or this test searched the wrong log
    assert find_markers(logged) == []


@pytest.mark.slow
def test_no_page_of_a_cluster_shows_a_marker(tmp_path):
    """What scheduler and workers show about themselves while and after the tasks ran."""
    distributed = pytest.importorskip("distributed")
    from dpgmm_dist.engine.cluster import current_cluster
    from dpgmm_dist.pipeline.release import release
    from dpgmm_dist.spec.release_spec import ReleaseSpec

    spec, _ = job(tmp_path)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        engine = current_cluster()
        scratch = str(tmp_path / "left")
        release(
            ReleaseSpec.from_yaml(spec),
            output=str(tmp_path / "out"),
            engine=engine,
            scratch=scratch,
        )
        address = cluster.dashboard_link.rsplit("/", 1)[0]
        for page in ("json/counts.json", "json/index.html", "info/main/workers.html", "metrics"):
            with urllib.request.urlopen(f"{address}/{page}", timeout=300) as answer:
                assert find_markers(answer.read()) == [], page
        pages = [
            json.dumps(client.get_worker_logs(), default=str),
            json.dumps(client.get_scheduler_logs(), default=str),
            json.dumps(client.run_on_scheduler(_tasks), default=str),
            json.dumps(list(client.get_task_stream()), default=str),
        ]
    for text in pages:
        assert find_markers(text) == []
    clean(tmp_path)


def _tasks(dask_scheduler: Any) -> list[str]:
    """Tasks that the scheduler knows, and the transitions of those that it forgot."""
    transitions = [repr(transition) for transition in dask_scheduler.transition_log]
    return [*map(repr, dask_scheduler.tasks.values()), *transitions]
