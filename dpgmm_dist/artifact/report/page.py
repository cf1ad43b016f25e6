"""The page around the contents of a report: its style, and the parts that it is made of.

The page is one file that loads nothing, and has no script. It follows the reader's theme, fits a
phone, and prints.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --soft: #55606d; --line: #d5dae1;
  --paper: #ffffff; --card: #f5f7fa; --bar: #2f6fb0; --alt: #8fb8de; --good: #17693f;
  --bad: #b3261e; --c0: #2f6fb0; --c1: #c2571a; --c2: #2a8a63; --c3: #a8447f; --c4: #8a6d00;
  --c5: #5b57b8; --c6: #0f7f93; --c7: #7a6a5c; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --soft: #a3aeba; --line: #39424d;
  --paper: #14181d; --card: #1c2229; --bar: #6ea8dc; --alt: #37597b; --good: #5cc28f;
  --bad: #ff8a80; --c0: #6ea8dc; --c1: #f0985a; --c2: #5cc28f; --c3: #e38abf; --c4: #d8b640;
  --c5: #a5a1f0; --c6: #58c4d6; --c7: #b8a797; } }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 66rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .5rem; } h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p, ul, ol { max-width: 46rem; } li { margin: .2rem 0; }
.badge { display: inline-block; font-weight: 600; border: 2px solid; border-radius: 1rem;
  padding: .1rem .8rem; margin: .3rem 0; }
.private { color: var(--good); } .exposed { color: var(--bad); }
.note, figcaption { color: var(--soft); font-size: .9rem; }
.wide { overflow-x: auto; }
.wide:focus-visible, summary:focus-visible { outline: 2px solid var(--bar); }
figure { margin: .8rem 0; } figcaption { margin-top: .2rem; max-width: 46rem; }
.panels { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(15.5rem, 1fr)); }
.panels figure { margin: 0; background: var(--card); border-radius: .5rem; padding: .6rem; }
.panels.small { gap: .5rem; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.panels.small figure { padding: .4rem; max-width: 15rem; }
.strip { display: block; width: 32rem; max-width: 100%; image-rendering: pixelated; }
.panels.large { grid-template-columns: repeat(auto-fit, minmax(18.5rem, 1fr)); }
.panels.large figure { max-width: 32rem; } .panels h3 { margin: 0 0 .2rem; font-size: .95rem; }
svg { display: block; max-width: 100%; height: auto; }
.wide svg { max-width: none; } .panels svg { width: 100%; }
.budget { display: flex; height: 2.2rem; border-radius: .4rem; overflow: hidden;
  border: 1px solid var(--line); max-width: 46rem; }
.budget span { display: block; }
.legend { list-style: none; padding: 0; } .legend strong { font-variant-numeric: tabular-nums; }
.key { display: inline-block; width: .8rem; height: .8rem; border-radius: .2rem;
  margin-right: .45rem; vertical-align: -.05rem; }
.k0 { background: var(--c0); } .k1 { background: var(--c1); } .k2 { background: var(--c2); }
.k3 { background: var(--c3); } .k4 { background: var(--c4); } .k5 { background: var(--c5); }
.k6 { background: var(--c6); } .k7 { background: var(--c7); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
caption { text-align: left; color: var(--soft); padding: .3rem 0; }
details { border-top: 1px solid var(--line); padding: .5rem 0; }
summary { cursor: pointer; font-weight: 600; padding: .3rem 0; }
pre { overflow-x: auto; background: var(--card); border-radius: .5rem; padding: .7rem;
  font-size: .82rem; line-height: 1.45; overflow-wrap: normal; }
svg .bar { fill: var(--bar); } svg .alt { fill: var(--alt); } svg .frame { fill: none; }
svg .whisker { stroke: var(--ink); stroke-width: 1.5; } svg .grid { stroke: var(--line); }
svg .text { fill: var(--soft); font-size: 12px; } svg .ink { fill: var(--ink); font-size: 14px;
  paint-order: stroke; stroke: var(--card); stroke-width: 3px; stroke-linejoin: round; }
svg .others { fill: none; stroke: var(--soft); opacity: .35; }
svg .noise { fill: var(--soft); opacity: .25; } svg .line { fill: none; stroke-width: 2; }
svg .heat { fill: var(--c0); }
svg .s0 { stroke: var(--c0); fill: var(--c0); } svg .s1 { stroke: var(--c1); fill: var(--c1); }
svg .s2 { stroke: var(--c2); fill: var(--c2); } svg .s3 { stroke: var(--c3); fill: var(--c3); }
svg .s4 { stroke: var(--c4); fill: var(--c4); } svg .s5 { stroke: var(--c5); fill: var(--c5); }
svg .s6 { stroke: var(--c6); fill: var(--c6); } svg .s7 { stroke: var(--c7); fill: var(--c7); }
svg .ring { fill-opacity: .1; stroke-width: 1.8; } svg .unsure { stroke-dasharray: 4 3; }
svg .band { fill-opacity: .28; stroke: none; } svg .mean { fill: none; stroke-width: 2; }
@media print { :root { --ink: #000; --soft: #444; --paper: #fff; --card: #fff; --line: #bbb; }
  body { max-width: none; padding: 0; font-size: 11pt; } figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; } .wide { overflow: visible; } pre { white-space: pre-wrap; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""
COLOURS = 8
"""Shades that the classes ``k0``, ``s0`` and so on name; further ones repeat them."""


def page(title: str, body: Iterable[str]) -> bytes:
    """The document with this body."""
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )
    return text.encode("utf-8", errors="xmlcharrefreplace")


def paragraphs(texts: Iterable[str], kind: str = "") -> str:
    """One paragraph for each text."""
    opening = f'<p class="{kind}">' if kind else "<p>"
    return "\n".join(f"{opening}{escape(text)}</p>" for text in texts)


def bullets(texts: Iterable[str]) -> str:
    """A list of texts."""
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def figure(drawing: str, caption: str = "", title: str = "") -> str:
    """A drawing with its caption and, within a grid of panels, a title."""
    head = f"<h3>{escape(title)}</h3>" if title else ""
    foot = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{head}{drawing}{foot}</figure>"


def panels(figures: Sequence[str], size: str = "") -> str:
    """Figures side by side, as many as fit. Their size may be ``small`` or ``large``."""
    kind = f"panels {size}".rstrip()
    return f'<div class="{kind}">{"".join(figures)}</div>'


def scrolled(content: str, name: str) -> str:
    """Content that may be wider than the page. It can be scrolled by keyboard."""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(name)}">{content}</div>'
    )


def folded(summary: str, *content: str) -> str:
    """Content that is shown on request."""
    return f"<details><summary>{escape(summary)}</summary>\n{chr(10).join(content)}</details>"


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts; the first column names the row."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    body = (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{chr(10).join(lines)}</tbody></table>"
    )
    return scrolled(body, caption)


def code(text: str) -> str:
    """Lines to be typed."""
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'


def values(value: Mapping[str, Any]) -> str:
    """Nested values as they are in the receipt."""
    return code(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))


def number(value: Any, missing: str = "not known") -> str:
    """Four digits of a number."""
    return f"{value:.4g}" if isinstance(value, int | float) else missing
