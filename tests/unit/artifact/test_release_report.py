from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import releases

from dpgmm_dist import load_release
from dpgmm_dist.artifact.report import render_report
from dpgmm_dist.artifact.report.charts import Bar, column_chart, share_bar
from dpgmm_dist.artifact.report.columns import (
    SampledColumn,
    marginal_figures,
    pair_figures,
    text_of,
)
from dpgmm_dist.artifact.report.ellipses import _outline
from dpgmm_dist.artifact.report.frame import Frame
from dpgmm_dist.artifact.report.views import variance_errors, views_of
from dpgmm_dist.model.affine import Transform
from dpgmm_dist.model.mixture import Mixture, StandardErrors

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


def test_a_mixture_of_labels_is_drawn_together_and_one_by_one(tmp_path: Path) -> None:
    releases.write(tmp_path, mixture=releases.mixture_of(p=3))
    text = (tmp_path / "report.html").read_text()
    for expected in ("Where the rows vary most", "Where labels lie farthest apart", "One by one"):
        assert expected in text, expected
    assert text.count("<h3>label 7</h3>") == 1
    assert "ring unsure" in text  # the errors of these covariances are not known


def test_a_table_is_drawn_in_its_own_names_and_units(tmp_path: Path) -> None:
    schema = releases.TABLE_INPUT | {
        "columns": [
            {"name": "age", "type": "int32"},
            {"name": "since", "type": "date32[day]"},
            {"name": "paid <EUR>", "type": "float64"},
        ]
    }
    transform = Transform(np.array([40.0, 18_300.0, 500.0]), np.array([20.0, 300.0, 200.0]))
    releases.write(
        tmp_path, mixture=releases.mixture_of(()), transform=transform, input_schema=schema
    )
    text = (tmp_path / "report.html").read_text()
    assert "<h3>paid &lt;EUR&gt;</h3>" in text
    assert "since by age" in text or "age by since" in text or "by since" in text
    years = {int(year) for year in re.findall(r"\b(\d{4})-\d\d-\d\d\b", text)}
    assert years and years <= set(range(2010, 2030))
    releases.write(tmp_path / "list", mixture=releases.mixture_of(()))
    assert "The columns" not in (tmp_path / "list" / "report.html").read_text()


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (18_262.0, "date", "2020-01-01"),
        (1_577_836_800.0 + 90, "timestamp", "2020-01-01 00:01"),
        (6.5 * 3600, "time", "06:30"),
        (36 * 3600.0, "duration", "1.5 d"),
        (90.0, "duration", "90 s"),
        (12_345.0, "number", "12,345"),
        (0.00012345, "number", "0.0001234"),
    ],
)
def test_values_are_written_as_people_write_them(value: float, kind: Any, text: str) -> None:
    assert text_of(value, kind) == text


def views_of_mixture(mixture: Mixture) -> list[Any]:
    """The views of a mixture whose errors are not known."""
    errors = StandardErrors.without_covariances(
        np.zeros(mixture.n_components), np.zeros(mixture.means.shape)
    )
    return views_of(SimpleNamespace(mixture=mixture, standard_errors=errors))


def test_columns_with_empty_cells_are_among_the_pairs() -> None:
    rng = np.random.default_rng(0)
    age, unrelated = rng.normal(size=(2, 500))
    income = age + 0.1 * rng.normal(size=500)
    age[:100] = np.nan
    constant = np.zeros(500)
    named = {"age": age, "income": income, "unrelated": unrelated, "constant": constant}
    columns = [SampledColumn(name, "number", values) for name, values in named.items()]
    first, *others = pair_figures(columns)
    assert "income by age" in first
    assert "Rank correlation 0.9" in first
    assert all("Rank correlation 0.0" in f or "Rank correlation -0.0" in f for f in others[-3:])
    assert "Empty: 20.0%" in marginal_figures(columns)[0]


