"""Examples of rows of a release: sampled rows of each label, decoded to pictures or texts."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from dpgmm_dist.artifact.report.page import paragraphs


@dataclass(frozen=True, eq=False)
class Examples:
    """Decoded rows by label, in the order of the page."""

    decoder: str
    """The name of the decoder."""
    rows: Mapping[str, Sequence[str] | bytes]
    """Texts, or a strip of pictures as a PNG file."""


def examples_section(examples: Examples | None) -> list[str]:
    """The section of the report; nothing without examples."""
    if examples is None:
        return []
    note = (
        f"Sampled rows, decoded by {examples.decoder}. Decoding reads the release and public items "
        "alone, so it costs no privacy."
    )
    return [
        "<h2>What sampled rows look like</h2>",
        paragraphs([note]),
        *(_line(label, row) for label, row in examples.rows.items()),
    ]


def _line(label: str, row: Sequence[str] | bytes) -> str:
    """One label with its pictures side by side, or its texts in a list."""
    head = f"<h3>{escape(label)}</h3>"
    if not isinstance(row, bytes):
        return head + "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in row) + "</ul>"
    data = base64.b64encode(row).decode("ascii")
    return (
        f'{head}<img class="strip" alt="Synthetic pictures, {escape(label)}" '
        f'src="data:image/png;base64,{data}">'
    )
