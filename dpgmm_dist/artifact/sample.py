"""Sampled rows as partitioned Parquet, with the columns and units of the input.

Rows are drawn in blocks. Each block has a counter-based generator keyed by (seed, partition,
block), so the result depends only on the release, the numbers of rows and partitions, the options
and the seed, and not on which worker writes a partition. A task holds one block at a time.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.artifact.columns import (
    Categories,
    categories_of,
    label_column,
    rows_batch,
    rows_schema,
    stored_values,
)
from dpgmm_dist.artifact.load import Release, load_release, sample_rows
from dpgmm_dist.artifact.part_files import (
    ForEach,
    make_empty_folder,
    new_parquet,
    one_after_another,
    part_name,
    storage_errors,
)
from dpgmm_dist.artifact.public_bounds import PublicBounds, default_bounds
from dpgmm_dist.artifact.receipt import check_receipt
from dpgmm_dist.artifact.sample_options import LabelRows, SampleOptions, find_label
from dpgmm_dist.errors import SpecError
from dpgmm_dist.model.affine import Transform
from dpgmm_dist.model.mixture import LabelValue, Mixture
from dpgmm_dist.storage.urls import check_no_password, safe_url

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]

_BLOCK_VALUES = 1 << 21
"""Numbers in a block: 16 MB as float64, and a few times that while the block is made."""
_SEED_BITS = 63
_TRIES = 100
"""How often a row outside the bounds is drawn again before it is moved inside."""


class SampleResult(TypedDict):
    """What `write_samples` wrote."""

    rows: int
    partitions: int
    seed: int
    """The same release, rows, partitions, options and seed give the same files again."""
    output: str


@dataclass(frozen=True, eq=False, repr=False)
class Sampler:
    """Draws rows of a release, partition by partition, on any engine."""

    mixture: Mixture
    transform: Transform
    schema: pa.Schema
    seed: int
    counts: LabelRows | None = None
    """Rows of each label of ``mixture``, over all partitions; None for the released proportions."""
    bounds: PublicBounds | None = None
    """The bounds that rows are kept within; None if they are not."""
    tries: int = 0
    """How often a row outside the bounds is drawn again before it is moved inside."""
    residual: bool = True
    """Whether rows vary in the directions outside the projection."""
    categories: Categories = field(default_factory=dict)
    """The public values of the columns that hold categories."""

    @classmethod
    def of(cls, release: Release, seed: int, options: SampleOptions | None = None) -> Sampler:
        """A sampler of the release with these options; SpecError if it lacks a label of theirs."""
        options = options or SampleOptions()
        mixture, transform = release.mixture, release.transform
        if options.label is not None:
            mixture = mixture.for_label(find_label(release.label_values, options.label))
        if options.temperature != 1:
            factor = options.temperature**2
            mixture = replace(mixture, covariances=mixture.form.scaled(factor))
            transform = replace(transform, residual_variance=factor * transform.residual_variance)
        receipt = check_receipt(release.receipt)
        schema = rows_schema(receipt.input, release.label_values)
        bounds = None
        treatment = options.bounds or default_bounds(receipt.specification)
        if treatment != "none":
            bounds = PublicBounds.of(release.receipt, receipt.input, schema)
        return cls(
            mixture,
            transform,
            schema,
            seed,
            options.counts(release.label_values),
            bounds=bounds,
            tries=_TRIES if treatment == "reject" else 0,
            residual=options.residual,
            categories=categories_of(receipt.input),
        )

    def batches(self, partition: int, partitions: int, rows: int) -> Iterator[pa.RecordBatch]:
        """Partition number ``partition`` of ``partitions``, of ``rows`` rows altogether.

        Yields a block at a time, with the labels in random order.
        """
        for points, index in self.blocks(partition, partitions, rows):
            yield self._batch(points, index)

    def table(self, rows: int) -> tuple[pa.Table, NDArray[np.int64]]:
        """All rows as one table, and the component (n,) of each, in a single partition."""
        import pyarrow as pa

        batches, components = [], [np.empty(0, np.int64)]
        for points, index in self.blocks(0, 1, rows):
            batches.append(self._batch(points, index))
            components.append(index)
        return pa.Table.from_batches(batches, self.schema), np.concatenate(components)

    def _batch(self, points: Floats, index: NDArray[np.int64]) -> pa.RecordBatch:
        return rows_batch(points, self._labels(index), self.schema, self.categories)

    def _labels(self, index: NDArray[np.int64]) -> Any:
        """The label of each row as an Arrow column (n,), from its component; [] without labels."""
        import pyarrow as pa

        values = self.mixture.label_values
        if not values:
            return []
        kind = self.schema.field(len(self.schema) - 1).type
        # Arrow cannot take from a column of string views.
        plain = pa.string() if pa.types.is_string_view(kind) else kind
        column = label_column(values, plain).take(pa.array(self.mixture.label_index[index]))
        return column if kind == plain else column.cast(kind)

    def blocks(
        self, partition: int, partitions: int, rows: int
    ) -> Iterator[tuple[Floats, NDArray[np.int64]]]:
        """The blocks of a partition: rows (n, d) in input units, and the component (n,) of each."""
        size = max(1, _BLOCK_VALUES // self.transform.input_dimension)
        remaining = None if self.counts is None else self.counts.part(partition, partitions)
        total = rows // partitions + (partition < rows % partitions)
        total = total if remaining is None else int(remaining.sum())
        order = self._generator(partition)
        for block, start in enumerate(range(0, total, size)):
            generator = self._generator(partition, block)
            count = min(size, total - start)
            labels = None
            if remaining is not None:
                # How many rows of each label are next, as if all of them had been shuffled.
                chosen = order.multivariate_hypergeometric(remaining, count)
                remaining -= chosen
                labels = generator.permutation(np.repeat(np.arange(remaining.size), chosen))
            yield self._within_bounds(generator, labels, *self._draw(generator, labels, count))

    def _generator(self, *key: int) -> np.random.Generator:
        sequence = np.random.SeedSequence(self.seed, spawn_key=key)
        return np.random.Generator(np.random.Philox(sequence))

    def _draw(
        self, generator: np.random.Generator, labels: NDArray[np.int64] | None, count: int
    ) -> tuple[Floats, NDArray[np.int64]]:
        """``count`` rows and their components; with ``labels``, row i has label ``labels[i]``."""
        if labels is None:
            return sample_rows(self.mixture, self.transform, generator, count, self.residual)
        rows = np.empty((count, self.transform.input_dimension))
        index = np.empty(count, np.int64)
        for label in np.unique(labels):
            of_label = labels == label
            components = np.flatnonzero(self.mixture.label_index == label)
            conditional = self.mixture.for_label(self.mixture.label_values[label])
            size = int(of_label.sum())
            drawn, component = sample_rows(
                conditional, self.transform, generator, size, self.residual
            )
            rows[of_label], index[of_label] = drawn, components[component]
        return rows, index

    def _within_bounds(
        self,
        generator: np.random.Generator,
        labels: NDArray[np.int64] | None,
        rows: Floats,
        index: NDArray[np.int64],
    ) -> tuple[Floats, NDArray[np.int64]]:
        """The rows as they are; with bounds, rounded as stored and moved within them."""
        if self.bounds is None:
            return rows, index

        def stored(values: Floats) -> Floats:
            return stored_values(values, self.schema, self.categories)

        rows = stored(rows)
        outside = np.flatnonzero(~self.bounds.contains(rows))
        for _ in range(self.tries):
            if not outside.size:
                break
            same_labels = None if labels is None else labels[outside]
            rows[outside], index[outside] = self._draw(generator, same_labels, outside.size)
            rows[outside] = stored(rows[outside])
            outside = outside[~self.bounds.contains(rows[outside])]
        if outside.size:
            rows[outside] = self.bounds.moved_inside(rows[outside], stored)
        return rows, index


@dataclass(frozen=True, eq=False, repr=False)
class _PartWriter:
    """Writes one partition. It is sent to workers, so its repr shows no storage options."""

    sampler: Sampler
    rows: int
    partitions: int
    output: str
    options: Mapping[str, Any] | None

    def __call__(self, partition: int) -> int:
        done = 0
        with (
            storage_errors("write samples", self.output, self.options),
            new_parquet(
                self.output, self.options, part_name(partition), self.sampler.schema
            ) as write,
        ):
            for batch in self.sampler.batches(partition, self.partitions, self.rows):
                write(batch)
                done += batch.num_rows
        return done


def write_samples(
    release_url: str,
    rows: int | None,
    output: str,
    label: LabelValue | None = None,
    partitions: int = 1,
    seed: int | None = None,
    *,
    options: SampleOptions | None = None,
    storage_options: Mapping[str, Any] | None = None,
    output_options: Mapping[str, Any] | None = None,
    progress: Callable[[float], None] | None = None,
    for_each: ForEach = one_after_another,
) -> SampleResult:
    """Write synthetic rows as ``part-00000.parquet``, ``part-00001.parquet``, ...

    Parameters
    ----------
    release_url : directory or URL of a release
    rows : number of rows altogether, spread evenly over the partitions; None if
        ``options.label_rows`` gives it
    output : directory or URL; it is empty or does not exist yet
    label : write rows of this label only; None for the released proportions. The text of an
        integer label is accepted
    partitions : number of files
    seed : at least 0; None draws a random seed, which is returned
    options : rows per label, temperature, bounds, residual; none of them has a privacy cost
    storage_options, output_options : of the release and of the output
    progress : called with the fraction of partitions written
    for_each : runs the partitions; `dpgmm_dist.engine.tasks.for_each_on` gives that of an engine

    Returns
    -------
    SampleResult : what was written, and the seed

    Raises
    ------
    SpecError
        A number is out of range, the release does not have the label, or the output is not empty.
    DataError
        The release is not intact, or the output cannot be written.
    """
    from threadpoolctl import threadpool_limits

    options = options or SampleOptions()
    if label is not None:
        options = replace(options, label=label)
    rows = options.total(rows)
    seed = _checked_numbers(rows, partitions, seed)
    check_no_password(output)
    release = load_release(release_url, storage_options)
    sampler = Sampler.of(release, seed, options.balanced_over(release.label_values, rows))
    # The matrix products are small: a second BLAS thread costs more than it saves, on a busy
    # machine eight times as much. The result is the same to the bit.
    with storage_errors("write samples", output, output_options), threadpool_limits(1):
        make_empty_folder(output, output_options)
        write = _PartWriter(sampler, rows, partitions, output, output_options)
        for_each(write, range(partitions), progress or (lambda _: None))
    return SampleResult(rows=rows, partitions=partitions, seed=seed, output=safe_url(output))


def _checked_numbers(rows: int, partitions: int, seed: int | None) -> int:
    if rows < 0:
        raise SpecError(f"rows must be at least 0, got {rows}")
    if not 1 <= partitions <= 100_000:
        raise SpecError(f"partitions must be from 1 to 100000, got {partitions}")
    if seed is not None and seed < 0:
        raise SpecError(f"seed must be at least 0, got {seed}")
    return secrets.randbits(_SEED_BITS) if seed is None else seed
