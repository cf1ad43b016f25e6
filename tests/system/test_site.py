"""The documentation site: what its pages are made of, and, after make docs, the site itself."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "build" / "site"
sys.path.insert(0, str(ROOT / "jobs" / "docs"))
pytest.importorskip("mkdocs", reason="needs requirements-docs.lock: make docs")
diagrams = pytest.importorskip("diagrams")
docstrings = pytest.importorskip("docstrings")
hooks = pytest.importorskip("hooks")
notebooks = pytest.importorskip("notebooks")
reference = pytest.importorskip("reference")

built = pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="not built: make docs")


def test_every_key_of_a_specification_is_described() -> None:
    text = reference.specification()
    for key in ("epsilon", "max_rows", "components", "release_id", "scheduler_file", "ca_file"):
        [row] = [line for line in text.splitlines() if line.startswith(f"| `{key}` |")]
        assert all(cell.strip() for cell in row.split("|")[1:-1]), row


def test_every_command_and_option_is_listed() -> None:
    text = reference.commands()
    for name in ("release", "plan", "ledger init", "ledger close", "audit", "encode", "doctor"):
        assert f"## `dpgmm {name}`" in text
    assert "`--release-id` `ID`" in text


def test_a_column_that_is_not_described_ends_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "`mean_se`" in reference.release()
    monkeypatch.delitem(reference._COLUMNS, "mean_se")
    with pytest.raises(KeyError, match="mean_se"):
        reference.release()


def test_no_column_is_described_that_is_not_written() -> None:
    written = {name for columns in reference._tables().values() for name, _ in columns}
    assert set(reference._COLUMNS) == written


def test_links_to_pages_stay_and_links_to_other_files_become_text() -> None:
    text = "[a](../deploy/README.md#size) [b](../pyproject.toml) [c](how-to/s3.md)\n"
    text += "```\n[d](../pyproject.toml)\n```"
    found = hooks.with_site_links(text, "docs/operations.md", "operations.md")
    assert found.startswith("[a](deploy.md#size) b [c](how-to/s3.md)\n")
    assert "[d](../pyproject.toml)" in found


def test_names_and_descriptions_are_told_apart() -> None:
    text = "What it is.\n\nAttributes\n----------\na, b : one\n    two.\nc : three."
    assert docstrings.descriptions(text) == {"a": "one two.", "b": "one two.", "c": "three."}
    assert "a, b\n    one\n    two." in docstrings.described(text)


def test_a_notebook_shows_what_it_printed_and_drew() -> None:
    import nbformat

    code = nbformat.v4.new_code_cell("x")
    code.outputs = [
        nbformat.v4.new_output("stream", text="\x1b[31mred\x1b[0m\n"),
        nbformat.v4.new_output("display_data", data={"image/png": "AAAA"}),
    ]
    text, pictures = notebooks.page(nbformat.v4.new_notebook(cells=[code]), "n")
    assert "```text\nred\n```" in text
    assert list(pictures) == ["notebook_n_0.png"]
    assert "notebook_n_0.png" in text


class _Loaded(HTMLParser):
    """The addresses that a page loads when it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe"):
            self.addresses += [given.get("src") or ""]
        if tag == "link" and given.get("rel") in ("stylesheet", "icon"):
            self.addresses += [given.get("href") or ""]


def test_every_diagram_is_drawn_and_every_drawing_is_used() -> None:
    pages = [page.read_text() for page in (ROOT / "docs").rglob("*.md")]
    names = {diagrams.drawing(text) for page in pages for text in diagrams.diagrams(page)}
    assert names and {path.name for path in diagrams.DRAWINGS.iterdir()} == names
    with pytest.raises(FileNotFoundError, match="draw_diagrams"):
        diagrams.with_drawings("```mermaid\nflowchart\n```", "page.md")
    shown = diagrams.with_drawings((ROOT / "docs" / "architecture.md").read_text(), "a/b.md")
    assert "```mermaid" not in shown and shown.count("](../images/diagrams/") == len(names)


@built
def test_pages_load_nothing_from_elsewhere() -> None:
    pages = list(SITE.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        loaded = _Loaded()
        loaded.feed(page.read_text())
        assert loaded.addresses
        assert not [address for address in loaded.addresses if "//" in address], page


@built
def test_the_notebooks_were_run() -> None:
    for name in ("embeddings", "table"):
        page = SITE / "tutorials" / f"notebook_{name}" / "index.html"
        assert "NOT PRIVATE" in page.read_text()
        assert list((SITE / "tutorials").glob(f"notebook_{name}_*.png"))


@built
def test_the_reference_has_what_users_import() -> None:
    page = (SITE / "reference" / "python" / "index.html").read_text()
    for name in ("DPGaussianMixture", "load_release", "ReleaseSpec", "n_components", "norm_bound"):
        assert name in page
