"""The columns of a table of Delta Lake or Iceberg, and what they are called in one of its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dpgmm_dist.errors import DataError
from dpgmm_dist.opaque import Opaque

_FIELD_ID = b"PARQUET:field_id"


@dataclass(frozen=True, repr=False)
class TableColumns(Opaque):
    """The columns of a snapshot: Delta knows them by name, Iceberg by the ids of fields."""

    names: tuple[str, ...]
    ids: tuple[tuple[str, int], ...] | None = None
    """The id of each column and, as ``meta.age``, of each field of a struct. None: by name."""
    mapping: tuple[tuple[str, int], ...] = ()
    """The ids of columns of files that hold none, by their names there."""

    def in_file(self, schema: pa.Schema, name: str) -> dict[str, str]:
        """Return the file's name of each column of the table that the file has.

        Parameters
        ----------
        schema : the Arrow schema of the file.
        name : the file, for messages.

        Raises
        ------
        DataError
            If fields of a struct were renamed, or the file has no ids.
        """
        if self.ids is None:
            have = set(schema.names)
            return {column: column for column in self.names if column in have}
        found = dict(field_ids(schema)) or self._mapped(schema, name)
        by_id = {number: path for path, number in found.items()}
        wanted = dict(self.ids)
        columns = {c: by_id[wanted[c]] for c in self.names if wanted[c] in by_id}
        for path, number in wanted.items():
            column, dot, rest = path.partition(".")
            if dot and column in columns:
                in_file = f"{columns[column]}.{rest}"
                if by_id.get(number, in_file) != in_file or found.get(in_file, number) != number:
                    raise DataError(
                        f"{name}: the field {path!r} of the table has another name in this file; "
                        "rewrite the table's files (rewrite_data_files), or read another column"
                    )
        return columns

    def _mapped(self, schema: pa.Schema, name: str) -> dict[str, int]:
        mapping = dict(self.mapping)
        if not mapping:
            raise DataError(
                f"{name}: holds no field ids and the table has no name mapping, so its columns "
                "are not known; rewrite the table's files"
            )
        return {column: mapping[column] for column in schema.names if column in mapping}


def field_ids(schema: Any) -> Iterator[tuple[str, int]]:
    """Yield the path and the id of each column, and of each field of a struct, that has an id."""
    for index in range(len(schema) if isinstance(schema, pa.Schema) else schema.num_fields):
        field = schema.field(index)
        number = (field.metadata or {}).get(_FIELD_ID)
        if number is not None:
            yield field.name, int(number)
        if pa.types.is_struct(field.type):
            for path, inner in field_ids(field.type):
                yield f"{field.name}.{path}", inner
