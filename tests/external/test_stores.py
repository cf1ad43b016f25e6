"""Whole jobs on each object store, with rows, ledger, journal, release and samples in it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from pyarrow import ArrowInvalid

from dpgmm_dist import ReleaseSpec, release
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.errors import DataError, DpgmmError
from dpgmm_dist.storage import parquet_files
from dpgmm_dist.storage.arrow_stores import arrow_filesystem
from dpgmm_dist.storage.parquet_files import opened
from dpgmm_dist.storage.snapshots import list_input
from dpgmm_dist.storage.urls import secrets_in

from ..system.releases import WIDTH, Rows, done, dpgmm, labelled, write_spec
from .emulators import ObjectStore

EPSILON, DELTA = 1.0, 1e-6


@pytest.fixture
def job(object_store: ObjectStore, tmp_path: Path) -> Job:
    return Job(object_store, tmp_path)


class Job:
    """Rows and a ledger on a store, and a specification of both."""

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.options = folder / "options.yaml"
        self.options.write_text(yaml.safe_dump(store.storage_options))
        self.rows = Rows.make()
        self.local = self.rows.write(folder / "data", files=3, row_group=200)
        self.data = store.upload(self.local, "data")
        self.ledger, self.output = store.below("ledger"), store.below("releases/one")
        given = {"storage_options": store.storage_options}
        self.spec = write_spec(
            folder / "spec.yaml",
            Path("unused"),
            dataset={"path": self.data, **labelled(), **given},
            privacy={"epsilon": EPSILON, "delta": DELTA, "ledger": self.ledger, **given},
            output={"path": self.output, **given},
        )

    def init(self) -> None:
        Ledger.init(self.ledger, EPSILON, DELTA, storage_options=self.store.storage_options)

    def secrets(self) -> list[str]:
        """Return the options that are credentials on a real store."""
        options = self.store.storage_options
        texts = secrets_in([options.get("secret"), options.get("connection_string")])
        return [text for text in texts if not text.startswith("http://")]

    def assert_no_options_in(self, *texts: str | bytes) -> None:
        for text in texts:
            content = text.encode() if isinstance(text, str) else text
            assert b"storage_options" not in content
            for secret in map(str.encode, self.secrets()):
                assert secret not in content
                assert base64.b64encode(secret)[:-4] not in content


def test_a_release_is_made_verified_sampled_and_resumed(job: Job) -> None:
    numbers = ("--epsilon", EPSILON, "--delta", DELTA)
    done("ledger", "init", job.ledger, *numbers, "--storage-options", job.options)
    first = done("release", job.spec, "--release-id", "r1", "--json")
    assert json.loads(first.stdout)["release"] == job.output
    stored = job.store.contents("releases/one")
    assert {path.rpartition("/")[2] for path in stored} >= {"release.json", "mixture.parquet"}
    journal = job.store.contents("ledger/journal/r1")
    assert any(path.endswith("finished.json") for path in journal)

    again = done("release", job.spec, "--release-id", "r1", "--json")
    assert json.loads(again.stdout)["status"] == "already_done"
    assert job.store.contents("releases/one") == stored

    verified = done("verify", job.output, "--storage-options", job.options)
    shown = done("ledger", "show", job.ledger, "--storage-options", job.options, "--json")
    assert len(json.loads(shown.stdout)["charges"]) == 1

    samples = ("--rows", 100, "--partitions", 2, "--output", job.store.below("samples"))
    sampled = done("sample", job.output, *samples, "--storage-options", job.options)
    files = job.store.contents("samples")
    assert sorted(path.rpartition("/")[2] for path in files) == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    with job.store.fs.open(sorted(files)[0]) as file:
        table = pq.read_table(file)
    assert table.column_names == ["x", "y"]
    assert len(table) == 50
    assert len(table["x"][0]) == WIDTH

    printed = [text for run in (first, again, verified, shown, sampled) for text in _output(run)]
    job.assert_no_options_in(*printed, *stored.values(), *journal.values(), *files.values())


def test_a_second_release_exceeds_the_budget(job: Job) -> None:
    job.init()
    release(ReleaseSpec.from_yaml(job.spec), release_id="r1")
    second = ("--release-id", "r2", "--output", job.store.below("releases/two"))
    refused = dpgmm("release", job.spec, *second)
    assert refused.returncode == 3
    assert "Remaining" in refused.stderr
    job.assert_no_options_in(*_output(refused))


def test_a_killed_job_resumes_from_the_store_and_pays_once(job: Job) -> None:
    """It is stopped after a stored answer; the stored files then stay the same."""
    job.init()
    spec = ReleaseSpec.from_yaml(job.spec)

    class Killed(BaseException):
        pass

    def stop(event: Any) -> None:
        if event.index == 2:
            raise Killed

    with pytest.raises(Killed):
        release(spec, release_id="r1", progress=stop)
    before = job.store.contents("ledger/journal/r1")
    assert any("answer-0000" in path for path in before)

    release(spec, release_id="r1")
    after = job.store.contents("ledger/journal/r1")
    assert {path: after[path] for path in before} == before
    ledger = Ledger.open(job.ledger, job.store.storage_options)
    assert len(ledger.show()["charges"]) == 1


def test_a_release_from_the_store_is_that_from_local_files(job: Job, tmp_path: Path) -> None:
    """With test noise the files are the same bytes, wherever the rows were read from."""
    local = tmp_path / "local"
    local_places = [f"dataset.path={job.local}", "dataset.storage_options={}"]
    local_places += [f"output.path={local}", "output.storage_options={}"]
    for changes in ([], local_places):
        spec = ReleaseSpec.from_yaml(job.spec, ["privacy.ledger=null", *changes])
        release(spec, release_id="same", insecure_test_noise=7)
    stored = job.store.contents("releases/one")
    for name in ("mixture.parquet", "transform.parquet"):
        (content,) = [data for path, data in stored.items() if path.endswith(name)]
        assert content == (local / name).read_bytes()


def test_an_error_about_credentials_shows_none(job: Job) -> None:
    """The exit code is that of storage, and the message holds no secret."""
    if "connection_string" not in job.store.storage_options:
        pytest.skip("this emulator takes any credential")
    wrong = job.store.storage_options["connection_string"].replace("Eby8vdM02x", "Eby8WRONGx")
    given = yaml.safe_dump({"connection_string": wrong}, default_flow_style=True, width=10**6)
    result = dpgmm("release", job.spec, "--set", f"dataset.storage_options={given}")
    assert result.returncode == DataError.exit_code
    assert "dataset.path" in result.stderr
    assert "Eby8" not in result.stderr
    job.assert_no_options_in(*_output(result))


def test_a_missing_path_or_bucket_is_an_error_that_names_it(job: Job) -> None:
    for path in (job.store.below("nothing"), f"{job.store.url}-gone/data"):
        result = dpgmm("release", job.spec, "--set", f"dataset.path={path}")
        assert result.returncode in (2, DataError.exit_code), result.stderr
        assert path in result.stderr
        assert "Traceback" not in result.stderr
        job.assert_no_options_in(*_output(result))


def test_an_error_of_the_library_quotes_no_option(job: Job) -> None:
    with pytest.raises(DpgmmError) as caught:
        Ledger.open(job.store.below("no-ledger"), job.store.storage_options)
    job.assert_no_options_in(str(caught.value), repr(caught.value))


def _output(result: Any) -> tuple[str, str]:
    return result.stdout, result.stderr


def test_arrows_client_and_fsspec_read_the_same_rows(
    object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = Rows.make().write(tmp_path / "data", files=2, row_group=200)
    object_store.upload(local, "data")
    paths = sorted(object_store.fs.find(object_store.below("data")))
    assert len(paths) == 2
    expected = [pq.read_table(path) for path in sorted(local.rglob("*.parquet"))]
    # Arrow's client is used for the stores on which it is faster: all but S3.
    arrow_fs = arrow_filesystem(object_store.fs)
    assert (arrow_fs is None) == object_store.url.startswith("s3://")

    def read() -> list[Any]:
        tables = []
        for path in paths:
            with opened(object_store.fs, path, 1, 1 << 20) as file:
                tables.append(file.read())
        return tables

    assert read() == expected
    with pytest.raises(FileNotFoundError), opened(object_store.fs, paths[0] + "x", 1, 0):
        pass
    monkeypatch.setattr(parquet_files, "arrow_filesystem", lambda fs: None)
    assert read() == expected


@pytest.mark.parametrize("problem", [OSError("no credentials"), ArrowInvalid("such a path")])
def test_fsspec_opens_a_file_that_arrows_client_cannot_open(
    problem: Exception, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = Rows.make().write(tmp_path / "data", files=1, row_group=200)
    object_store.upload(local, "data")
    (path,) = object_store.fs.find(object_store.below("data"))

    class Refuses:
        def open_input_file(self, path: str) -> None:
            raise problem

    monkeypatch.setattr(parquet_files, "arrow_filesystem", lambda fs: Refuses())
    with opened(object_store.fs, path, 1, 1 << 20) as file:
        assert file.read().num_rows == pq.read_table(local).num_rows


def test_a_listing_of_several_pages_is_whole(s3_store: ObjectStore) -> None:
    """S3 lists at most a thousand objects at once."""
    count = 1050
    names = [f"many/part-{number:05d}.parquet" for number in range(count)]
    s3_store.fs.pipe({s3_store.below(name): b"PAR1" for name in names})
    place = parquet_files.Place(s3_store.below("many"), s3_store.storage_options)
    found = list_input(place).files
    assert [file.path.rpartition("/")[2] for file in found] == [
        name.rpartition("/")[2] for name in names
    ]
