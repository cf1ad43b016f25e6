"""report.html: one page that describes a release, made of public values only.

The page is a single file that loads nothing: no script, font or image from anywhere else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from dpgmm_dist.artifact.charts import Bar, column_chart, share_bar
from dpgmm_dist.artifact.load import Release
from dpgmm_dist.artifact.show import describe

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --soft: #5d6875; --line: #d5dae1;
  --paper: #ffffff; --bar: #2f6fb0; --alt: #8fb8de; --good: #1f7a4d; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa5b1; --line: #39424d;
  --paper: #14181d; --bar: #6ea8dc; --alt: #37597b; --good: #5cc28f; --bad: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.badge { font-weight: 600; } .private { color: var(--good); } .exposed { color: var(--bad); }
.wide { overflow-x: auto; } .note { color: var(--soft); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
pre { overflow-x: auto; border: 1px solid var(--line); padding: .7rem; font-size: 13px; }
svg .bar { fill: var(--bar); } svg .alt { fill: var(--alt); }
svg .whisker { stroke: var(--ink); stroke-width: 1.5; } svg .grid { stroke: var(--line); }
svg .text { fill: var(--soft); font-size: 12px; }
"""

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
_SHOWN_VALUES = 5
"""Values of a column of categories that the report names."""
_ACCOUNTING = {
    "gdp": "Gaussian differential privacy (GDP)",
    "zcdp": "zero-concentrated differential privacy (zCDP)",
}


def render_report(release: Release) -> bytes:
    """The report of a release as one HTML document; the same release gives the same bytes."""
    shown = describe(release)
    guarantee, components = shown["guarantee"], shown["components"]
    body = [
        f"<h1>Release {escape(release.release_id)}</h1>",
        _badge(guarantee, release.receipt.get("privacy_reason")),
        "<h2>Guarantee</h2>",
        _sentences(guarantee),
        "<h2>Where the budget went</h2>",
        '<div class="wide">',
        share_bar(
            [(query["step"], query["share"]) for query in shown["queries"]],
            "Share of the privacy cost of each step",
        ),
        "</div>",
        _query_table(shown["queries"]),
        f'<p class="note">{escape(_QUERIES)}</p>',
        "<h2>Components</h2>",
        f"<p>{_model(shown['model'])}</p>",
        '<div class="wide">',
        column_chart(_bars(components), "Weight of each component with its standard error"),
        "</div>",
        f'<p class="note">Whiskers: {escape(guarantee["error_bars"])}.</p>',
        _component_table(components),
        f'<p class="note">{escape(_COMPONENTS)}</p>',
        "<h2>Input</h2>",
        _pre(shown["input"]),
        *_columns(shown.get("columns")),
        *_bounds_found(shown.get("bounds_found")),
        "<h2>Specification</h2>",
        _pre(release.receipt["specification"]),
        "<h2>Software</h2>",
        _table(("library", "version"), sorted(release.receipt["libraries"].items())),
    ]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Release {escape(release.release_id)}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{chr(10).join(body)}\n</body></html>\n"
    )
    return page.encode("utf-8", errors="xmlcharrefreplace")


def _columns(columns: Mapping[str, Any] | None) -> list[str]:
    """What was measured of each column of a table by itself."""
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
    return [
        "<h2>Columns</h2>",
        "<p>They are functions of noisy counts, whose cost is listed above.</p>",
        _table(("column", "distribution", "empty", "commonest values, of those not empty"), rows),
    ]


def _bounds_found(found: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return []
    return [
        "<h2>Bounds found privately</h2>",
        "<p>They are functions of noisy counts, whose cost is listed above.</p>",
        _pre(found),
    ]


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


def _sentences(guarantee: Mapping[str, Any]) -> str:
    if guarantee["privacy"] != "private":
        return (
            "<p>There is none. With private noise, the same queries would cost epsilon "
            f"{guarantee['spent_epsilon']:.4g} at delta {guarantee['delta']:g}.</p>"
        )
    replacing = guarantee["replacing_one_unit"]
    return (
        f"<p>This release is ({guarantee['epsilon']:g}, {guarantee['delta']:g})-differentially "
        "private, and so is everything that is computed from it. The guarantee compares "
        f"{escape(guarantee['neighbours'])}. A privacy unit is {escape(guarantee['unit'])}.</p>"
        f"<p>All queries together cost rho {guarantee['spent_rho']:.6g}; the budget allows "
        f"{guarantee['budget_rho']:.6g}. At delta {guarantee['delta']:g} this cost is epsilon "
        f"{guarantee['spent_epsilon']:.4g}. If one unit is replaced by another, the guarantee is "
        f"epsilon {_number(replacing.get('epsilon'))} at delta "
        f"{_number(replacing.get('delta'))}.</p>"
        f"<p>Mechanism: {escape(guarantee['mechanism'].replace('_', ' '))} noise. Accounting: "
        f"{_ACCOUNTING[guarantee['accounting']]}.</p>"
    )


def _model(model: Mapping[str, Any]) -> str:
    text = f"The mixture has {_counted(model['components'], 'Gaussian component')}"
    if model["labels"]:
        text += f" for {_counted(len(model['labels']), 'label')}"
    text += f" in {_counted(model['latent_dimension'], 'dimension')}."
    if model["latent_dimension"] < model["input_columns"]:
        text += (
            f" These are a projection of {model['input_columns']} input columns. In each direction "
            f"outside the projection, the variance is {model['residual_variance']:.4g}."
        )
    if "own_axes" in model:
        text += (
            " All covariances share their axes. They differ along the first "
            f"{_counted(model['own_axes'], 'axis', 'axes')}."
        )
    return text


def _counted(count: int, noun: str, plural: str | None = None) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"


def _bars(components: Sequence[Mapping[str, Any]]) -> list[Bar]:
    bars = []
    for entry in components:
        name = "" if entry["label"] is None else str(entry["label"])
        error = entry["weight_error"]
        bars.append(
            Bar(
                value=entry["weight"],
                error=math.inf if error is None else error,
                group=name,
                title=f"{_name(entry)}: {entry['weight']:.4g} ± {_number(error)}",
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
    return _table(
        columns,
        (
            (
                _name(entry),
                _number(entry["weight"]),
                _number(entry["weight_error"]),
                _number(entry["spread"]),
                _number(entry["mean_error"]),
                entry["mean_error_is"] or "-",
                entry["covariance_error_is"] or "-",
                _number(entry["covariance_kept"], missing="-"),
            )
            for entry in components
        ),
    )


def _query_table(queries: Sequence[Mapping[str, Any]]) -> str:
    columns = (
        "step", "statistic", "groups", "dimension", "radius", "unit", "noise scale",
        "noise scale off the diagonal", "rho",
    )  # fmt: skip
    return _table(
        columns,
        (
            (
                query["step"],
                block["statistic"],
                str(block["groups"]),
                str(block["dimension"]),
                str(block["radius"]),
                str(block["weight_unit"]),
                _number(block["sigma"]),
                _number(block["sigma_off"], missing="-"),
                _number(block["rho"]),
            )
            for query in queries
            for block in query["blocks"]
        ),
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return f'<div class="wide"><table><tr>{head}</tr>\n{chr(10).join(lines)}</table></div>'


def _pre(value: Mapping[str, Any]) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))}</pre>"


def _number(value: Any, missing: str = "undetermined") -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else missing
