"""A YAML file, the environment and ``--set`` become one plain mapping, not yet validated.

YAML here is the safe subset with the scalars of YAML 1.2: ``1e-6`` is a number, ``yes`` is a text,
``1:30`` and ``2026-11-01`` are texts. A key given twice is an error. Messages give the line, never
the text around it: a specification may hold credentials.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from dpgmm_dist.errors import SpecError

PREFIX = "DPGMM_"
_MOST_BYTES = 16 << 20
"""Of a specification: more is another file, or a device that never ends."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2 and without duplicate keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as the base class has it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is a list", problem_mark=node.start_mark)
            key = (key_node.tag, key_node.value)
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key_node.value!r} is given twice; remove one",
                    problem_mark=key_node.start_mark,
                )
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value
    bases = {"0o": 8, "0x": 16}
    try:
        return int(text, bases.get(text[:2], 10))
    except ValueError:
        raise yaml.MarkedYAMLError(
            problem="a number has too many digits", problem_mark=node.start_mark
        ) from None


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _construct_str(loader: _Loader, node: yaml.ScalarNode) -> str:
    # JSON writes a character beyond 16 bits as two escapes, which PyYAML does not join.
    return str(node.value).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
    )
_Loader.add_constructor("tag:yaml.org,2002:str", _construct_str)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def parse(text: str, source: str) -> Any:
    """Return the value of one YAML document.

    Raises
    ------
    SpecError
        It is not valid YAML; the message names ``source`` and the line, and quotes nothing else.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SpecError(f"{source}:{where} {_without_quotes(error.problem)}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise SpecError(f"{source}: not valid YAML (strange characters or nesting)") from None


def _without_quotes(problem: str | None) -> str:
    if problem is None:
        return "not valid YAML"
    if "given twice" in problem:
        return problem
    return re.sub(r"'[^'<]{3,}'", "...", problem.splitlines()[0]) + " (not valid YAML)"


def read_document(path_or_text: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, or in a text that holds a line break or ``key: value``."""
    if isinstance(path_or_text, str) and re.search(r"\n|:\s|^\s*$|^\s*\{", path_or_text):
        text, source = path_or_text, "specification"
    else:
        text, source = read_file(Path(path_or_text)), str(path_or_text)
    document = parse(text, source)
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise SpecError(
            f"{source}: must be a mapping with dataset, bounds and privacy, "
            f"got a value of type {type(document).__name__}"
        )
    return document


def read_file(path: Path) -> str:
    """Return the text of a specification or options file."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise SpecError(f"{path}: is larger than {_MOST_BYTES >> 20} MiB; give a specification")
        return data.decode("utf-8")
    except FileNotFoundError:
        raise SpecError(f"{path}: no such specification file; check the path") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: is not a text file; give a specification in YAML") from None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror}); check the path") from None


def from_assignments(assignments: Iterable[str]) -> list[tuple[tuple[str, ...], Any, str]]:
    """Return (key path, value, source) of each ``a.b=c``, with c read as YAML."""
    result = []
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        path = tuple(name.strip().split("."))
        if not equals or len(path) < 2 or not all(path):
            raise SpecError(f"--set {name}: write section.key=value, such as privacy.epsilon=2")
        result.append((path, parse(value, f"--set {name}"), f"--set {name}"))
    return result


def from_environment(
    environ: Mapping[str, str], sections: Iterable[str]
) -> list[tuple[tuple[str, ...], Any, str]]:
    """Return (key path, value, source) of each ``DPGMM_SECTION__KEY``.

    Other variables are ignored. ``DPGMM_PRIVACY_EPSILON``, one underscore short, is an error:
    ignoring it would hide a mistake.
    """
    result = []
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX).lower()
        section = next(
            (known for known in sections if name == known or name.startswith(f"{known}_")), None
        )
        if not variable.startswith(PREFIX) or section is None:
            continue
        path = tuple(name.split("__"))
        if len(path) < 2 or not all(path) or path[0] != section:
            raise SpecError(
                f"{variable}: names no key; write {PREFIX}{section.upper()}__KEY "
                "with two underscores, or unset it"
            )
        result.append((path, parse(environ[variable], variable), variable))
    return result


def assign(document: dict[str, Any], path: tuple[str, ...], value: Any, source: str) -> None:
    """Set ``path`` in ``document``, in place, with the mappings that lead to it."""
    if path[:2] == ("bounds", "columns") and len(path) > 2:
        path = ("bounds", "columns", ".".join(path[2:]))  # column names may hold dots
    mapping = document
    for depth, key in enumerate(path[:-1], start=1):
        if mapping.get(key) is None:
            mapping[key] = {}
        mapping = mapping[key]
        if not isinstance(mapping, dict):
            raise SpecError(f"{source}: {'.'.join(path[:depth])} is a value and has no keys")
    mapping[path[-1]] = value
