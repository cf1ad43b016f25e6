"""``--workers auto``: a cluster that grows with the work releases what threads release."""

from __future__ import annotations

from pathlib import Path

import pytest

from .releases import Rows, digests, done, labelled, write_spec


@pytest.mark.slow
def test_a_cluster_that_grows_releases_the_same(tmp_path: Path) -> None:
    data = Rows.make(3000).write(tmp_path / "data", files=8, row_group=50)
    spec = write_spec(tmp_path / "spec.yaml", data, dataset=labelled())
    same = ("--insecure-test-noise", 3, "--release-id", "same")
    done("release", spec, "--output", tmp_path / "threads", *same)
    done("release", spec, "--output", tmp_path / "auto", "--workers", "auto", *same)
    section = ("--set", "cluster.kind=local", "--set", "cluster.workers={maximum: 3}")
    done("release", spec, "--output", tmp_path / "section", *section, *same)
    assert digests(tmp_path / "auto") == digests(tmp_path / "threads")
    assert digests(tmp_path / "section") == digests(tmp_path / "threads")
