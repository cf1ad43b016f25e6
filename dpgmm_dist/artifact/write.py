"""Write a release: data files first, the manifest last. No file is overwritten.

1. `claim_output` creates ``_claim.json``, which reserves the output for one release id. It is
   called before any budget is spent, so that an output that cannot be written, or belongs to
   another release, is noticed in time.
2. The data files are created. A file that an interrupted run of the same release left is kept if
   its contents are the same up to rounding. The manifest describes the files as they are stored.
3. ``release.json`` is created. Without it there is no release.

Every step can be repeated after a crash. Two drivers of one release end with one manifest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dpgmm_dist.artifact.load import decode_release
from dpgmm_dist.artifact.manifest import FileDigest, Manifest, StoredQueries
from dpgmm_dist.artifact.schema import (
    AXES,
    CLAIM,
    MANIFEST,
    MIXTURE,
    RECEIPT,
    REPORT,
    TRANSFORM,
    canonical_json,
    encode_axes,
    encode_mixture,
    encode_transform,
    parse_json,
    read_table,
)
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.model.affine import Transform
from dpgmm_dist.model.covariances import SharedCovariances
from dpgmm_dist.model.mixture import Mixture, StandardErrors
from dpgmm_dist.storage.store import Store, create_or_read, open_store, read_or_none
from dpgmm_dist.version import __version__

if TYPE_CHECKING:
    import pyarrow as pa

    from dpgmm_dist.artifact.receipt import Receipt

# On another processor, parameters computed from the same noisy answers may differ in their last
# bits. A larger difference means another release.
_TOLERANCE = 1e-6


def release_exists(
    output_url: str, storage_options: Mapping[str, Any] | None = None
) -> Manifest | None:
    """The manifest of the release at ``output_url``, or None if there is none.

    Raises
    ------
    DataError
        When the store cannot be read, or the manifest is damaged.
    """
    return _stored_manifest(open_store(output_url, storage_options))


def claim_output(
    output_url: str,
    *,
    release_id: str,
    specification_digest: str,
    storage_options: Mapping[str, Any] | None = None,
) -> Manifest | None:
    """Reserve the output for this release before any budget is spent.

    Returns
    -------
    Manifest or None
        The manifest if this release is there already and complete, None if it is to be written.

    Raises
    ------
    SpecError
        When the output holds another release, or is reserved for one.
    DataError
        When the output cannot be written or read.
    """
    store = open_store(output_url, storage_options)
    claim = {"release_id": release_id, "specification_digest": specification_digest}
    manifest = _stored_manifest(store)
    if manifest is None:
        stored = parse_json(CLAIM, create_or_read(store, CLAIM, canonical_json(claim)))
        _check_owner(stored, claim, "an unfinished release", store.url)
        # Another driver of the same release may have finished in the meantime.
        manifest = _stored_manifest(store)
    if manifest is not None:
        owner = {
            "release_id": manifest.release_id,
            "specification_digest": manifest.specification_digest,
        }
        _check_owner(owner, claim, "a release", store.url)
    return manifest


def write_release(
    output_url: str,
    *,
    mixture: Mixture,
    standard_errors: StandardErrors,
    transform: Transform,
    receipt: Mapping[str, Any],
    input_schema: Mapping[str, Any],
    storage_options: Mapping[str, Any] | None = None,
    report: bool = True,
    stored_queries: StoredQueries | None = None,
) -> Manifest:
    """Write the files of a release, and its manifest last.

    Parameters
    ----------
    output_url : directory or fsspec URL
    mixture, standard_errors, transform : noisy or public values only
    receipt : as `receipt.build_receipt` returns it; ``input_schema`` is added under "input"
    input_schema : the columns and types of the input (see `receipt.InputSchema`)
    storage_options : given to the file system; never stored
    report : whether to write report.html too
    stored_queries : what the journal of the release holds, for the manifest

    Returns
    -------
    Manifest : as it is stored; that of an earlier run if one finished this release

    Raises
    ------
    SpecError
        When the output belongs to another release.
    DataError
        When the store cannot be written, or has other files of these names.
    ValueError
        When the dimensions of mixture and transform do not agree.
    """
    from dpgmm_dist.artifact.receipt import check_receipt

    document = {**receipt, "input": dict(input_schema)}
    checked = check_receipt(document)
    if transform.latent_dimension != mixture.dimension:
        raise ValueError(
            f"the transform has {transform.latent_dimension} latent dimensions, "
            f"but the mixture has {mixture.dimension}"
        )
    finished = claim_output(
        output_url,
        release_id=checked.release_id,
        specification_digest=checked.specification_digest,
        storage_options=storage_options,
    )
    if finished is not None:
        return finished
    store = open_store(output_url, storage_options)
    files = _encoded(mixture, standard_errors, transform, document)
    manifest = _write_files(store, files, checked, stored_queries, report)
    return Manifest.from_bytes(create_or_read(store, MANIFEST, manifest.to_bytes()))


def _encoded(
    mixture: Mixture, errors: StandardErrors, transform: Transform, receipt: Mapping[str, Any]
) -> dict[str, bytes]:
    """The files that the release consists of, without report and manifest."""
    files = {
        MIXTURE: encode_mixture(mixture, errors, receipt.get("plan")),
        TRANSFORM: encode_transform(transform),
        RECEIPT: canonical_json(receipt),
    }
    if isinstance(mixture.form, SharedCovariances):
        files[AXES] = encode_axes(mixture.form)
    return files


def _write_files(
    store: Store,
    files: Mapping[str, bytes],
    receipt: Receipt,
    stored_queries: StoredQueries | None,
    report: bool,
) -> Manifest:
    """Write the files and the report; the manifest that lists them."""
    from dpgmm_dist.artifact.report import render_report

    stored = {name: _create(store, name, data) for name, data in files.items()}
    manifest = Manifest(
        release_id=receipt.release_id,
        specification_digest=receipt.specification_digest,
        privacy=receipt.privacy,
        library_version=__version__,
        files={name: FileDigest.of(data) for name, data in stored.items()},
        stored=stored_queries,
    )
    if not report:
        return manifest
    # The report describes the files as they are stored.
    page = _create(store, REPORT, render_report(decode_release(manifest, stored)))
    return replace(manifest, files={**manifest.files, REPORT: FileDigest.of(page)})


def _stored_manifest(store: Store) -> Manifest | None:
    data = read_or_none(store, MANIFEST)
    return None if data is None else Manifest.from_bytes(data)


def _check_owner(owner: Mapping[str, Any], claim: Mapping[str, str], what: str, url: str) -> None:
    other = owner.get("release_id")
    if other != claim["release_id"]:
        finish = (
            f"finish it with --release-id {other} (nothing is charged or measured twice), or "
            if what == "an unfinished release"
            else ""
        )
        raise SpecError(
            f"{url} holds {what} with the id {other!r}, not {claim['release_id']!r}: "
            f"{finish}choose another output"
        )
    if owner.get("specification_digest") != claim["specification_digest"]:
        raise SpecError(
            f"{url} holds {what} with the id {other!r}, made with another specification: choose "
            "another output and release id, or restore that specification"
        )


def _create(store: Store, name: str, data: bytes) -> bytes:
    """Create a data file, or keep that of an earlier run of this release; the stored bytes."""
    stored = create_or_read(store, name, data)
    if stored != data and not _agrees(name, stored, data):
        raise DataError(
            f"{store.url}/{name} exists and is not a file of this release: remove it, or choose "
            "another output"
        )
    return stored


def _agrees(name: str, stored: bytes, data: bytes) -> bool:
    """Whether the stored file differs from ``data`` only by rounding or in library versions."""
    if name == REPORT:
        return True  # it follows from the other files, whichever version wrote it
    try:
        if name == RECEIPT:
            old, new = parse_json(name, stored), parse_json(name, data)
            return _close_values({**old, "libraries": None}, {**new, "libraries": None})
        old_table, new_table = read_table(name, stored), read_table(name, data)
    except DataError:
        return False
    return bool(old_table.schema == new_table.schema) and all(
        _close_columns(old, new)
        for old, new in zip(old_table.columns, new_table.columns, strict=True)
    )


def _close_values(old: Any, new: Any) -> bool:
    """Whether two JSON values are equal, with floats compared up to rounding."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_close_values(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_close_values, old, new))
    if isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=_TOLERANCE)
    return type(old) is type(new) and bool(old == new)


def _close_columns(old: pa.ChunkedArray, new: pa.ChunkedArray) -> bool:
    """Whether two columns are equal up to rounding, relative to the largest entry."""
    import pyarrow as pa

    if old.equals(new):
        return True
    if pa.types.is_list(new.type):
        # As arrays: a Python float for each entry would take gigabytes.
        old_lists, new_lists = old.combine_chunks(), new.combine_chunks()
        if not old_lists.offsets.equals(new_lists.offsets):
            return False
        old, new = old_lists.values, new_lists.values
    if len(old) != len(new) or not pa.types.is_floating(new.type):
        return False
    old_values = old.to_numpy(zero_copy_only=False).astype(np.float64)
    new_values = new.to_numpy(zero_copy_only=False).astype(np.float64)
    tolerance = _TOLERANCE * float(np.abs(new_values[np.isfinite(new_values)]).max(initial=0.0))
    return bool(np.allclose(old_values, new_values, rtol=0, atol=tolerance, equal_nan=True))
