"""Docstrings as griffe expects them.

In this package ``name : text`` in the section of parameters or attributes is a description: types
are in the signature. numpydoc has a type there, and the description on the next line.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"^(Parameters|Attributes)\n-{4,}\n(.*?)(?=\n\n\S|\Z)", re.M | re.S)
_ENTRY = re.compile(r"^(\w+(?:, \w+)*) : (.*)$", re.M)


class Descriptions(griffe.Extension):
    """Moves the text after the colon to a line of its own, in every docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of an object, if it has one."""
        if obj.docstring is not None:
            obj.docstring.value = described(obj.docstring.value)


def described(docstring: str) -> str:
    """The docstring with ``name`` and its description on lines of their own."""
    return _SECTION.sub(
        lambda section: f"{section[1]}\n----------\n{_ENTRY.sub(_on_two_lines, section[2])}",
        docstring,
    )


def _on_two_lines(entry: re.Match[str]) -> str:
    return f"{entry[1]}\n    {entry[2]}"


def descriptions(docstring: str) -> dict[str, str]:
    """The descriptions of attributes or parameters by name; ``a, b : text`` is for both."""
    found: dict[str, str] = {}
    for section in _SECTION.finditer(docstring):
        for entry in re.split(r"\n(?=\S)", section[2]):
            names, _, text = entry.partition(" : ")
            found |= {name: " ".join(text.split()) for name in names.split(", ")}
    return found
