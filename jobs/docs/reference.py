"""The pages of the reference, made from the code."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import typer
from docstrings import descriptions
from pydantic_core import PydanticUndefined

from dpgmm_dist.spec.section import Section

_PYTHON = (
    "dpgmm_dist.estimator.mixture.DPGaussianMixture",
    "dpgmm_dist.pipeline.release.release",
    "dpgmm_dist.pipeline.result.ReleaseResult",
    "dpgmm_dist.artifact.load.load_release",
    "dpgmm_dist.artifact.load.Release",
    "dpgmm_dist.spec.release_spec.ReleaseSpec",
    "dpgmm_dist.evaluate.evaluation.evaluate",
    "dpgmm_dist.errors",
)
_COLUMNS = {
    "label": "public value of the label; null without labels",
    "component": "number of the component within its label",
    "weight": "share of the rows; all components together have 1",
    "mean": "mean, p latent coordinates",
    "covariance": "row-major lower triangle of the covariance, p (p + 1) / 2 numbers",
    "block": "lower triangle of the covariance along the shared axes",
    "weight_se": "standard error of the weight from the privacy noise",
    "mean_se": "standard errors of the mean",
    "covariance_se": "standard errors of the covariance, as a lower triangle",
    "weight_se_kind": "nominal, approximate (adjusted after it was measured) or unknown",
    "mean_se_kind": "the same for the mean",
    "covariance_se_kind": "the same for the covariance",
    "covariance_kept": "weight of its own measurement in the covariance, 0 to 1",
    "covariance_shrinkage": "how far shrinkage moved the covariance, relative to its size",
    "coordinate": "number of the latent coordinate",
    "axes": "its entry of each shared axis",
    "column": "number of the input column",
    "center": "value that is subtracted from the column",
    "half_width": "value that it is then divided by",
    "offset": "value that is subtracted next, before the projection",
    "basis": "the column's row of the projection to latent coordinates; null without a projection",
    "residual_variance": "variance of each direction outside the projection",
    "edges": "edges of the bins, where columns were measured by themselves",
    "scores": "normal scores of the edges",
    "atoms": "value of each bin that holds a single value; NaN for other bins",
    "absent_below": "score below which a cell is empty; null if it never is",
    "absent_offset": "offset of the coordinate of presence",
}
"""What the columns of a release's files hold; a column without an entry ends the build."""


def python() -> str:
    """The Python reference: mkdocstrings fills it in."""
    parts = ["# Python", "All names of the first level are imported from `dpgmm_dist`."]
    return "\n\n".join([*parts, *(f"::: {name}" for name in _PYTHON)]) + "\n"


def commands() -> str:
    """Every command with its arguments and options, from the typer application."""
    from dpgmm_dist.cli.main import app

    parts = ["# Command line", "`dpgmm COMMAND --help` prints the same. Exit codes are in the "]
    parts[-1] += "[quickstart](../quickstart.md#errors)."
    for name, command in _leaves("dpgmm", typer.main.get_command(app)):
        rows = [_parameter(parameter) for parameter in command.params if parameter.name != "help"]
        parts += [f"## `{name}`", inspect.cleandoc(command.help or "")]
        parts += [_table(("", "meaning", "default"), rows)] if rows else []
    return "\n\n".join(parts) + "\n"


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """The commands below a group with their whole names, in order."""
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
        return
    for child, below in children.items():
        yield from _leaves(f"{name} {child}", below)


def _parameter(parameter: Any) -> tuple[str, str, str]:
    metavar = parameter.metavar or (parameter.name or "").upper()
    if parameter.param_type_name == "argument":
        shown = f"`{metavar}`"
    else:
        flag = getattr(parameter, "is_flag", False)
        shown = ", ".join(f"`{option}`" for option in [*parameter.opts, *parameter.secondary_opts])
        shown += "" if flag else f" `{metavar}`"
    required = "required" if parameter.required else ""
    default = parameter.default
    if isinstance(default, int | float | str) and not isinstance(default, bool):
        required = f"`{getattr(default, 'value', default)}`"
    return shown, parameter.help or "", required


def specification() -> str:
    """Every key of a specification, from its classes."""
    from dpgmm_dist.spec.release_spec import ReleaseSpec

    parts = ["# Specification", "The keys of a job's YAML file, by section."]
    for name, found in ReleaseSpec.model_fields.items():
        parts += _section(name, _section_class(found.annotation))
    return "\n\n".join(parts) + "\n"


def _section(name: str, section: type[Section]) -> list[str]:
    docstring = inspect.getdoc(section) or ""
    said = descriptions(docstring)
    rows = [
        (
            f"`{key}`",
            _type(found.annotation),
            _default(found),
            said[key],
        )
        for key, found in section.model_fields.items()
    ]
    about = docstring.partition("\n\nAttributes\n")[0]
    parts = [f"## `{name}`", about, _table(("key", "value", "default", "meaning"), rows)]
    for key, found in section.model_fields.items():
        if below := _section_class(found.annotation):
            parts += _section(f"{name}.{key}", below)
    return parts


