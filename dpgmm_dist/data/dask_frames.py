"""A dask DataFrame as a source of rows: partitions are computed and read on the workers.

The driver holds the lazy frame and knows its columns and their types. On a worker a
:class:`PartitionSource` gets the computed partitions of one plan unit, which are pandas frames, and
reads them as :class:`FrameSource` does. No rows go from workers to the driver.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from dpgmm_dist.column_kinds import Kind as ColumnKind
from dpgmm_dist.data.blocks import ChunkRange, PlanUnit, RawBlock
from dpgmm_dist.data.frames import FrameSource
from dpgmm_dist.data.labels import Labels
from dpgmm_dist.data.lazy import ChunkReader, LazySource, is_dask
from dpgmm_dist.data.parquet_schema import Columns
from dpgmm_dist.errors import DataError
from dpgmm_dist.windows import Window


@dataclass(frozen=True, repr=False, eq=False)
class DaskFrameSource(LazySource):
    """Rows of a lazy frame; made by :meth:`open`."""

    collection: ClassVar[str] = "dask DataFrame"
    frame: Any
    """The lazy frame, with the columns that are read."""
    example: FrameSource
    """Its columns and their types, without a row."""

    @classmethod
    def open(
        cls,
        frame: Any,
        columns: Columns,
        *,
        width: int | None = None,
        window: Window | None = None,
        argument: str = "source",
    ) -> DaskFrameSource:
        """Check everything public about a frame, and compute nothing.

        Parameters
        ----------
        frame : dask DataFrame
        columns, width, window, argument : as for :meth:`FrameSource.open`

        Raises
        ------
        SpecError, DataError
            As for :meth:`FrameSource.open`, and where the type of a column is not known.
        """
        empty = frame._meta.iloc[:0]
        _check_known(empty, columns, argument)
        example = FrameSource.open(empty, columns, width=width, window=window, argument=argument)
        read = set(example.table.column_names)
        return cls(frame[[name for name in frame.columns if str(name) in read]], example)

    @property
    def columns(self) -> Columns:
        """The columns that are read."""
        return self.example.columns

    @property
    def width(self) -> int:
        """Feature dimension d."""
        return self.example.width

    @property
    def labels(self) -> Labels:
        """The public label set; empty when the data are not labelled."""
        return self.columns.labels

    @property
    def kinds(self) -> tuple[ColumnKind | None, ...]:
        """What each feature column of a table holds."""
        return self.example.kinds

    @property
    def types(self) -> tuple[str | None, ...]:
        """Names of the types of the columns that are read, for the receipt."""
        return self.example.types

    def plan(self, target_bytes: int = 0) -> list[PlanUnit]:
        """Return a unit for each partition: their sizes are not known before they are computed."""
        return [
            PlanUnit(index, (ChunkRange(index, index + 1),), 0)
            for index in range(self.frame.npartitions)
        ]

    def blocks(self, unit: PlanUnit, max_rows: int) -> Iterator[RawBlock]:
        """Raise TypeError: partitions are computed first, and read by :class:`PartitionSource`."""
        raise TypeError("a lazy frame has no rows to read")

    def chunk_source(self) -> PartitionSource:
        """Return the source that reads computed partitions on a worker."""
        return PartitionSource(self.example)

    def fingerprint(self) -> dict[str, str]:
        """Columns and types; rows are known only when computed. PRIVATE: in private storage."""
        return {
            "dask DataFrame": " ".join(f"{f.name}: {f.type}" for f in self.example.table.schema)
        }


@dataclass(frozen=True, repr=False, eq=False)
class PartitionSource(ChunkReader):
    """PRIVATE on workers. The computed partitions of one plan unit."""

    example: FrameSource
    partitions: Sequence[Any] = ()

    def __reduce__(self) -> Any:
        return PartitionSource, (self.example, self.partitions)

    @property
    def width(self) -> int:
        """Feature dimension d."""
        return self.example.width

    @property
    def labels(self) -> Labels:
        """The public label set."""
        return self.example.labels

    def of(self, chunks: Sequence[Any]) -> PartitionSource:
        """Return the source of these partitions."""
        return PartitionSource(self.example, chunks)

    def _blocks(self, max_rows: int) -> Iterator[RawBlock]:
        for partition in self.partitions:
            # The window is in the columns already.
            source = FrameSource.open(
                partition, self.example.columns, width=self.width, argument="a partition"
            )
            if source.kinds != self.example.kinds:
                raise DataError(
                    "a partition of the dask DataFrame has columns of other types than it declares:"
                    " correct the meta of what computes it"
                )
            for piece in source.plan():
                yield from source.blocks(piece, max_rows)


def is_dask_frame(value: object) -> bool:
    """Whether ``value`` is a dask DataFrame. Does not import Dask."""
    return is_dask(value, "dataframe.DataFrame")


def _check_known(empty: Any, columns: Columns, argument: str) -> None:
    """Refuse columns of Python objects, whose type only their values would tell."""
    for name in columns.names:
        for column in empty.columns[[str(column) == name for column in empty.columns]]:
            if str(empty[column].dtype) == "object":
                raise DataError(
                    f"{argument}: column {name!r} has dtype object, which does not say what it "
                    "holds: cast it, for instance with astype('float64'), or for lists of numbers "
                    "with astype(pandas.ArrowDtype(pyarrow.list_(pyarrow.float32())))"
                )
