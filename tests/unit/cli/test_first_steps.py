"""dpgmm init and dpgmm doctor: a specification from a schema, and checks with advice."""

from __future__ import annotations

import io
import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpgmm_dist import ReleaseSpec
from dpgmm_dist.cli import main as cli
from dpgmm_dist.pipeline import doctor, first_spec
from dpgmm_dist.pipeline.plan import plan

SECRET = 987_654_321


@pytest.fixture
def run(capsys: Any) -> Any:
    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.main(list(arguments))
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err

    return call


@pytest.fixture
def table(tmp_path: Path) -> str:
    columns = {
        "user_id": pa.array([SECRET], pa.int64()),
        "age": pa.array([SECRET % 99], pa.int16()),
        "since": pa.array([date(1999, 9, 9)]),
        "true": pa.array([True]),
        "home town": pa.array(["Atlantis"]),
    }
    (tmp_path / "rows").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "rows" / "a.parquet")
    return str(tmp_path / "rows")


def embeddings(tmp_path: Path, kind: pa.DataType) -> str:
    rows = pa.array([[0.0] * 4], kind)
    pq.write_table(pa.table({"v": rows, "label": pa.array([3])}), tmp_path / "v.parquet")
    return str(tmp_path / "v.parquet")


def test_a_table_becomes_a_specification_that_can_be_planned(run, table, tmp_path):
    target = tmp_path / "job.yaml"
    code, out, _ = run("init", table, "--spec", str(target), "--unit", "user_id", "--no-ask")
    assert code == 0
    assert f"dpgmm plan {target}" in out
    spec = ReleaseSpec.from_yaml(target)
    assert spec.dataset.features == ("age", "since", "true")
    assert spec.dataset.privacy_unit.column == "user_id"
    assert plan(spec, rows=1000).blocks
    text = target.read_text()
    assert "FILL IN" not in text
    assert str(SECRET) not in text
    assert "Atlantis" not in text
    assert "1999" not in text


def test_without_an_answer_all_numbers_are_features_and_bounds_are_found(run, table):
    code, text, _ = run("init", table, "--no-ask")
    assert code == 0
    spec = ReleaseSpec.from_dict(first_spec.parse(text, "test"))
    assert spec.dataset.features == ("user_id", "age", "since", "true")
    assert dict(spec.bounds.columns) == dict.fromkeys(spec.dataset.features, "auto")
    assert "perhaps home town" in text


def test_columns_of_words_are_offered_as_categories(run, table):
    _, text, _ = run("init", table, "--no-ask")
    offered = text.replace("  # categories:", "  categories:").replace("  #   ", "    ")
    offered = offered.replace("# nulls", "nulls").replace("[VALUE, VALUE]", "[Berlin, Bern]")
    spec = ReleaseSpec.from_dict(first_spec.parse(offered, "test"))
    assert dict(spec.dataset.categories) == {"home town": ("Berlin", "Bern")}
    assert spec.dataset.nulls == "model"
    labelled = ["--label", "home town", "--labels", "Berlin"]
    assert "categories" not in run("init", table, "--no-ask", *labelled)[1]


@pytest.mark.parametrize(
    ("kind", "open_line"),
    [(pa.list_(pa.float32(), 4), False), (pa.list_(pa.float32()), True)],
)
def test_embeddings_say_their_width_or_leave_it_open(run, tmp_path, kind, open_line):
    data = embeddings(tmp_path, kind)
    code, text, _ = run("init", data, "--label", "label", "--labels", "0", "--labels", "3")
    assert code == 0
    assert ("# width: 128  # FILL IN" in text) == open_line
    document = first_spec.parse(text.replace("# width: 128", "width: 4"), "test")
    spec = ReleaseSpec.from_dict(document)
    assert spec.dataset.labels == (0, 3)
    assert spec.dataset.features == "v"
    assert spec.bounds.norm == "auto"


def test_a_person_is_asked_for_what_no_schema_says(run, table, monkeypatch):
    answers = "home town\nBerlin, New York\n\nage, since\n2\n1e-8\nmine\nout\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(answers))
    code, text, asked = run("init", table, "--ask")
    assert code == 0, asked
    spec = ReleaseSpec.from_dict(first_spec.parse(text[text.index("# A spec") :], "test"))
    assert spec.dataset.label == "home town"
    assert spec.dataset.labels == ("Berlin", "New York")
    assert spec.dataset.features == ("age", "since")
    assert (spec.privacy.epsilon, spec.privacy.delta) == (2.0, 1e-8)
    assert (spec.privacy.ledger, spec.output.path) == ("mine", "out")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--features", "agee"], 2, "there is no column 'agee': use one of user_id, age"),
        (["--label", "age"], 2, "a label needs its public values"),
        (["--features", "home town"], 2, "home town"),
    ],
)
def test_answers_that_are_wrong_are_refused_and_nothing_is_written(
    run, table, tmp_path, options, code, words
):
    target = tmp_path / "job.yaml"
    found, _, err = run("init", table, "--spec", str(target), "--no-ask", *options)
    assert (found, target.exists()) == (code, False)
    assert words in err


def test_a_file_that_exists_is_kept(run, table, tmp_path):
    target = tmp_path / "job.yaml"
    target.write_text("mine")
    code, _, err = run("init", table, "--spec", str(target), "--no-ask")
    assert (code, target.read_text()) == (2, "mine")
    assert "exists already" in err
    code, _, err = run("init", str(tmp_path / "nowhere"), "--no-ask")
    assert code == 4
    assert "nowhere" in err


def test_the_doctor_finds_versions_and_a_store_that_works(run, tmp_path):
    code, out, _ = run("doctor", "--store", str(tmp_path / "store"), "--json")
    found = json.loads(out)
    assert (code, found["ok"]) == (0, True)
    checks = {entry["check"]: entry["found"] for entry in found["checks"]}
    assert {"python", "dpgmm-dist", "numpy", "opendp", "cores"} <= set(checks)
    assert "creates a name only once" in checks[f"store {tmp_path / 'store'}"]
    assert not list((tmp_path / "store").iterdir())


def test_the_doctor_says_what_to_do(run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        doctor, "_requirements", lambda: ["numpy>=99.0", "no-such-package>=1", "scipy>=1"]
    )
    code, out, err = run("doctor")
    assert code == 1
    assert "FAIL numpy: is " in out
    assert "pip install 'numpy>=99.0'" in out
    assert "FAIL no-such-package: is not installed: pip install 'no-such-package>=1'" in out
    assert "ok   scipy" in out
    assert "2 of 6 checks failed" in err
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(doctor, "_requirements", list)
    assert run("doctor", "--store", str(tmp_path / "file"))[0] == 4


def test_a_store_that_overwrites_is_found(run, monkeypatch, tmp_path):
    from dpgmm_dist.storage.store import FsspecStore

    def overwrite(self, name, data):
        path = Path(self._path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    monkeypatch.setattr(FsspecStore, "create", overwrite)
    code, out, _ = run("doctor", "--store", str(tmp_path / "store"))
    assert code == 4
    assert "FAIL store" in out


def test_a_scheduler_that_does_not_answer_is_found(run, tmp_path, monkeypatch):
    from dpgmm_dist.engine import cluster

    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 1)
    code, out, _ = run("doctor", "--scheduler", "tcp://127.0.0.1:9")
    assert code == 5
    assert "FAIL cluster" in out
