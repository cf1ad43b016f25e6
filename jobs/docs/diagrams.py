"""Drawings in place of Mermaid diagrams, so that the site loads no script for them."""

from __future__ import annotations

import hashlib
import posixpath
import re
from pathlib import Path

FOLDER = "images/diagrams"
DRAWINGS = Path(__file__).resolve().parents[2] / "docs" / FOLDER
_FENCE = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_WORDS = re.compile(r'"([^"]+)"')


def drawing(diagram: str) -> str:
    """The file name of the drawing of a diagram."""
    return f"{hashlib.sha256(diagram.encode()).hexdigest()[:12]}.svg"


def diagrams(markdown: str) -> list[str]:
    """The diagrams of a page."""
    return _FENCE.findall(markdown)


def with_drawings(markdown: str, uri: str) -> str:
    """The markdown of the page ``uri`` with a picture for each diagram.

    Raises
    ------
    FileNotFoundError
        If a diagram has changed and was not drawn again.
    """

    def picture(match: re.Match[str]) -> str:
        name = drawing(match[1])
        if not (DRAWINGS / name).exists():
            raise FileNotFoundError(
                f"{uri}: docs/{FOLDER}/{name} is missing: draw it with jobs/docs/draw_diagrams.js"
            )
        words = ", ".join(
            word.replace("[", "").replace("]", "") for word in _WORDS.findall(match[1])
        )
        path = posixpath.relpath(f"{FOLDER}/{name}", posixpath.dirname(uri) or ".")
        return f"![Diagram: {words}]({path})"

    return _FENCE.sub(picture, markdown)
