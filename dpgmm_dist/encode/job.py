"""``dpgmm encode``: embeddings of the rows of raw Parquet files, on any engine."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

import pyarrow as pa

from dpgmm_dist.artifact.part_files import (
    ForEach,
    make_empty_folder,
    new_parquet,
    one_after_another,
    part_name,
    storage_errors,
)
from dpgmm_dist.data.provenance import METADATA_KEY, Provenance
from dpgmm_dist.encode.batches import Pipeline, rows_are_independent
from dpgmm_dist.encode.drawn_shapes import principal_axes
from dpgmm_dist.encode.options import EncoderOptions
from dpgmm_dist.encode.picture_input import PictureInput
from dpgmm_dist.encode.projection import Projection
from dpgmm_dist.encode.protocol import Encoder, Shape, parse_shape, sha256_of
from dpgmm_dist.encode.raw_rows import embedding_column, prepared_shape, raw_batch, row_shape
from dpgmm_dist.encode.registry import find_encoder
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.opaque import Opaque
from dpgmm_dist.storage.parquet_files import FoundFile, Place, for_each_file, list_files, opened
from dpgmm_dist.storage.urls import check_no_password, safe_url

COLUMN = "embedding"
"""Name of the column of embeddings."""
_GROUP_ROWS = 8192
"""Most rows of a row group that is written."""
_PIECE_ROWS = 4096
"""Rows of a piece, about. A slow encoder takes a minute for them."""
_MOST_SLICES = 16
"""Most pieces of one row group: each piece reads the row group from its beginning."""


class EncodeResult(TypedDict):
    """What `write_embeddings` wrote; nothing in it depends on the rows."""

    files: int
    width: int
    encoder: str
    digest: str
    rows_are_independent: bool
    output: str


@dataclass(frozen=True)
class Recipe:
    """Everything that defines the embeddings. Workers build the same pipeline from it."""

    encoder: str
    shape: Shape
    batch: int
    projection: bytes | None
    unit_norm: bool
    options: EncoderOptions = field(default_factory=EncoderOptions)

    def pipeline(self) -> Pipeline:
        """The pipeline, loaded once in each process."""
        return _loaded(self)

    def digest(self) -> str:
        """SHA-256 (hex) of the encoder, the projection and the settings."""
        encoder = self.pipeline().encoder
        picture = _picture_input(encoder)
        settings = [repr((self.shape, self.unit_norm))] + ([repr(picture)] if picture else [])
        return sha256_of(encoder.digest, self.projection or b"", *settings)

    def provenance(self) -> Provenance:
        """What the receipt says about the embeddings.

        This tests whether the embeddings of different rows are independent.
        """
        pipeline = self.pipeline()
        name = pipeline.encoder.name
        if self.projection is not None:
            name += f", projected to {pipeline.width}"
        if self.unit_norm:
            name += ", unit norm"
        return Provenance(
            name=name,
            digest=self.digest(),
            batch=self.batch,
            rows_are_independent=rows_are_independent(pipeline),
        )


@functools.lru_cache(maxsize=2)
def _loaded(recipe: Recipe) -> Pipeline:
    projection = None
    if recipe.projection is not None:
        projection = Projection.from_bytes(recipe.projection, "the projection")
    encoder = find_encoder(recipe.encoder, recipe.shape, recipe.options)
    shape = prepared_shape(recipe.shape, _picture_input(encoder))
    return Pipeline(encoder, shape, recipe.batch, projection, recipe.unit_norm)


def _picture_input(encoder: Encoder) -> PictureInput | None:
    """How an encoder wants its pictures prepared, for encoders that say so."""
    picture: PictureInput | None = getattr(encoder, "picture", None)
    return picture


def write_embeddings(
    input_url: str,
    output: str,
    *,
    encoder: str,
    column: str,
    shape: str | None = None,
    keep: tuple[str, ...] | None = None,
    batch: int = 64,
    projection: str | None = None,
    axes: int | None = None,
    save_projection: str | None = None,
    unit_norm: bool = False,
    options: EncoderOptions | None = None,
    storage_options: Mapping[str, Any] | None = None,
    output_options: Mapping[str, Any] | None = None,
    progress: Callable[[float], None] | None = None,
    for_each: ForEach = one_after_another,
) -> EncodeResult:
    """Write embeddings of raw rows. The output is as private as the input.

    Parameters
    ----------
    input_url : file, directory, glob or URL of Parquet files.
    output : directory or URL; it is empty or does not exist yet.
    encoder : name of an encoder, see `find_encoder`.
    column : the raw column: text, pictures as bytes, or lists of numbers.
    shape : ``HxW`` or ``HxWxC`` of pictures; pictures of another size are scaled to it.
    keep : columns to copy, such as a label; None copies all but the raw column.
    batch : number of rows in every batch. With 1, rows are independent by construction.
    projection : path of a public projection (``.npz``) that is applied after the encoder.
    axes : number of principal axes over drawn shapes to project to, in place of ``projection``.
    save_projection : path to write the projection to. It is public, and serves as ``projection``
        for other rows and for decoding.
    unit_norm : whether to scale embeddings to length 1.
    options : what is said about the input of a trained model; None takes what its files say.
    storage_options, output_options : storage options of the input and of the output.
    progress : called with the fraction of pieces done.
    for_each : encodes the pieces; `dpgmm_dist.engine.tasks.for_each_on` gives that of an engine.

    Raises
    ------
    SpecError
        When an argument is not valid, or does not fit the column. Nothing is written.
    DataError
        When the input cannot be read or lacks the columns, or the output cannot be written.
    """
    _check_arguments(batch, projection, axes, output)
    place = Place(input_url, dict(storage_options or {}))
    files = list_files(place)
    kept, column_type = _columns(place, files[0], column, keep)
    options = options or EncoderOptions()
    raw_shape = _raw_shape(encoder, options, column, column_type, parse_shape(shape))
    recipe = Recipe(encoder, raw_shape, batch, _read_projection(projection), unit_norm, options)
    recipe = _with_axes(recipe, axes)
    _save(recipe.projection, save_projection)
    pieces = _pieces(place, files)
    provenance = recipe.provenance()
    task = _PieceEncoder(recipe, provenance, place, column, kept, output, output_options)
    return _encode_pieces(task, pieces, for_each, progress)


def _check_arguments(batch: int, projection: str | None, axes: int | None, output: str) -> None:
    if not 1 <= batch <= 65536:
        raise SpecError(f"--batch must be from 1 to 65536, got {batch}")
    if projection is not None and axes is not None:
        raise SpecError("give at most one of --projection and --project")
    check_no_password(output)


def _raw_shape(
    encoder: str, options: EncoderOptions, column: str, column_type: pa.DataType, given: Shape
) -> Shape:
    """The shape of a raw row, from the type of its column, the given shape and the encoder."""
    picture = _picture_input(find_encoder(encoder, given, options))
    return row_shape(column, column_type, given, picture)


def _encode_pieces(
    task: _PieceEncoder,
    pieces: list[_Piece],
    for_each: ForEach,
    progress: Callable[[float], None] | None,
) -> EncodeResult:
    """Write one file of embeddings for each piece, into an empty folder."""
    width = task.recipe.pipeline().width
    with storage_errors("write embeddings", task.output):
        make_empty_folder(task.output, task.options)
        report = progress or (lambda _: None)
        report(0.0)  # so that the rate counts the first piece
        for_each(task, pieces, report)
    return EncodeResult(
        files=len(pieces),
        width=width,
        encoder=task.provenance.name,
        digest=task.provenance.digest,
        rows_are_independent=task.provenance.rows_are_independent,
        output=safe_url(task.output),
    )


def _columns(
    place: Place, file: FoundFile, column: str, keep: tuple[str, ...] | None
) -> tuple[tuple[str, ...], pa.DataType]:
    """The columns to copy and the type of the raw column, from the schema of the first file."""
    fs, _ = place.resolve()
    schema = None
    try:
        with opened(fs, file.path, 1, 0) as parquet:
            schema = parquet.schema_arrow
    except Exception:
        schema = None
    if schema is None:
        raise DataError(f"cannot read {place.message_path(fs, file.path)}: is it Parquet?")
    names = [*schema.names, *(name for name, _ in file.constants if name not in schema.names)]
    for name in (column, *(keep or ())):
        if name not in names:
            raise DataError(f"{place.url}: no column {name!r}; it has {', '.join(names[:20])}")
    if column not in schema.names:
        raise DataError(
            f"column {column!r} is a partition key in the names of directories: encode takes a "
            "column of the files"
        )
    kept = tuple(name for name in names if name != column) if keep is None else keep
    if COLUMN in kept:
        raise SpecError(
            f"a column to keep is named {COLUMN!r}, which is the name of the column of embeddings: "
            "list the columns that you need with --keep"
        )
    return kept, schema.field(column).type


@dataclass(frozen=True, repr=False)
class _Piece(Opaque):
    """Consecutive row groups of one file. A task encodes a piece into one output file."""

    index: int
    file: FoundFile
    row_groups: tuple[int, ...]
    rows: tuple[int, int] | None = None
    """First row of the single row group and the row after the last; None for all rows."""


def _pieces(place: Place, files: tuple[FoundFile, ...]) -> list[_Piece]:
    """All rows of all files, in order, in pieces of about `_PIECE_ROWS` rows."""
    fs, _ = place.resolve()

    def group_rows(file: FoundFile) -> list[int] | None:
        try:
            with opened(fs, file.path, 1, 0) as parquet:
                metadata = parquet.metadata
                return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        except Exception:  # Arrow's message may quote bytes of the file
            return None

    pieces: list[_Piece] = []
    for file, sizes in zip(files, for_each_file(group_rows, files), strict=True):
        if sizes is None:
            raise DataError(f"cannot read {place.message_path(fs, file.path)}: is it Parquet?")
        for row_groups, rows in _ranges(sizes):
            pieces.append(_Piece(len(pieces), file, row_groups, rows))
    return pieces


def _ranges(sizes: list[int]) -> Iterator[tuple[tuple[int, ...], tuple[int, int] | None]]:
    """Consecutive small row groups together, and large ones in slices, for the sizes of a file."""
    groups: list[int] = []
    rows = 0
    for group, size in enumerate(sizes):
        slices = min(_MOST_SLICES, size // _PIECE_ROWS)
        if slices > 1:
            if groups:
                yield tuple(groups), None
            ends = [size * i // slices for i in range(slices + 1)]
            yield from (((group,), rows_of_slice) for rows_of_slice in itertools.pairwise(ends))
            groups, rows = [], 0
            continue
        groups.append(group)
        rows += size
        if rows >= _PIECE_ROWS:
            yield tuple(groups), None
            groups, rows = [], 0
    if groups or not sizes:
        yield tuple(groups), None


def _read_projection(path: str | None) -> bytes | None:
    """The bytes of a projection file, checked; None for no path."""
    from dpgmm_dist.encode.protocol import file_bytes

    if path is None:
        return None
    data = file_bytes(path)
    Projection.from_bytes(data, path)
    return data


def _save(projection: bytes | None, path: str | None) -> None:
    """Write the projection to ``path``; nothing for no path."""
    import fsspec

    if path is None:
        return
    if projection is None:
        raise SpecError("--save-projection: there is no projection to save; give --project N")
    with storage_errors("write the projection", path), fsspec.open(path, "wb") as file:
        file.write(projection)


def _with_axes(recipe: Recipe, axes: int | None) -> Recipe:
    """The recipe with this many principal axes of drawn shapes as its projection; None for none."""
    if axes is None:
        return recipe
    projection = principal_axes(recipe.pipeline().embed, recipe.shape, axes)
    return replace(recipe, projection=projection.to_bytes())


@dataclass(frozen=True, eq=False, repr=False)
class _PieceEncoder:
    """Encodes one piece. It is sent to workers, so its repr shows no storage options."""

    recipe: Recipe
    provenance: Provenance
    place: Place
    column: str
    kept: tuple[str, ...]
    output: str
    options: Mapping[str, Any] | None

    def __call__(self, piece: _Piece) -> int:
        fs, _ = self.place.resolve()
        problem = ""
        try:
            with storage_errors("write embeddings", self.output):
                self._encode(fs, piece)
        except (DataError, SpecError):
            raise
        except Exception as error:
            # The message of the encoder or of Arrow could quote rows.
            name = self.place.message_path(fs, piece.file.path)
            problem = f"cannot encode {name} ({type(error).__name__})"
        if problem:
            raise DataError(problem)
        return piece.index

    def _encode(self, fs: Any, piece: _Piece) -> None:
        pipeline = self.recipe.pipeline()
        if self.recipe.digest() != self.provenance.digest:
            raise DataError(
                f"a worker has another version of the encoder {pipeline.encoder.name}: install the "
                "same files on all workers"
            )
        constants = dict(piece.file.constants)
        with opened(fs, piece.file.path, 1 + len(self.kept), 0) as parquet:
            schema = self._schema(parquet.schema_arrow, pipeline.width)
            names = parquet.schema_arrow.names
            present = [
                name for name in {self.column: 0} | dict.fromkeys(self.kept) if name in names
            ]
            with new_parquet(self.output, self.options, part_name(piece.index), schema) as write:
                batches = parquet.iter_batches(
                    batch_size=_GROUP_ROWS,
                    row_groups=list(piece.row_groups),
                    columns=present,
                    use_threads=False,
                )
                for batch in _slice(batches, piece.rows):
                    write(self._encoded(batch, schema, constants))

    def _schema(self, file_schema: pa.Schema, width: int) -> pa.Schema:
        """The kept columns, partition keys as text, then the embeddings."""
        fields = [
            file_schema.field(name) if name in file_schema.names else pa.field(name, pa.string())
            for name in self.kept
        ]
        fields.append(pa.field(COLUMN, pa.list_(pa.float32(), width)))
        return pa.schema(fields, metadata={METADATA_KEY: json.dumps(self.provenance.to_dict())})

    def _encoded(
        self, batch: pa.RecordBatch, schema: pa.Schema, constants: Mapping[str, str | None]
    ) -> pa.RecordBatch:
        pipeline = self.recipe.pipeline()
        picture = _picture_input(pipeline.encoder)
        rows, readable = raw_batch(batch.column(self.column), self.recipe.shape, picture)
        embeddings = embedding_column(pipeline.embed(rows), readable)
        columns = [
            batch.column(name)
            if name in batch.schema.names
            else pa.array([constants[name]] * batch.num_rows, pa.string())
            for name in self.kept
        ]
        return pa.RecordBatch.from_arrays([*columns, embeddings], schema=schema)


def _slice(
    batches: Iterator[pa.RecordBatch], rows: tuple[int, int] | None
) -> Iterator[pa.RecordBatch]:
    """The batches of one row group, cut to its rows from the first up to the last."""
    position = 0
    for batch in batches:
        first, last = (position, position + batch.num_rows) if rows is None else rows
        low, high = max(first - position, 0), min(last - position, batch.num_rows)
        position += batch.num_rows
        if low < high or batch.num_rows == 0:
            yield batch.slice(low, high - low)
        if position >= last and rows is not None:
            return
