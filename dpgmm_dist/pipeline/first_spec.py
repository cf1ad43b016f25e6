"""A first specification from the public schema of a data set: names, types and widths of columns.

No row is read. Labels, bounds and the budget are not in the schema. They are asked of a person, or
left as lines to be filled in.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dpgmm_dist.column_kinds import Kind
from dpgmm_dist.data.column_types import embedding_items, feature_kind, is_text, shown
from dpgmm_dist.errors import SpecError
from dpgmm_dist.spec.release_spec import ReleaseSpec
from dpgmm_dist.spec.yaml_file import parse
from dpgmm_dist.storage.parquet_files import Place, list_files, opened

Role = Literal["embedding", "number", "text", "other"]


@dataclass(frozen=True)
class PublicColumn:
    """A column as the schema describes it."""

    name: str
    type: str
    role: Role
    """Its possible role: embeddings, a column of a table, a label or a unit, or none."""
    width: int | None = None
    """Numbers of an embedding, where the type fixes them."""
    kind: Kind | None = None
    """What a column of a table holds."""


@dataclass(frozen=True)
class Answers:
    """What only a person knows. What is None or empty is left open in the file."""

    features: tuple[str, ...]
    label: str | None = None
    labels: tuple[str, ...] = ()
    """The public values of the label, as they are typed."""
    unit: str | None = None
    epsilon: float = 1.0
    delta: float = 1e-6
    ledger: str = "ledger"
    output: str = "releases/first"


def schema_of(path: str, storage_options: Mapping[str, Any] | None = None) -> list[PublicColumn]:
    """The columns of a Parquet data set, from the footer of its first file.

    Raises
    ------
    SpecError, DataError
        When the path is wrong, empty, or cannot be read.
    """
    place = Place(path, dict(storage_options or {}), key="DATA")
    files = list_files(place)
    fs, _ = place.resolve()
    with place.public_errors("cannot read the schema"), opened(fs, files[0].path, 1, 0) as file:
        fields = list(file.schema_arrow)
    columns = [_column(field.name, field.type) for field in fields]
    named = {column.name for column in columns}
    return columns + [
        PublicColumn(name, "directory names", "text")
        for name, _ in files[0].constants
        if name not in named
    ]


def suggested_features(
    columns: Sequence[PublicColumn], others: Collection[str | None] = ()
) -> tuple[str, ...]:
    """The first column of embeddings, or else all columns of numbers but ``others``.

    Raises
    ------
    SpecError
        When there is no column that could be released.
    """
    embeddings = [column.name for column in columns if column.role == "embedding"]
    if embeddings:
        return (embeddings[0],)
    numbers = tuple(c.name for c in columns if c.role == "number" and c.name not in others)
    if not numbers:
        raise SpecError(
            "no column holds embeddings (lists of numbers) or numbers: the columns are "
            + ", ".join(f"{column.name} ({column.type})" for column in columns)
        )
    return numbers


def draft(path: str, columns: Sequence[PublicColumn], answers: Answers) -> str:
    """The specification as commented YAML.

    Raises
    ------
    SpecError
        When an answer is not valid.
    """
    by_name = {column.name: column for column in columns}
    for name in (*answers.features, answers.label, answers.unit):
        if name is not None and name not in by_name:
            raise SpecError(f"there is no column {name!r}: use one of {', '.join(by_name)}")
    if (answers.label is None) != (not answers.labels):
        raise SpecError("a label needs its public values, and values need a label")
    features = [by_name[name] for name in answers.features]
    table = features[0].role != "embedding"
    _require_features(features)
    lines = [
        "# A specification for dpgmm, begun by dpgmm init. It was written from names and types of",
        "# columns; no row was read. All of it is public: fill it in without looking at rows.",
        "# Then: dpgmm plan, dpgmm ledger init, dpgmm release.",
        "",
        *_dataset(path, columns, features, answers, table),
        *_bounds(features, table),
        *_privacy(answers),
        "model:",
        "  components: auto  # or a number (per label), or candidates: [1, 2, 4]",
        "  # covariance: auto  # or full, tied, diag, spherical",
        *([] if table else ["  # dimension: 32  # latent dimensions of a private projection"]),
        "",
        "output:",
        f"  path: {_yaml(answers.output)}",
        "",
    ]
    text = "\n".join(lines)
    document = parse(text, "the drafted specification")
    needs_width = not table and features[0].width is None
    ReleaseSpec.from_dict(document if not needs_width else _with_a_width(document))
    return text


def _require_features(features: Sequence[PublicColumn]) -> None:
    """Features are one column of embeddings, or columns of numbers."""
    if len(features) == 1 and features[0].role == "embedding":
        return
    for column in features:
        if column.role != "number":
            raise SpecError(
                f"column {column.name!r} is {column.type}: features are columns of numbers, "
                "booleans, dates and times, or one column of embeddings alone"
            )


def _dataset(
    path: str,
    columns: Sequence[PublicColumn],
    features: Sequence[PublicColumn],
    answers: Answers,
    table: bool,
) -> list[str]:
    lines = ["dataset:", f"  path: {_yaml(path)}"]
    if table:
        lines.append("  features:  # remove identifiers and what is not to be released")
        lines += [f"    - {_yaml(column.name)}  # {column.type}" for column in features]
        lines += _columns_of_words(columns, answers)
        lines.append("  # nulls: model  # keeps rows with empty cells; else they are left out")
    else:
        lines.append(f"  features: {_yaml(features[0].name)}  # {features[0].type}")
        if features[0].width is None:
            lines.append("  # width: 128  # FILL IN: numbers in a row, which the type does not say")
    if answers.label is not None:
        values = ", ".join(_label(value) for value in answers.labels)
        lines += [f"  label: {_yaml(answers.label)}", f"  labels: [{values}]"]
    else:
        lines += [
            "  # label: COLUMN  # one mixture for each label" + _candidates(columns, features),
            "  # labels: [0, 1]  # its public values; rows with any other add nothing",
        ]
    if answers.unit is not None:
        lines.append(f"  privacy_unit: {{column: {_yaml(answers.unit)}, max_rows: 4}}")
        lines.append("  # max_rows: rows kept of a person; noise grows with it")
    else:
        lines.append("  # privacy_unit: {column: COLUMN, max_rows: 4}")
        lines.append("  # needed if a person has several rows: without it, one row is protected")
    return [*lines, ""]


def _columns_of_words(columns: Sequence[PublicColumn], answers: Answers) -> list[str]:
    """Columns of texts as categories, whose public values are to be filled in."""
    named = (answers.label, answers.unit)
    texts = [column for column in columns if column.role == "text" and column.name not in named]
    if not texts:
        return []
    lines = ["  # categories:  # columns of words with their public values; any other is missing"]
    return lines + [f"  #   {_yaml(column.name)}: [VALUE, VALUE]" for column in texts]


def _bounds(features: Sequence[PublicColumn], table: bool) -> list[str]:
    """Bounds that are found privately."""
    if table:
        lines = [
            "  columns:  # auto is found privately. Limits that you know cost nothing: [0, 120]."
        ]
        lines += [f"    {_yaml(column.name)}: auto" for column in features]
    else:
        lines = [
            "  norm: auto  # the largest length of a row, found privately at a twentieth of the",
            "              # budget. If the encoder normalises rows, write 1.0: it costs nothing.",
        ]
    return ["bounds:", *lines, ""]


def _privacy(answers: Answers) -> list[str]:
    return [
        "privacy:",
        f"  epsilon: {answers.epsilon:g}  # 1 is strong, 10 is weak; docs/privacy.md",
        f"  delta: {_plain(answers.delta)}  # much less than one in the number of people",
        f"  ledger: {_yaml(answers.ledger)}  # dpgmm ledger init {answers.ledger} --epsilon E "
        "--delta D, once",
        "",
    ]


def _column(name: str, dtype: Any) -> PublicColumn:
    role: Role = "other"
    width = None
    items = embedding_items(dtype)
    kind = feature_kind(dtype)
    if kind is not None:
        role = "number"
    elif is_text(dtype):
        role = "text"
    elif items is not None:
        role, width = "embedding", items[1]
    return PublicColumn(name, shown(dtype), role, width, kind)


def _candidates(columns: Sequence[PublicColumn], features: Sequence[PublicColumn]) -> str:
    """The columns that could hold labels, as the end of a comment."""
    taken = {column.name for column in features}
    found = [c.name for c in columns if c.role in ("number", "text") and c.name not in taken]
    return f"; perhaps {', '.join(found[:5])}" if found else ""


def _with_a_width(document: dict[str, Any]) -> dict[str, Any]:
    """The draft with a width filled in, to check everything else."""
    return {**document, "dataset": {**document["dataset"], "width": 1}}


def _label(value: str) -> str:
    """A label as YAML: whole numbers and booleans as they are, everything else as text."""
    plain = value.strip()
    if plain.lstrip("-").isdigit() or plain in ("true", "false"):
        return plain
    return json.dumps(plain, ensure_ascii=False)


def _yaml(text: str) -> str:
    """A text as YAML, quoted where it needs to be."""
    safe = text.replace("_", "a").replace("/", "a").replace(".", "a").replace("-", "a")
    bare = safe.isalnum() and safe.isascii() and text[0].isalpha()
    reserved = text.lower() in ("true", "false", "null", "yes", "no", "on", "off")
    return text if bare and not reserved else json.dumps(text, ensure_ascii=False)


def _plain(number: float) -> str:
    return f"{number:g}".replace("e-0", "e-")
