"""Input that changes while a release runs: refused before anything is drawn for what was read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.errors import DataError
from dpgmm_dist.pipeline.release import release
from dpgmm_dist.progress import PassProgress
from dpgmm_dist.spec.release_spec import ReleaseSpec

from .releases import Rows, digests, labelled, write_spec

ID = "week-1"


def touch(data: Path) -> None:
    file = data / "part-001.parquet"
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


def back(data: Path) -> None:
    """The very files, with their times."""
    shutil.rmtree(data)
    shutil.copytree(data.with_name("backup"), data)


CHANGES = {
    "rewritten": touch,
    "another file": lambda data: shutil.copy(data / "part-001.parquet", data / "part-009.parquet"),
    "moved": lambda data: (data / "part-000.parquet").rename(data / "part-008.parquet"),
    "gone": lambda data: (data / "part-002.parquet").unlink(),
    "cut short": lambda data: os.truncate(data / "part-001.parquet", 500),
}


@pytest.mark.parametrize(
    "change",
    [
        "rewritten",
        *(pytest.param(name, marks=pytest.mark.slow) for name in CHANGES if name != "rewritten"),
    ],
)
def test_input_that_changes_between_passes_is_refused_and_nothing_is_drawn(change, tmp_path):
    data = Rows.make(200).write(tmp_path / "data", files=3)
    shutil.copytree(data, tmp_path / "backup")
    spec = ReleaseSpec.from_yaml(write_spec(tmp_path / "spec.yaml", data, dataset=labelled()))
    out = str(tmp_path / "out")

    def progress(event: PassProgress) -> None:
        # Rows kept in memory hide that files went: so this is before the first pass reads any.
        if event.index == first and event.fraction == 0.0:
            CHANGES[change](data)

    first = 1
    with pytest.raises(DataError) as caught:
        release(spec, output=out, release_id=ID, insecure_test_noise=7, progress=progress)
    assert caught.value.exit_code == 4
    assert not list((tmp_path / "out").rglob("answer-*"))
    back(data)
    first = 2
    with pytest.raises(DataError):
        release(spec, output=out, release_id=ID, insecure_test_noise=7, progress=progress)
    assert len(list((tmp_path / "out").rglob("answer-*"))) == 1
    assert not (tmp_path / "out" / "release.json").exists()
    # Once it is back as it was, the same command finishes the release that would have been.
    back(data)
    release(spec, output=out, release_id=ID, insecure_test_noise=7)
    release(spec, output=str(tmp_path / "calm"), release_id=ID, insecure_test_noise=7)
    assert digests(tmp_path / "out") == digests(tmp_path / "calm")


def test_a_change_costs_nothing_before_the_first_answer_and_nothing_more_after(tmp_path):
    data = Rows.make(200).write(tmp_path / "data", files=3)
    shutil.copytree(data, tmp_path / "backup")
    Ledger.init(str(tmp_path / "ledger"), 1.0, 1e-6)
    privacy = {"ledger": str(tmp_path / "ledger")}
    path = write_spec(tmp_path / "spec.yaml", data, dataset=labelled(), privacy=privacy)
    spec = ReleaseSpec.from_yaml(path)

    for at, charges in ((1, 0), (2, 1)):

        def progress(event: PassProgress, at: int = at) -> None:
            if event.index == at and event.fraction == 0.0:
                touch(data)

        with pytest.raises(DataError):
            release(spec, output=str(tmp_path / "out"), release_id=ID, progress=progress)
        records = list((tmp_path / "ledger" / "ledger").glob("*.json"))
        assert len(records) == 1 + charges
        back(data)
    release(spec, output=str(tmp_path / "out"), release_id=ID)
    assert len(list((tmp_path / "ledger" / "ledger").glob("*.json"))) == 2


def test_rows_of_privacy_units_are_safe_once_they_are_kept(tmp_path):
    """Passes read what was kept: the input may change from then on."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    data.mkdir()
    x = pa.array(list((rng.normal(size=(300, 3)) * 0.3).astype(np.float32)))
    pq.write_table(pa.table({"x": x, "who": rng.integers(0, 80, 300)}), data / "a.parquet")
    unit = {"column": "who", "max_rows": 2, "aggregate": "weight"}
    path = write_spec(tmp_path / "spec.yaml", data, dataset={"privacy_unit": unit})
    spec = ReleaseSpec.from_yaml(path)
    calm = str(tmp_path / "calm")
    release(spec, output=calm, release_id=ID, insecure_test_noise=7)

    def gone_after_the_first_pass(event: PassProgress) -> None:
        if event.index == 2 and event.fraction == 0.0:
            (data / "a.parquet").unlink(missing_ok=True)

    def gone_while_units_are_gathered(event: PassProgress) -> None:
        if event.step == "privacy units":
            (data / "a.parquet").unlink(missing_ok=True)

    shutil.copytree(data, tmp_path / "backup")
    out = str(tmp_path / "out")
    release(
        spec, output=out, release_id=ID, insecure_test_noise=7, progress=gone_after_the_first_pass
    )
    assert digests(tmp_path / "out") == digests(tmp_path / "calm")
    back(data)
    with pytest.raises(DataError):
        release(
            spec,
            output=str(tmp_path / "no"),
            release_id=ID,
            insecure_test_noise=7,
            progress=gone_while_units_are_gathered,
        )
