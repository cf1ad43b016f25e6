"""The Arrow types that a feature or label column may have, and messages about other types.

Types are public. Nothing here looks at a row.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa

from dpgmm_dist.column_kinds import Kind, kind_of
from dpgmm_dist.data.labels import Labels, are_strings
from dpgmm_dist.errors import DataError, SpecError

_SHOWN_TYPE = 80
_LIST_TYPES = "float16, float32, float64 or uint8"
_FLOAT32_BYTES = 4
_VECTOR = ("type", "size", "indices", "values")


def shown(dtype: Any) -> str:
    """The name of a type, for messages."""
    text = str(dtype)
    return text if len(text) <= _SHOWN_TYPE else text[:_SHOWN_TYPE] + "..."


def find_fields(fields: Any, name: str) -> list[tuple[str, ...]]:
    """The places of a column in a schema (or struct type), each as the names that lead to it.

    ``meta.age`` is a column of that name; where there is none, the field ``age`` of the struct
    column ``meta``. Where all of ``meta`` is missing it has the type null, and so has its field.
    """
    exact = fields.get_all_field_indices(name)
    if exact:
        return [(name,)] * len(exact)
    found: list[tuple[str, ...]] = []
    for field in fields if "." in name else ():
        dtype = stored_type(field.type)
        if not name.startswith(f"{field.name}."):
            continue
        if pa.types.is_null(dtype):
            found.append((field.name,))
        elif pa.types.is_struct(dtype):
            rest = find_fields(dtype, name[len(field.name) + 1 :])
            found += [(field.name, *place) for place in rest]
    return found


def field_type(fields: Any, place: tuple[str, ...]) -> Any:
    """The storage type of the field at a place that :func:`find_fields` gave."""
    dtype = stored_type(fields.field(place[0]).type)
    return dtype if len(place) == 1 else field_type(dtype, place[1:])


def stored_type(dtype: Any) -> Any:
    """The type itself, or the storage type of an extension type."""
    return dtype.storage_type if isinstance(dtype, pa.BaseExtensionType) else dtype


def value_type(dtype: Any) -> Any:
    """The type itself, or that of the entries of a dictionary."""
    return dtype.value_type if pa.types.is_dictionary(dtype) else dtype


def is_list(dtype: Any) -> bool:
    """Whether each value is a list, of any of Arrow's kinds."""
    types = pa.types
    tests = (
        types.is_list,
        types.is_large_list,
        types.is_fixed_size_list,
        types.is_list_view,
        types.is_large_list_view,
    )
    return any(test(dtype) for test in tests)


def is_spark_vector(dtype: Any) -> bool:
    """Whether the type is that of Spark's vectors: a struct {type, size, indices, values}."""
    if not pa.types.is_struct(dtype) or tuple(field.name for field in dtype) != _VECTOR:
        return False
    kind, size, indices, values = (field.type for field in dtype)
    return bool(
        pa.types.is_integer(kind)
        and pa.types.is_integer(size)
        and is_list(indices)
        and pa.types.is_integer(indices.value_type)
        and is_list(values)
        and pa.types.is_floating(values.value_type)
    )


def embedding_items(dtype: Any) -> tuple[Any, int | None] | None:
    """The type of the numbers of an embedding, and how many of them its type fixes.

    Embeddings are lists of numbers, lists of such lists, bytes of float32 (little-endian) of a
    fixed size, or Spark's vectors. None for any other type.
    """
    if pa.types.is_null(dtype):
        return dtype, None
    if pa.types.is_fixed_size_binary(dtype):
        size, rest = divmod(dtype.byte_width, _FLOAT32_BYTES)
        return (pa.float32(), size) if size and not rest else None
    if is_spark_vector(dtype):
        return dtype.field("values").type.value_type, None
    if not is_list(dtype):
        return None
    width: int | None = 1
    while is_list(dtype):
        fixed = dtype.list_size if pa.types.is_fixed_size_list(dtype) else None
        width = None if width is None or fixed is None else width * fixed
        dtype = dtype.value_type
    return (dtype, width) if _is_number(dtype) or pa.types.is_null(dtype) else None


