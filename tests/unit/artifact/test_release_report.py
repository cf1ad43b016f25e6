from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import releases

from dpgmm_dist import load_release
from dpgmm_dist.artifact.charts import Bar, column_chart, share_bar
from dpgmm_dist.artifact.report import render_report

VOID = {"meta"}


class Nesting(HTMLParser):
    """Checks that every element is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_deterministic_file_that_loads_nothing(tmp_path: Path) -> None:
    releases.write(
        tmp_path / "a", mixture=releases.mixture_of(p=2), transform=releases.projection()
    )
    page = (tmp_path / "a" / "report.html").read_bytes()
    assert render_report(load_release(str(tmp_path / "a"))) == page
    text = page.decode()
    nesting = Nesting()
    nesting.feed(text)
    assert nesting.open == [] and "svg" in nesting.tags
    assert not nesting.tags & {"script", "link", "img", "iframe"}
    assert not re.search(r"(?:src|href|url\()\s*=?", text)
    for expected in (
        "This release is (1, 1e-06)-differentially private",
        "A privacy unit is one row.",
        "components.1",
        "component 1",
        "dpgmm-dist",
    ):
        assert expected in text, expected
    assert str(tmp_path) not in text


def test_a_release_that_is_not_private_says_so_first(tmp_path: Path) -> None:
    receipt = releases.receipt_of(
        private=False, mechanism="insecure_test_noise", privacy_reason="test noise <seed 7>"
    )
    releases.write(tmp_path, receipt=receipt)
    text = (tmp_path / "report.html").read_text()
    assert "NOT PRIVATE: test noise &lt;seed 7&gt;" in text
    assert "differentially private" not in text


def test_names_of_columns_and_labels_are_escaped(tmp_path: Path) -> None:
    receipt = releases.receipt_of()
    receipt["specification"]["dataset"]["features"] = "<script>"
    mixture = releases.mixture_of(("<b>", "a&b"))
    schema = releases.LIST_INPUT | {"columns": [{"name": "<i>", "type": "float"}]}
    releases.write(tmp_path, mixture=mixture, receipt=receipt, input_schema=schema)
    nesting = Nesting()
    nesting.feed((tmp_path / "report.html").read_text())
    assert nesting.open == [] and not nesting.tags & {"b", "i", "script"}


@pytest.mark.parametrize("count", [0, 1, 7, 300])
def test_charts_are_well_formed_for_all_numbers(count: int) -> None:
    errors = [0.0, math.inf, 1e-9, 5.0]
    bars = [
        Bar(10.0 ** -(i % 12), errors[i % 4], f"<{i // 9}>", f"bar & {i}") for i in range(count)
    ]
    for chart in (column_chart(bars, 'a "caption"'), share_bar([("a", 0.3), ("b<", 0)], "c")):
        root = ElementTree.fromstring(chart)
        for element in root.iter():
            for name in ("x", "y", "width", "height", "y1", "y2"):
                if name in element.attrib:
                    assert math.isfinite(float(element.attrib[name]))
                    assert float(element.attrib[name]) >= 0
    assert column_chart([Bar(0.0, 0.0, "", "")], "")
    assert share_bar([], "")
