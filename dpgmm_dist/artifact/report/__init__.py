"""report.html: one page that describes a release, made of public values only.

The page is a single file that loads nothing: no script, font or image from anywhere else. Its
pictures are drawn from the release, so they are post-processing like the samples are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from dpgmm_dist.artifact.load import Release
from dpgmm_dist.artifact.report import words
from dpgmm_dist.artifact.report.charts import Bar, column_chart, share_bar
from dpgmm_dist.artifact.report.columns import marginal_figures, pair_figures, sampled_columns
from dpgmm_dist.artifact.report.ellipses import overview, single
from dpgmm_dist.artifact.report.examples import Examples, examples_section
from dpgmm_dist.artifact.report.page import (
    COLOURS,
    bullets,
    code,
    figure,
    folded,
    number,
    page,
    panels,
    paragraphs,
    scrolled,
    table,
    values,
)
from dpgmm_dist.artifact.report.spectrum import spectrum_figure
from dpgmm_dist.artifact.report.views import View, views_of
from dpgmm_dist.artifact.show import describe
from dpgmm_dist.artifact.step_words import step_words
from dpgmm_dist.model.tables.bounds import log_edges

_MOST_PANELS = 24
"""Most labels (or components without labels) that have a drawing of their own."""
_SHOWN_VALUES = 5
"""Values of a column of categories that the report names."""
_FEW_PANELS = 12
"""Rows of a table that are shown at once; more are folded away."""
_QUERIES = (
    "Each line is a statistic of the rows, measured for each group. The radius, the unit (the "
    "weight of one row) and the noise scale (a standard deviation) are in integer lattice units. "
    "rho is the privacy cost in zero-concentrated DP."
)
_COMPONENTS = (
    "Spread: root mean square of the standard deviations of the latent coordinates. Errors are "
    "standard errors. An error is approximate if the estimate was adjusted after it was measured: "
    "shrunk toward another estimate, or corrected together with the other components of its "
    "label. The error shown is then that of the measurement. Covariance kept: the weight of its "
    "own measurement in the covariance; 1 means that nothing was shrunk."
)
_FOUND_BOUNDS = "They are functions of noisy counts, whose cost is listed among the queries."
_CUT = (
    "The range of these columns ends at 1e12 or -1e12, the largest bounds that are looked for: {}. "
    "Values beyond them are moved there. Give such columns bounds, or a larger unit."
)
_ELLIPSES = (
    "Each ellipse is one component at one standard deviation. The cross is its mean, as long as "
    "the standard error of the mean. The shaded band is one standard error of the variances; a "
    "dashed outline says that their error is not stated."
)


def render_report(release: Release, examples: Examples | None = None) -> bytes:
    """The report of a release as one HTML document; the same release gives the same bytes.

    With ``examples`` it also shows what sampled rows look like.
    """
    shown = describe(release)
    guarantee = shown["guarantee"]
    heading = words.title(shown)
    body = [
        f"<h1>{escape(heading)}</h1>",
        f'<p class="note">Release {escape(release.release_id)}</p>',
        _badge(guarantee, release.receipt.get("privacy_reason")),
        paragraphs(words.released(shown)),
        "<h2>What it is good for</h2>",
        bullets(words.good_for(shown)),
        "<h2>What is guaranteed</h2>",
        paragraphs(words.guarantee_words(guarantee)),
        folded(
            "The guarantee in numbers",
            table("Terms of the guarantee", ("term", "value"), words.guarantee_terms(guarantee)),
        ),
        "<h2>Where the budget went</h2>",
        *_budget(shown["queries"]),
        *_weights(shown),
        *_places(release),
        *_spread(release),
        *_columns(release),
        *examples_section(examples),
        "<h2>How to use it</h2>",
        "<p>RELEASE is the directory or URL that this page is in.</p>",
        code(words.commands()),
        code(words.python_lines(shown)),
        "<h2>Limits</h2>",
        bullets(words.limits(shown)),
        "<h2>All numbers</h2>",
        *_details(release, shown),
    ]
    return page(f"{heading}, release {release.release_id}", body)


def _measured_columns(columns: Mapping[str, Any] | None) -> list[str]:
    """The measured distribution of each column of a table."""
    if not columns:
        return []
    rows = []
    for name, facts in columns.items():
        missing = f"{facts['missing']:.2%}" if "missing" in facts else "-"
        shares = facts.get("shares", {})
        commonest = sorted(shares, key=lambda value: (-shares[value], value))[:_SHOWN_VALUES]
        values = ", ".join(f"{value} {shares[value]:.1%}" for value in commonest)
        values += ", ..." if len(shares) > len(commonest) else ""
        kind = "values" if shares else "bins"
        counted = f"{facts['bins']} {kind}"
        if not facts["one_value_each"]:
            counted += f", {facts['atoms']} of one value"
        rows.append((name, counted, missing, values or "-"))
    names = ("column", "distribution", "empty", "commonest values, of those not empty")
    caption = "Functions of noisy counts, whose cost is listed among the queries"
    return [folded("Single columns", table(caption, names, rows))]


def _badge(guarantee: Mapping[str, Any], reason: str | None) -> str:
    if guarantee["privacy"] == "private":
        return (
            f'<p class="badge private">Private: epsilon {guarantee["epsilon"]:g}, '
            f"delta {guarantee['delta']:g}</p>"
        )
    return (
        '<p class="badge exposed">NOT PRIVATE: '
        f"{escape(reason or 'made without private noise')}. Do not publish.</p>"
    )


def _budget(queries: Sequence[Mapping[str, Any]]) -> list[str]:
    """One bar of the shares of the steps, and what each step measured."""
    shares = [(step_words(query["step"]), query["share"]) for query in queries]
    legend = "".join(
        f'<li><span class="key k{i % COLOURS}"></span><strong>{share:.1%}</strong> '
        f"{escape(name)}</li>"
        for i, (name, share) in enumerate(shares)
    )
    return [
        share_bar(shares, "Share of the privacy cost of each step"),
        f'<ul class="legend">{legend}</ul>',
    ]


def _weights(shown: Mapping[str, Any]) -> list[str]:
    components = shown["components"]
    if len(components) == 1:
        return []
    chart = column_chart(_bars(components), "Weight of each component with its standard error")
    return [
        "<h2>How the rows divide</h2>",
        figure(
            scrolled(chart, "Weights"),
            "The share of rows of each component. Whiskers are standard errors: "
            f"{shown['guarantee']['error_bars']}.",
        ),
    ]


def _places(release: Release) -> list[str]:
    """The components in two dimensions, all together and one label at a time."""
    views = views_of(release)
    if not views:
        return []
    mixture = release.mixture
    if mixture.label_values:
        names = [f"label {value}" for value in mixture.label_values]
        groups = mixture.label_index.tolist()
    else:
        names = [f"component {k}" for k in mixture.component_number]
        groups = list(range(mixture.n_components))
    large = [figure(overview(view, groups, names), view.caption, view.title) for view in views]
    return [
        "<h2>Where the components are</h2>",
        paragraphs([_ELLIPSES]),
        panels(large, "large"),
        *_one_by_one(views[0], groups, names),
    ]


def _one_by_one(view: View, groups: Sequence[int], names: Sequence[str]) -> list[str]:
    if len(names) < 2:
        return []
    shown = range(min(len(names), _MOST_PANELS))
    drawings = [figure(single(view, groups, i, names[i]), title=names[i]) for i in shown]
    note = f"{view.title}, one by one; the others are outlines."
    if len(names) > _MOST_PANELS:
        note += f" The first {_MOST_PANELS} of {len(names)} are shown."
    drawn = [paragraphs([note], "note"), panels(drawings, "small")]
    fits_open = len(names) <= _FEW_PANELS
    return ["<h3>One by one</h3>", *drawn] if fits_open else [folded("One by one", *drawn)]


def _spread(release: Release) -> list[str]:
    drawing = spectrum_figure(release)
    return ["<h2>How far the rows spread</h2>", drawing] if drawing else []


def _columns(release: Release) -> list[str]:
    """The columns of a table in their own units."""
    columns = sampled_columns(release)
    if not columns:
        return []
    out = [
        "<h2>The columns</h2>",
        paragraphs(
            ["Drawn from 4,000 sampled rows. The outermost half percent at either end is left out."]
        ),
        panels(marginal_figures(columns)),
    ]
    pairs = pair_figures(columns)
    return [*out, "<h3>Most strongly related pairs</h3>", panels(pairs)] if pairs else out


def _details(release: Release, shown: Mapping[str, Any]) -> list[str]:
    """What is in the receipt, folded away."""
    found = shown.get("bounds_found")
    return [
        folded(
            "Components", _component_table(shown["components"]), paragraphs([_COMPONENTS], "note")
        ),
        folded(
            "Queries and their noise",
            _query_table(shown["queries"]),
            paragraphs([_QUERIES], "note"),
        ),
        *([_found_bounds(found)] if found else []),
        *_measured_columns(shown.get("columns")),
        folded("Input", values(shown["input"])),
        folded("Specification", values(release.receipt["specification"])),
        folded(
            "Software",
            table("Versions", ("library", "version"), sorted(release.receipt["libraries"].items())),
        ),
    ]


def _found_bounds(found: Mapping[str, Any]) -> str:
    """The bounds that were found, and which columns have values beyond all that are looked for."""
    largest = float(log_edges()[-1])
    ranges = found.get("columns", {})
    cut = [name for name, ends in ranges.items() if max(map(abs, ends)) >= largest]
    sentences = [_FOUND_BOUNDS, *([_CUT.format(", ".join(cut))] if cut else [])]
    return folded("Bounds found privately", paragraphs(sentences), values(found))


def _bars(components: Sequence[Mapping[str, Any]]) -> list[Bar]:
    bars = []
    for entry in components:
        name = str(entry["component"] if entry["label"] is None else entry["label"])
        error = entry["weight_error"]
        bars.append(
            Bar(
                value=entry["weight"],
                error=math.inf if error is None else error,
                group=name,
                title=f"{_name(entry)}: {entry['weight']:.4g} ± {number(error)}",
            )
        )
    return bars


def _name(entry: Mapping[str, Any]) -> str:
    number = f"component {entry['component']}"
    return number if entry["label"] is None else f"label {entry['label']}, {number}"


def _component_table(components: Sequence[Mapping[str, Any]]) -> str:
    columns = (
        "component", "weight", "error of weight", "spread", "error of mean", "error of mean is",
        "error of covariance is", "covariance kept",
    )  # fmt: skip
    return table(
        "Components, in latent units",
        columns,
        (
            (
                _name(entry),
                number(entry["weight"]),
                number(entry["weight_error"]),
                number(entry["spread"]),
                number(entry["mean_error"]),
                entry["mean_error_is"] or "-",
                entry["covariance_error_is"] or "-",
                number(entry["covariance_kept"], missing="-"),
            )
            for entry in components
        ),
    )


def _query_table(queries: Sequence[Mapping[str, Any]]) -> str:
    columns = (
        "step", "statistic", "groups", "dimension", "radius", "unit", "noise scale",
        "noise scale off the diagonal", "rho",
    )  # fmt: skip
    return table(
        "Statistics that were measured",
        columns,
        (
            (
                query["step"],
                block["statistic"],
                str(block["groups"]),
                str(block["dimension"]),
                str(block["radius"]),
                str(block["weight_unit"]),
                number(block["sigma"]),
                number(block["sigma_off"], missing="-"),
                number(block["rho"]),
            )
            for query in queries
            for block in query["blocks"]
        ),
    )
