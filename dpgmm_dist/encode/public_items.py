"""PUBLIC raw items with their embeddings, from Parquet: what ``nearest:`` and ``fit:`` learn from.

The items belong to people who agreed that they are public. They must not be rows of the release.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dpgmm_dist.data.embeddings import embedding_rows
from dpgmm_dist.encode.protocol import Shape
from dpgmm_dist.encode.raw_rows import raw_batch, row_shape
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.storage.parquet_files import Place, list_files, opened


@dataclass(frozen=True)
class PublicColumns:
    """The columns of public items; None for the only one that it can be."""

    item: str | None = None
    """Texts, picture files, or lists of uint8 pixels."""
    embedding: str | None = None
    """Lists of floating-point numbers."""
    label: str | None = None
    """Labels like those of the synthetic rows; None if labels are not compared."""


@dataclass(frozen=True, eq=False)
class PublicItems:
    """m public items in memory."""

    embeddings: NDArray[np.float32]
    """(m, d)."""
    raw: pa.ChunkedArray
    """The raw items (m,)."""
    labels: NDArray[np.str_] | None
    """The label (m,) of each as text."""
    shape: Shape
    """The shape (h, w, c) of pictures; () for texts."""

    def __len__(self) -> int:
        return len(self.raw)

    def texts(self, index: NDArray[np.int64]) -> list[str]:
        """The texts at some indices (n,)."""
        found: list[str] = self.raw.take(pa.array(index)).to_pylist()
        return found

    def pictures(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pictures (n, h, w, c) at some indices (n,).

        Raises
        ------
        DataError
            When one of them cannot be read.
        """
        taken = self.raw.take(pa.array(index)).combine_chunks()
        taken = taken.chunk(0) if isinstance(taken, pa.ChunkedArray) else taken
        rows, readable = raw_batch(taken, self.shape)
        if not readable.all():
            raise DataError(
                f"the public picture {int(index[~readable][0])} cannot be read: leave it out of "
                "the public items"
            )
        return np.asarray(rows)


def read_public_items(
    url: str,
    columns: PublicColumns,
    shape: Shape = (),
    storage_options: Mapping[str, Any] | None = None,
) -> PublicItems:
    """Read public items. Rows without an item or an embedding are left out.

    Parameters
    ----------
    url : Parquet with raw items and embeddings, such as ``dpgmm encode --keep RAW`` writes.
    columns : its columns.
    shape : shape of the pictures, () for texts.
    storage_options : storage options of the URL.

    Raises
    ------
    SpecError
        When a column is to be chosen, or the shape is missing or given for texts.
    DataError
        When the files cannot be read or do not have the columns.
    """
    item, embedding, table = _read(url, columns, storage_options, items=True)
    return _items(table, item, embedding, columns.label, shape, url)


def public_embeddings(
    url: str, columns: PublicColumns, storage_options: Mapping[str, Any] | None = None
) -> NDArray[np.float32]:
    """Only the embeddings (m, d) of public items, as `read_public_items` reads them."""
    _, embedding, table = _read(url, columns, storage_options, items=False)
    return _rows(table.filter(pc.is_valid(table[embedding])), embedding, url)


def _read(
    url: str, columns: PublicColumns, options: Mapping[str, Any] | None, *, items: bool
) -> tuple[str, str, pa.Table]:
    """The names of the columns of items ("" without) and embeddings, and a table of both."""
    place = Place(url, dict(options or {}))
    fs, _ = place.resolve()
    tables = []
    item = embedding = ""
    for file in list_files(place):
        try:
            with opened(fs, file.path, 1, 0) as parquet:
                schema = parquet.schema_arrow
                embedding = columns.embedding or _only(schema, _is_embedding, "embedding", url)
                names = [embedding]
                if items:
                    item = columns.item or _only(schema, is_item, "item", url)
                    names += [item, *([columns.label] if columns.label else [])]
                for name in names:
                    if name not in schema.names:
                        has = ", ".join(schema.names[:20])
                        raise DataError(f"{url}: no column {name!r}; it has {has}")
                tables.append(parquet.read(names))
        except (DataError, SpecError):
            raise
        except Exception as error:
            raise DataError(
                f"cannot read {place.message_path(fs, file.path)} ({type(error).__name__})"
            ) from None
    return item, embedding, pa.concat_tables(tables)


def _only(schema: pa.Schema, fits: Any, role: str, url: str) -> str:
    found = [field.name for field in schema if fits(field.type)]
    if len(found) != 1:
        raise SpecError(
            f"{url}: {len(found)} columns can be the {role} ({', '.join(found)}): choose one with "
            f"--public-{role}"
        )
    return str(found[0])


def _is_embedding(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type))


def is_item(kind: pa.DataType) -> bool:
    """Whether a column of a type can hold raw items: texts, picture files or uint8 pixels."""
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        return bool(pa.types.is_uint8(kind.value_type))
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    texts_or_files = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_binary,
        pa.types.is_large_binary,
    )
    return any(fits(kind) for fits in texts_or_files)


def _items(
    table: pa.Table, item: str, embedding: str, label: str | None, shape: Shape, url: str
) -> PublicItems:
    table = table.filter(pc.and_(pc.is_valid(table[item]), pc.is_valid(table[embedding])))
    shape = row_shape(item, table.schema.field(item).type, shape)
    labels = None
    if label is not None:
        labels = np.array([str(value) for value in table[label].to_pylist()])
    return PublicItems(_rows(table, embedding, url), table[item], labels, shape)


def _rows(table: pa.Table, embedding: str, url: str) -> NDArray[np.float32]:
    kind = table.schema.field(embedding).type
    if not _is_embedding(kind):
        raise DataError(f"{url}: the column {embedding!r} must be a fixed-size list of numbers")
    if not len(table):
        raise DataError(f"{url}: there are no public items with embeddings")
    chunks = table[embedding].chunks
    return np.concatenate(
        [np.asarray(embedding_rows(chunk, kind.list_size)[0], np.float32) for chunk in chunks]
    )
