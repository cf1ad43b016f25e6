"""``dpgmm report --decoder``: a copy of the report that shows decoded rows."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import releases
from typer.testing import CliRunner

from dpgmm_dist import load_release
from dpgmm_dist.artifact.report import render_report
from dpgmm_dist.artifact.report.examples import Examples
from dpgmm_dist.cli import main as cli


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    return done.exit_code, done.output


@pytest.fixture
def release(tmp_path: Path) -> Path:
    releases.write(tmp_path / "release")
    return tmp_path / "release"


def test_pictures_of_each_label_are_in_the_page_itself(release: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    before = (release / "report.html").read_bytes()
    command = ["report", release, "--decoder", "pixels", "--shape", "1x3"]
    code, shown = run(*command, "--output", tmp_path / "new.html")
    assert code == 0 and "new.html" in shown
    text = (tmp_path / "new.html").read_text()
    strips = re.findall(r'<h3>(label \d)</h3><img [^>]*src="data:image/png;base64,([^"]+)"', text)
    assert [label for label, _ in strips] == ["label 7", "label 3"]
    picture = image.open(io.BytesIO(base64.b64decode(strips[0][1])))
    assert picture.size == (10 * 4 + 1, 3)  # ten pictures of 3x1 and the lines between them
    assert "decoded by pixels" in text
    assert (release / "report.html").read_bytes() == before
    run(*command, "--output", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == text
    code, shown = run(*command, "--output", tmp_path / "new.html")
    assert code == 4 and "File exists" in shown


def test_texts_are_public_ones(release: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(20, 3)).astype("f4")
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 3)
    table = pa.table({"text": [f"text <{i}>" for i in range(20)], "embedding": vectors})
    pq.write_table(table, tmp_path / "public.parquet")
    command = ["report", release, "--decoder", f"nearest:{tmp_path / 'public.parquet'}"]
    assert run(*command, "--output", tmp_path / "new.html")[0] == 0
    text = (tmp_path / "new.html").read_text()
    assert len(re.findall(r"<li>text &lt;\d+&gt;</li>", text)) == 10  # five of each of two labels
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--decoder", "pixels", "--shape", "1x3"], "needs --decoder and --output"),
        (["--output", "new.html"], "needs --decoder and --output"),
        (["--decoder", "pixels", "--shape", "5x5", "--output", "new.html"], "make them agree"),
    ],
)
def test_what_does_not_fit_is_refused(
    release: Path, tmp_path: Path, given: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, shown = run("report", release, *given)
    assert code == 2 and said in shown
    assert not (tmp_path / "new.html").exists()


def test_examples_are_escaped_and_absent_by_default(release: Path) -> None:
    loaded = load_release(str(release))
    page = render_report(loaded, Examples("a<b", {"label <i>": ["<b>"]})).decode()
    assert "<b>" not in page and "<i>" not in page and "a&lt;b" in page
    assert "What sampled rows look like" not in render_report(loaded).decode()
