"""Pydantic's errors as one line each: the key, the value, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dpgmm_dist.spec.fields import show

_EXAMPLES = {
    "dataset": "dataset: {path: data/, features: embedding}",
    "bounds": "bounds: {norm: 1.0}, or bounds: {columns: {age: [0, 120]}} for a table",
    "privacy": "privacy: {epsilon: 1.0, delta: 1e-6}",
    "dataset.path": "path: data/train/",
    "dataset.features": "features: embedding, or features: [age, income]",
    "privacy.epsilon": "epsilon: 1.0",
    "privacy.delta": "delta: 1e-6",
    "dataset.privacy_unit.column": "column: user_id",
    "dataset.privacy_unit.max_rows": "max_rows: 4",
}


class Problems(ValueError):
    """Several messages at once, from a check that compares keys."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def explain(
    error: ValidationError, model: type[BaseModel], sources: Mapping[tuple[str, ...], str]
) -> list[str]:
    """Return one line for each problem in ``error``.

    ``sources`` says where a value came from, for each key path that is not from the file.
    """
    lines: list[str] = []
    for detail in error.errors(include_url=False):
        lines += _lines(detail, model, sources)
    return lines


def _lines(
    detail: ErrorDetails, model: type[BaseModel], sources: Mapping[tuple[str, ...], str]
) -> Iterator[str]:
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, Problems):
        yield from cause.lines
        return
    path = tuple(str(part) for part in detail["loc"])
    key = ".".join(path) or "specification"
    origins = [source for key_path, source in sources.items() if key_path[: len(path)] == path]
    note = f" (from {origins[-1]})" if origins else ""
    match detail["type"]:
        case "extra_forbidden":
            yield f"{key}: unknown key{_shown(detail['input'])}{note}; {_suggestion(path, model)}"
        case "missing":
            yield f"{key}: missing; add it, for example {_EXAMPLES.get(key, key + ': ...')}"
        case "value_error":
            yield f"{key}: {cause}{note}"
        case "invalid_key":
            yield f"{key}: keys must be text; quote it or remove it"
        case _:
            keys = ", ".join(_model_at(path, model).model_fields)
            yield f"{key}: got {show(detail['input'])}{note}; must be a mapping with keys of {keys}"


def _shown(value: object) -> str:
    # A misspelt storage_options may hold a secret, so texts under unknown keys are not shown.
    return f", got {show(value)}" if isinstance(value, (bool, int, float)) else ""


def _suggestion(path: tuple[str, ...], model: type[BaseModel]) -> str:
    """Return advice for an unknown key: the same name in another section, or a similar one."""
    siblings = _model_at(path[:-1], model).model_fields
    prefix = "".join(part + "." for part in path[:-1])
    everywhere = list(_all_keys(model))
    for key in everywhere:
        if key.rpartition(".")[2] == path[-1]:
            return f"did you mean {key}?"
    close = difflib.get_close_matches(path[-1], siblings, n=1)
    if close:
        return f"did you mean {prefix}{close[0]}?"
    close = difflib.get_close_matches(".".join(path), everywhere, n=1, cutoff=0.75)
    if close:
        return f"did you mean {close[0]}?"
    return f"remove it, or use one of {', '.join(siblings)}"


def _model_at(path: tuple[str, ...], model: type[BaseModel]) -> type[BaseModel]:
    for part in path:
        field = model.model_fields.get(part)
        inner = _section(field.annotation) if field else None
        if inner is None:
            break
        model = inner
    return model


def _section(annotation: Any) -> type[BaseModel] | None:
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation]
    for option in options:
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        inner = _section(field.annotation)
        if inner is not None:
            yield from _all_keys(inner, f"{prefix}{name}.")
