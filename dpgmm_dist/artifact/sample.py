"""Sampled rows as partitioned Parquet, in the input's columns and units.

Rows come in blocks, each from a counter-based generator keyed by (seed, partition, block): the
result depends on the release, the number of rows, of partitions, the label and the seed alone,
and one block is all that is ever in memory.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from dpgmm_dist.artifact.columns import rows_batch, rows_schema
from dpgmm_dist.artifact.load import Release, load_release, sample_rows
from dpgmm_dist.artifact.receipt import check_receipt
from dpgmm_dist.budget.urls import check_no_password, describe_error, safe_url
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.model.mixture import LabelValue, Mixture

if TYPE_CHECKING:
    import pyarrow as pa

# Numbers in a block; about 16 MB as float64, a few times that while a block is made.
_BLOCK_VALUES = 1 << 21
_SEED_BITS = 63


class SampleResult(TypedDict):
    """What `write_samples` wrote."""

    rows: int
    partitions: int
    seed: int
    """With the same release, rows, partitions and label it gives the same files again."""
    output: str


@dataclass(frozen=True)
class Sampler:
    """Rows of one release, partition by partition; any engine may run the partitions."""

    release: Release
    mixture: Mixture
    schema: pa.Schema
    seed: int

    @classmethod
    def of(cls, release: Release, seed: int, label: LabelValue | None = None) -> Sampler:
        """A sampler of one label, or of all labels in the released proportions."""
        mixture = release.mixture
        if label is not None:
            mixture = mixture.for_label(_find_label(release.label_values, label))
        columns = check_receipt(release.receipt).input
        return cls(release, mixture, rows_schema(columns, release.label_values), seed)

    def batches(self, partition: int, rows: int) -> Iterator[pa.RecordBatch]:
        """The rows of one partition, a block at a time, in random order of components."""
        size = max(1, _BLOCK_VALUES // self.release.transform.input_dimension)
        for block, start in enumerate(range(0, rows, size)):
            key = np.random.SeedSequence(self.seed, spawn_key=(partition, block))
            generator = np.random.Generator(np.random.Philox(key))
            count = min(size, rows - start)
            points, index = sample_rows(self.mixture, self.release.transform, generator, count)
            values, positions = self.mixture.label_values, self.mixture.label_index[index]
            labels = [values[i] for i in positions.tolist()] if values else []
            yield rows_batch(points, labels, self.schema)


def write_samples(
    release_url: str,
    rows: int,
    output: str,
    label: LabelValue | None = None,
    partitions: int = 1,
    seed: int | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    output_options: Mapping[str, Any] | None = None,
    progress: Callable[[float], None] | None = None,
) -> SampleResult:
    """Write synthetic rows as ``part-00000.parquet``, ``part-00001.parquet``, ...

    Parameters
    ----------
    release_url
        Directory or URL of a release.
    rows
        Number of rows altogether, spread evenly over the partitions.
    output
        Directory or URL, empty or not there yet.
    label
        This label's rows only; the released proportions when None. The text of an integer label
        will do.
    partitions
        Number of files.
    seed
        At least 0; random when None, and returned.
    storage_options, output_options
        Given to the file systems of the release and of the output.
    progress
        Called with the fraction of rows written.

    Raises
    ------
    SpecError
        A number is out of range, the label is not one of the release's, or the output is not
        empty.
    DataError
        The release is not intact, or the output cannot be written.
    """
    from threadpoolctl import threadpool_limits

    seed = _checked_numbers(rows, partitions, seed)
    check_no_password(output)
    sampler = Sampler.of(load_release(release_url, storage_options), seed, label)
    done = 0
    # The products are small: a second BLAS thread costs more than it brings, on a busy machine
    # eight times as much. It changes no bit.
    with _storage_errors(output), threadpool_limits(1):
        fs, root = _empty_folder(output, output_options)
        for partition in range(partitions):
            share = rows // partitions + (partition < rows % partitions)
            with _new_parquet(fs, f"{root}/part-{partition:05d}.parquet", sampler.schema) as write:
                for batch in sampler.batches(partition, share):
                    write(batch)
                    done += batch.num_rows
                    if progress is not None:
                        progress(done / rows)
    return SampleResult(rows=rows, partitions=partitions, seed=seed, output=safe_url(output))


def _checked_numbers(rows: int, partitions: int, seed: int | None) -> int:
    if rows < 0:
        raise SpecError(f"rows must be at least 0, got {rows}")
    if not 1 <= partitions <= 100_000:
        raise SpecError(f"partitions must be from 1 to 100000, got {partitions}")
    if seed is not None and seed < 0:
        raise SpecError(f"seed must be at least 0, got {seed}")
    return secrets.randbits(_SEED_BITS) if seed is None else seed


def _find_label(labels: tuple[LabelValue, ...], label: LabelValue) -> LabelValue:
    """The release's label that is meant; a command line has only text for integers."""
    if not labels:
        raise SpecError(f"the release has no labels, so label {label!r} cannot be asked for")
    for known in labels:
        if known == label or str(known) == str(label):
            return known
    shown = ", ".join(repr(known) for known in labels[:20]) + (", ..." if len(labels) > 20 else "")
    raise SpecError(f"label {label!r} is not one of the release's labels: {shown}")


def _empty_folder(output: str, options: Mapping[str, Any] | None) -> tuple[Any, str]:
    """The file system and path of an output that holds nothing; made if it is local."""
    from fsspec.core import url_to_fs

    fs, root = url_to_fs(output, **(options or {}))
    root = root.rstrip("/") or "/"
    try:
        fs.invalidate_cache()
        entries = fs.ls(root, detail=True)
    except FileNotFoundError:
        entries = []
    # Object stores may list a prefix's own marker.
    if any(str(entry["name"]).strip("/") != root.strip("/") for entry in entries):
        raise SpecError(
            f"{safe_url(output)} is not empty: choose another output, or empty it yourself"
        )
    if entries and entries[0]["type"] == "file" and entries[0].get("size"):
        raise SpecError(f"{safe_url(output)} is a file: choose a directory for the output")
    fs.makedirs(root, exist_ok=True)
    return fs, root


@contextmanager
def _new_parquet(
    fs: Any, path: str, schema: pa.Schema
) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Yield a function that appends row groups to a new file, which appears when all went well."""
    import pyarrow.parquet as pq

    local = bool(getattr(fs, "local_file", False))
    folder, _, name = path.rpartition("/")
    target = f"{folder}/.{name}.{secrets.token_hex(4)}" if local else path
    file = fs.open(target, "wb") if local else fs.open(target, "wb", autocommit=False)
    try:
        # Gaussian draws do not compress; labels and small integers do, by their dictionary.
        coded = [field.name for field in schema if not _is_continuous(field.type)]
        options = {"compression": "NONE", "use_dictionary": coded, "write_statistics": False}
        with pq.ParquetWriter(file, schema, **options) as writer:
            yield writer.write_batch
        file.close()
        if local:
            os.rename(target, path)
        else:
            file.commit()
    except BaseException:
        # Whatever happened, no part of a file may look like a whole one.
        if local:
            file.close()
            os.unlink(target)
        else:
            file.discard()
        raise


def _is_continuous(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(kind) or pa.types.is_fixed_size_list(kind))


@contextmanager
def _storage_errors(output: str) -> Iterator[None]:
    """Turn what a file system raises into one line with the output's address."""
    try:
        yield
    except (DataError, SpecError):
        raise
    except (OSError, ValueError, ImportError) as error:
        raise DataError(
            f"cannot write samples to {safe_url(output)}: {describe_error(error)}. Check that it "
            "is there and that you may write to it"
        ) from None