def test_a_bin_of_whole_numbers_holds_as_many_values_as_any_other() -> None:
    rows = np.repeat(np.arange(17.0), 10)
    [drawn] = marginal_figures([SampledColumn("visits", "number", rows)])
    bars = re.findall(r'class="bar"[^>]*height="([\d.]+)"', drawn)
    assert len(bars) == 17
    assert len(set(bars)) == 1
    [drawn] = marginal_figures([SampledColumn("visits", "number", np.repeat(np.arange(56.0), 10))])
    assert len(set(re.findall(r'class="bar"[^>]*height="([\d.]+)"', drawn))) == 1


def test_an_ellipse_is_where_the_distance_is_one() -> None:
    (view,) = views_of_mixture(releases.mixture_of((), p=2))
    frame = Frame(400, np.zeros(2), 8.0)
    path = _outline(view.means[1], view.covariances[1], frame)
    pixels = np.array(re.findall(r"([-0-9.]+),([-0-9.]+)", path), float)
    points = np.stack([pixels[:, 0] - 200, 200 - pixels[:, 1]], axis=1) / frame.scale
    away = points - view.means[1]
    distances = np.einsum("ni,ij,nj->n", away, np.linalg.inv(view.covariances[1]), away)
    assert distances == pytest.approx(1.0, abs=0.05)


def test_views_are_projections_whatever_form_the_covariances_have() -> None:
    shared = releases.shared_of((7, 3), p=5, q=2)
    views, same = views_of_mixture(shared), views_of_mixture(releases.full_of(shared))
    assert len(views) == len(same) == 2
    for view, other in zip(views, same, strict=True):
        assert view.means == pytest.approx(other.means, abs=1e-6)
        assert view.covariances == pytest.approx(other.covariances, abs=1e-6)


def test_the_second_view_tells_components_apart() -> None:
    """Two round clouds that differ along a direction of little variance."""
    covariance = np.diag([4.0, 1.0, 0.01])
    away = np.array([0.0, 0.0, 0.5])
    mixture = Mixture(np.array([0.5, 0.5]), np.stack([-away, away]), np.stack([covariance] * 2))
    first, second = views_of_mixture(mixture)
    assert np.abs(first.means).max() < 1e-9
    assert np.abs(second.means[:, 0]) == pytest.approx(5.0)
    assert second.covariances[0] == pytest.approx(np.diag([1.0, 1.0]), abs=1e-9)


def test_the_error_of_a_variance_is_that_of_the_quadratic_form() -> None:
    rng = np.random.default_rng(3)
    entries = np.abs(rng.normal(size=(3, 3)))
    entries = (entries + entries.T) / 2
    errors = StandardErrors(np.zeros(1), np.zeros((1, 3)), entries[None])
    v = rng.normal(size=3)
    draws = rng.normal(size=(200_000, 3, 3)) * entries
    lower = np.tril(draws)
    symmetric = lower + np.tril(draws, -1).transpose(0, 2, 1)
    spread = np.einsum("i,nij,j->n", v, symmetric, v).std()
    assert variance_errors(errors, v[:, None]) == pytest.approx(np.array([[spread]]), rel=0.02)
    unknown = StandardErrors(np.zeros(1), np.zeros((1, 3)), np.full((1, 3, 3), np.inf))
    assert np.isinf(variance_errors(unknown, v[:, None])).all()


def test_an_error_that_is_not_known_matters_along_its_own_directions_alone() -> None:
    entries = np.ones((1, 3, 3))
    entries[0, 0, 1] = entries[0, 1, 0] = np.inf
    errors = StandardErrors(np.zeros(1), np.zeros((1, 3)), entries)
    found = variance_errors(errors, np.array([[1.0, 0.0, 0.6], [0.0, 0.6, 0.8], [0.0, 0.8, 0.0]]))
    assert found[0, :2] == pytest.approx([1.0, math.sqrt(0.6**4 + 0.8**4 + 4 * 0.48**2)])
    assert np.isinf(found[0, 2])