def _section_class(annotation: Any) -> Any:
    """The section in an annotation such as ``WindowSpec | None``; None if there is none."""
    choices = (annotation, *get_args(annotation))
    found = [c for c in choices if isinstance(c, type) and issubclass(c, Section)]
    return found[0] if found else None


def _default(found: Any) -> str:
    if found.is_required():
        return "required"
    value = found.get_default(call_default_factory=True)
    if value in (None, {}) or value is PydanticUndefined:
        return "none"
    return "its own defaults" if isinstance(value, Section) else f"`{value}`"


def _type(annotation: Any) -> str:
    """A type of a specification in the words of YAML."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(a) for a in arguments if a is not type(None)))
    if origin is tuple:
        inner = dict.fromkeys(_type(a) for a in arguments if a is not Ellipsis)
        return f"[{', '.join(inner)}{', ...' if Ellipsis in arguments else ''}]"
    if origin is dict:
        return f"{{{_type(arguments[0])}: {_type(arguments[1])}}}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "a section"
    names = {int: "whole number", float: "number", str: "text", Any: "anything"}
    return names.get(annotation, str(annotation))


def release() -> str:
    """The files of a release, and the columns of its tables, as they are written."""
    from dpgmm_dist.artifact import schema

    parts = ["# Files of a release", "A release is a folder. It is complete when it has "]
    parts[-1] += f"`{schema.MANIFEST}`. Parquet files are not compressed."
    for name, columns in _tables().items():
        rows = [(f"`{column}`", f"`{kind}`", _COLUMNS[column]) for column, kind in columns]
        parts += [f"## `{name}`", _table(("column", "type", "meaning"), rows)]
    parts.append(
        f"`{schema.AXES}` and `block` are in releases whose covariances share their axes, in place "
        "of `covariance` and `covariance_se`. The columns from `edges` on are in releases of "
        "tables whose columns were measured by themselves."
    )
    for name, module in (
        (schema.RECEIPT, "dpgmm_dist.artifact.receipt"),
        (schema.MANIFEST, "dpgmm_dist.artifact.manifest"),
    ):
        parts += [f"## `{name}`", *(_keys(found) for found in _json_classes(module))]
    parts += [f"## `{schema.REPORT}`", "The report, one page that loads nothing."]
    return "\n\n".join(parts) + "\n"


def _json_classes(module: str) -> list[str]:
    """The public classes of a module that describe JSON, in the order of the source."""
    from importlib import import_module

    found = inspect.getmembers(import_module(module), inspect.isclass)
    kept = [kind for name, kind in found if kind.__module__ == module and name[0] != "_"]
    kept.sort(key=lambda kind: inspect.getsourcelines(kind)[1])
    return [f"{module}.{kind.__name__}" for kind in reversed(kept)]


def _keys(name: str) -> str:
    """An instruction to mkdocstrings: the attributes of a class, as the keys of a JSON object."""
    lines = [f"::: {name}", "    options:", "      heading_level: 3", "      show_signature: false"]
    return "\n".join([*lines, "      show_if_no_docstring: true", "      members_order: source"])


def _tables() -> dict[str, list[tuple[str, str]]]:
    """The columns of the Parquet files, with their types, in a release that has all of them."""
    from dpgmm_dist.artifact import schema
    from dpgmm_dist.model.affine import Transform
    from dpgmm_dist.model.covariances import SharedCovariances
    from dpgmm_dist.model.mixture import Mixture, StandardErrors
    from dpgmm_dist.model.tables.column_map import ColumnMap

    ones, half, eye = np.ones(1), np.full(1, 0.5), np.eye(1)
    values = {"labels": np.zeros(1, int), "label_values": ("a",)}
    full = Mixture(ones, ones[None], eye[None], **values)
    shared = SharedCovariances(eye, eye[None])
    blocks = Mixture(ones, ones[None], shared, **values)
    column = ColumnMap(np.array([0.0, 1.0]), np.array([-1.0, 1.0]), half, 0.0)
    transform = Transform(half, half, None, np.zeros(2), 0.0, (column,))
    unknown = StandardErrors.without_covariances(ones, ones[None])
    files = {
        schema.MIXTURE: [
            schema.encode_mixture(full, StandardErrors(ones, ones[None], eye[None])),
            schema.encode_mixture(blocks, unknown),
        ],
        schema.AXES: [schema.encode_axes(shared)],
        schema.TRANSFORM: [schema.encode_transform(transform)],
    }
    return {
        name: list(
            dict.fromkeys(
                (field.name, str(field.type))
                for data in versions
                for field in schema.read_table(name, data).schema
            )
        )
        for name, versions in files.items()
    }


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = (
        [re.sub(r"(?<!\\)\|", r"\\|", " ".join(cell.split())) for cell in row] for row in lines
    )
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