def embedding_problem(column: str, dtype: Any) -> str | None:
    """What is wrong with the type of a column of embeddings; None if nothing is."""
    if kind_of(value_type(dtype)) is not None:
        return f"not a list: for a table of numeric columns write dataset.features: [{column}]"
    items = embedding_items(dtype)
    if items is not None:
        return "which has no features" if items[1] == 0 else None
    if pa.types.is_fixed_size_binary(dtype):
        return "not bytes of float32 numbers, whose size is a multiple of 4: cast it to a list"
    if pa.types.is_struct(dtype):
        return f"not a list of numbers: name a field of it, {column}.FIELD"
    return f"not a list of numbers: dataset.features needs a list of {_LIST_TYPES}; cast it to one"


def table_problem(column: str, dtype: Any) -> str | None:
    """What is wrong with the type of a feature column of a table; None if nothing is."""
    if pa.types.is_null(dtype) or kind_of(value_type(dtype)) is not None:
        return None
    if embedding_items(dtype) is not None:
        return f"not a numeric column: for one list column write dataset.features: {column}"
    if pa.types.is_struct(dtype):
        return f"not a numeric column: name a field of it, {column}.FIELD"
    return (
        "not a numeric column (numbers, booleans, dates, times): cast it to an integer or float "
        "column, or leave it out"
    )


def feature_kind(dtype: Any) -> Kind | None:
    """The kind of a feature column of a table that has no problem; None for all nulls."""
    return kind_of(value_type(dtype))


def _is_number(dtype: Any) -> bool:
    return bool(pa.types.is_integer(dtype) or pa.types.is_floating(dtype))


def is_text(dtype: Any) -> bool:
    """Whether values are strings, of any of Arrow's kinds."""
    types = pa.types
    return any(
        test(dtype) for test in (types.is_string, types.is_large_string, types.is_string_view)
    )


def check_label_type(
    column: str, dtype: Any, labels: Labels, name: str, key: str = "dataset.labels"
) -> None:
    """Refuse a column, of the file or frame ``name``, that cannot hold public labels or categories.

    ``key`` is the key of the specification that lists them.

    Raises
    ------
    DataError
        If they cannot be of this type.
    SpecError
        If they are of another kind.
    """
    value = value_type(dtype)
    if pa.types.is_null(value):
        return
    stored = _labels_of(value)
    singular, plural = _CALLED[key]
    if stored is None:
        raise DataError(
            f"{name}: {singular} column {column!r} is {shown(dtype)}: {plural} must be integers, "
            "strings, booleans or dates; cast the column"
        )
    given = "strings" if are_strings(labels) else "integers"
    given = "booleans" if isinstance(labels[0], bool) else given
    if stored == "dates" and given == "strings":
        wrong = next((text for text in labels if not _is_date(text)), None)
        if wrong is None:
            return
        raise SpecError(
            f"{key} holds {wrong!r} but column {column!r} of {name} holds dates: write "
            "each as YEAR-MONTH-DAY, such as '2026-11-25'"
        )
    if stored == given or (stored, given) == ("booleans", "integers"):
        return
    raise SpecError(
        f"{key} are {given} (such as {labels[0]!r}) but column {column!r} of {name} "
        f"holds {stored}: write the {plural} {_AS[stored]}"
    )


_CALLED = {
    "dataset.labels": ("label", "labels"),
    "dataset.categories": ("category", "categories"),
}
_AS = {
    "strings": "in quotes",
    "integers": "without quotes, as whole numbers",
    "booleans": "as false and true",
    "dates": "as '2026-11-25'",
}


def _labels_of(dtype: Any) -> str | None:
    if is_text(dtype):
        return "strings"
    if pa.types.is_integer(dtype):
        return "integers"
    if pa.types.is_boolean(dtype):
        return "booleans"
    return "dates" if pa.types.is_date(dtype) else None


def _is_date(text: object) -> bool:
    try:
        return date.fromisoformat(str(text)).isoformat() == text
    except ValueError:
        return False
