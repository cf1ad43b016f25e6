"""Metrics for Prometheus: complete files in its format, with an exit code at the end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dpgmm_dist.cli import metrics as module
from dpgmm_dist.cli.metrics import Metrics, metrics_of_run
from dpgmm_dist.errors import ClusterError, DataError
from dpgmm_dist.progress import PassProgress

SAMPLE = re.compile(r'dpgmm_\w+(\{(\w+="([^"\\]|\\.)*",?)+\})? \d+')


def values(text: str) -> dict[str, int]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {re.split(r"[ {]", line)[0]: int(line.rpartition(" ")[2]) for line in lines}


def test_the_text_is_in_the_prometheus_format(tmp_path):
    metrics = Metrics(tmp_path / "m.prom", "run", 'a "quoted"\nid\\')
    metrics.progress(PassProgress("cells.1", 2, 5, 0.337))
    metrics.finish(0)
    text = (tmp_path / "m.prom").read_text()
    assert text.endswith("\n")
    for line in text.splitlines():
        assert SAMPLE.fullmatch(line) or re.fullmatch(r"# (HELP|TYPE) dpgmm_\w+ .+", line), line
    names = set(values(text))
    for kind in ("HELP", "TYPE"):
        assert set(re.findall(rf"^# {kind} (\w+) ", text, re.MULTILINE)) == names
    assert r"release_id=\"a" not in text
    assert r'release_id="a \"quoted\"\nid\\"' in text


def test_it_shows_the_passes_and_then_the_exit_code(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LEAST_SECONDS", 0.0)
    path = tmp_path / "m.prom"
    with metrics_of_run(path, "run", "id") as metrics:
        assert values(path.read_text())["dpgmm_running"] == 1
        assert "dpgmm_exit_code" not in values(path.read_text())
        for fraction, done in ((0.0, 1), (0.339, 1), (1.0, 2)):
            metrics.progress(PassProgress("cells.1", 2, 5, fraction))
            shown = values(path.read_text())
            assert shown["dpgmm_passes"] == 5
            assert shown["dpgmm_passes_done"] == done
            assert shown["dpgmm_pass_percent"] == int(100 * fraction)
    assert values(path.read_text())["dpgmm_running"] == 0
    assert values(path.read_text())["dpgmm_exit_code"] == 0
    assert [file.name for file in tmp_path.iterdir()] == ["m.prom"]


@pytest.mark.parametrize(
    ("error", "code"), [(ClusterError("x"), 5), (KeyboardInterrupt(), 130), (ValueError(), 1)]
)
def test_a_failure_has_its_exit_code(tmp_path, error, code):
    with pytest.raises(type(error)), metrics_of_run(tmp_path / "m.prom", "run", "id"):
        raise error
    assert values((tmp_path / "m.prom").read_text())["dpgmm_exit_code"] == code


def test_it_is_not_written_for_every_event(tmp_path, monkeypatch):
    written: list[int] = []
    monkeypatch.setattr(Metrics, "write", lambda self: written.append(1))
    metrics = Metrics(tmp_path / "m.prom", "run", "id")
    metrics._written = 1e12  # just now
    for index in range(100):
        metrics.progress(PassProgress("cells.1", 1, 5, index / 100))
    assert not written


def test_a_file_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path):
    with (
        pytest.raises(DataError, match=r"--metrics-file .*none/m\.prom: cannot be written"),
        metrics_of_run(tmp_path / "none" / "m.prom", "run", "id"),
    ):
        raise AssertionError("it ran")


def test_a_full_disk_later_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LEAST_SECONDS", 0.0)
    with metrics_of_run(tmp_path / "m.prom", "run", "id") as metrics:
        monkeypatch.setattr(module.os, "replace", _full)
        metrics.progress(PassProgress("cells.1", 1, 5, 0.5))
    assert [file.name for file in tmp_path.iterdir()] == ["m.prom"]


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")
