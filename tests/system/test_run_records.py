"""The record of a run: complete beside the ledger, nothing private outside of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.budget.runs import runs
from dpgmm_dist.engine.base import Engine
from dpgmm_dist.engine.cluster import DaskEngine
from dpgmm_dist.engine.local import LocalEngine
from dpgmm_dist.engine.memory import memory_plan
from dpgmm_dist.errors import DataError
from dpgmm_dist.pipeline import run_record
from dpgmm_dist.pipeline.release import release
from dpgmm_dist.pipeline.resolve import open_dataset, problem_of
from dpgmm_dist.progress import PassProgress
from dpgmm_dist.spec.release_spec import ReleaseSpec

from .releases import WIDTH, Rows, done, labelled, write_spec

ROWS = 500


def job(folder: Path, rows: int = ROWS, ledger: bool = True) -> ReleaseSpec:
    """A release by stages, of four row groups, which takes a second."""
    url = str(folder / "ledger")
    if ledger:
        Ledger.init(url, 1.0, 1e-5)
    data = Rows.make(rows).write(folder / "data", files=4)
    spec = write_spec(
        folder / "spec.yaml",
        data,
        dataset=labelled(),
        privacy={"ledger": url} if ledger else {},
    )
    return ReleaseSpec.from_yaml(spec)


def kept(folder: Path) -> list[dict[str, Any]]:
    return runs(Ledger.open(str(folder / "ledger")).store)


@pytest.fixture(scope="module", params=["threads", "dask"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "threads":
        yield LocalEngine(2, cache_bytes=0)
        return
    import distributed

    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield DaskEngine(client)


def test_each_pass_is_recorded_with_what_it_took(tmp_path: Path, engine: Engine) -> None:
    result = release(job(tmp_path), output=str(tmp_path / "out"), engine=engine, run="nightly")
    assert result.receipt is not None
    (record,) = kept(tmp_path)
    assert (record["run"], record["outcome"], record["engine"]) == ("nightly", "done", engine.name)
    assert [of_pass["step"] for of_pass in record["passes"]] == [
        query["step"] for query in result.receipt["queries"]
    ]
    for of_pass in record["passes"]:
        assert of_pass["tasks"] >= 1
        assert of_pass["bytes"] >= ROWS * 3 * 4
        assert of_pass["processor_seconds"] > 0
        assert 0 < of_pass["wall_seconds"] <= record["wall_seconds"]
        assert of_pass["workers"] >= 1
        assert (of_pass["retries"], of_pass["stalls"], of_pass["workers_lost"]) == (0, 0, 0)
        assert of_pass["worker_peak_bytes"] > 10 << 20
        assert of_pass["driver_peak_bytes"] > 10 << 20


def test_a_pass_without_progress_counts_as_stalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_record, "STALL_SECONDS", 0.0)
    release(job(tmp_path), output=str(tmp_path / "out"))
    (record,) = kept(tmp_path)
    assert all(of_pass["stalls"] >= 1 for of_pass in record["passes"])


def test_a_resumed_release_has_a_record_of_each_run(tmp_path: Path) -> None:
    spec, noted = job(tmp_path), []

    def stop(event: PassProgress) -> None:
        noted.append(event)
        if event.index == 2:
            raise DataError("the disk is gone")

    options: dict[str, Any] = {"output": str(tmp_path / "out"), "release_id": "same"}
    with pytest.raises(DataError):
        release(spec, progress=stop, **options)
    release(spec, **options)
    first, second = sorted(kept(tmp_path), key=lambda record: record["outcome"])
    assert (first["outcome"], second["outcome"]) == ("DataError", "done")
    assert second["passes_replayed"] == len(first["passes"]) == 1
    assert "the disk is gone" not in json.dumps(first)


def test_nothing_is_kept_in_an_output(tmp_path: Path) -> None:
    """It gets published."""
    release(job(tmp_path, ledger=False), output=str(tmp_path / "out"))
    assert not list(tmp_path.rglob("runs"))


def test_a_store_that_fails_at_the_end_loses_only_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise DataError("full")

    monkeypatch.setattr(run_record, "keep_run", refuse)
    release(job(tmp_path), output=str(tmp_path / "out"))
    assert (tmp_path / "out" / "release.json").exists()
    assert "could not be written" in caplog.text


def test_what_is_printed_is_the_same_for_other_rows(tmp_path: Path) -> None:
    printed = []
    for name, rows in (("few", 400), ("many", 4900)):
        (tmp_path / name).mkdir()
        job(tmp_path / name, rows)
        out = done(
            *("release", tmp_path / name / "spec.yaml", "--output", tmp_path / name / "out"),
            *("--release-id", name, "--json"),
            env={"DPGMM_RUN_ID": "run-1"},
        ).stdout
        printed.append(json.loads(out)["run"])
    assert printed[0] == printed[1]
    assert set(printed[0]) == {"run", "engine", "libraries"}
    listed = [done("runs", tmp_path / name / "ledger").stdout for name in ("few", "many")]
    for name, text in zip(("few", "many"), listed, strict=True):
        assert text.startswith("TRUSTED SIDE")
        assert name in text
        assert "run-1" in text
    in_json = json.loads(done("runs", tmp_path / "many" / "ledger", "--json").stdout)
    assert in_json["trusted_side"] is True
    assert in_json["runs"][0]["passes"] == kept(tmp_path / "many")[0]["passes"]


def test_a_damaged_record_is_named_and_stops_nothing(tmp_path: Path) -> None:
    Ledger.init(str(tmp_path / "ledger"), 1.0, 1e-5)
    assert "runs: none" in done("runs", tmp_path / "ledger").stdout
    (tmp_path / "ledger" / "runs").mkdir()
    (tmp_path / "ledger" / "runs" / "20260101T000000Z-a-b.json").write_text("{")
    assert "damaged: " in done("runs", tmp_path / "ledger").stdout
    assert "ok: yes" in done("ledger", "verify", tmp_path / "ledger").stdout


def test_spans_have_names_of_steps_and_nothing_of_a_failure(tmp_path: Path) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="needs opentelemetry-sdk")
    export: Any = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory: Any = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    from opentelemetry import trace

    spans = memory.InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    spec = job(tmp_path)
    result = release(spec, output=str(tmp_path / "out"), release_id="traced")
    assert result.receipt is not None
    finished = spans.get_finished_spans()
    steps = [dict(span.attributes) for span in finished if span.name == "dpgmm.pass"]
    assert steps == [{"dpgmm.step": query["step"]} for query in result.receipt["queries"]]
    assert finished[-1].name == "dpgmm.release"
    assert finished[-1].attributes["dpgmm.release_id"] == "traced"
    spans.clear()
    (tmp_path / "data" / "part-000.parquet").write_bytes(b"secret")
    with pytest.raises(DataError):
        release(spec, output=str(tmp_path / "other"), release_id="broken")
    (failed,) = spans.get_finished_spans()
    assert failed.events == ()
    assert (failed.status.status_code.name, failed.status.description) == ("ERROR", None)


@pytest.mark.slow  # a joint fit, whose search takes most of the driver's memory
def test_driver_and_workers_stay_below_the_memory_that_is_forecast(tmp_path: Path) -> None:
    ledger = str(tmp_path / "ledger")
    Ledger.init(ledger, 1.0, 1e-5)
    data = Rows.make(20_000).write(tmp_path / "data", files=4)
    file = write_spec(
        tmp_path / "spec.yaml",
        data,
        privacy={"ledger": ledger},
        model={"components": 2, "assignment": "hard"},
        cluster={"kind": "local", "workers": 2},
    )
    spec = ReleaseSpec.from_yaml(file)
    forecast = memory_plan(problem_of(spec, WIDTH, 0.1), open_dataset(spec.dataset).plan())
    done("release", file, "--output", tmp_path / "out")
    (record,) = kept(tmp_path)
    assert any(of_pass["step"].startswith("components") for of_pass in record["passes"])
    peak = max(of_pass["worker_peak_bytes"] for of_pass in record["passes"])
    assert forecast.worker(1) / 10 < peak < forecast.worker(1)
    assert forecast.driver / 10 < record["driver_peak_bytes"] < forecast.driver
