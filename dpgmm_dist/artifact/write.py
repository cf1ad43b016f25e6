"""Write a release: data files first, the manifest last, nothing ever overwritten.

1. `claim_output` creates ``_claim.json``: this output belongs to one release id from here on.
   Called before any budget is spent, it finds out early that the output cannot be written or
   belongs to somebody else.
2. The data files are created. A file that an earlier, killed run of the same release left is kept
   if it says the same; the manifest then describes what is stored, not what was meant.
3. ``release.json`` is created. Without it there is no release.

Every step can be repeated after a crash, and two drivers of one release end with one manifest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dpgmm_dist.artifact.load import decode_release
from dpgmm_dist.artifact.manifest import FileDigest, Manifest
from dpgmm_dist.artifact.schema import (
    CLAIM,
    MANIFEST,
    MIXTURE,
    OPTIONAL,
    RECEIPT,
    REPORT,
    TRANSFORM,
    canonical_json,
    encode_mixture,
    encode_transform,
    parse_json,
    read_table,
)
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.model.affine import Transform
from dpgmm_dist.model.mixture import Mixture, StandardErrors
from dpgmm_dist.storage.store import Store, create_or_read, open_store, read_or_none
from dpgmm_dist.version import __version__

# Parameters computed again from the stored noisy answers on another processor may differ in their
# last bits; anything beyond this is another release.
_SAME = 1e-6


def release_exists(
    output_url: str, storage_options: Mapping[str, Any] | None = None
) -> Manifest | None:
    """The manifest of the release at ``output_url``, or None where there is none (yet).

    Raises
    ------
    DataError
        When the store cannot be read or the manifest is damaged.
    """
    return _stored_manifest(open_store(output_url, storage_options))


def claim_output(
    output_url: str,
    *,
    release_id: str,
    specification_digest: str,
    storage_options: Mapping[str, Any] | None = None,
) -> Manifest | None:
    """Make the output this release's own before anything is spent on it.

    Returns
    -------
    Manifest or None
        The manifest when this very release is there already, complete; None when it is to be
        written.

    Raises
    ------
    SpecError
        When the output holds, or is claimed by, another release.
    DataError
        When the output cannot be written or read.
    """
    store = open_store(output_url, storage_options)
    claim = {"release_id": release_id, "specification_digest": specification_digest}
    manifest = _stored_manifest(store)
    if manifest is None:
        stored = parse_json(CLAIM, create_or_read(store, CLAIM, canonical_json(claim)))
        _check_owner(stored, claim, "an unfinished release", store.url)
        # Another driver of the same release may have finished meanwhile.
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
) -> Manifest:
    """Write the files of a release and, last, its manifest.

    Parameters
    ----------
    output_url
        Directory or fsspec URL.
    mixture, standard_errors, transform
        Noisy or public values only.
    receipt
        As `receipt.build_receipt` makes it; ``input_schema`` is added under "input".
    input_schema
        The input's columns and types (see `receipt.InputSchema`).
    storage_options
        Given to the file system; never stored.
    report
        Whether report.html is one of them.

    Returns
    -------
    Manifest
        What is stored: of an earlier run of the same release if that had finished.

    Raises
    ------
    SpecError
        When the output belongs to another release.
    DataError
        When the store cannot be written, or holds other files of that name.
    ValueError
        When the parts do not fit together.
    """
    from dpgmm_dist.artifact.receipt import check_receipt
    from dpgmm_dist.artifact.report import render_report

    document = {**receipt, "input": dict(input_schema)}
    checked = check_receipt(document)
    if transform.latent_dimension != mixture.dimension:
        raise ValueError(
            f"the transform has {transform.latent_dimension} latent dimensions, "
            f"the mixture {mixture.dimension}"
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
    files = {
        MIXTURE: encode_mixture(mixture, standard_errors, document.get("plan")),
        TRANSFORM: encode_transform(transform),
        RECEIPT: canonical_json(document),
    }
    stored = {name: _create(store, name, data) for name, data in files.items()}
    manifest = Manifest(
        release_id=checked.release_id,
        specification_digest=checked.specification_digest,
        privacy=checked.privacy,
        library_version=__version__,
        files={name: FileDigest.of(data) for name, data in stored.items()},
    )
    if report:
        # From the files as they are stored, which are what it is published with.
        page = _create(store, REPORT, render_report(decode_release(manifest, stored)))
        manifest = replace(manifest, files={**manifest.files, REPORT: FileDigest.of(page)})
    return Manifest.from_bytes(create_or_read(store, MANIFEST, manifest.to_bytes()))


def _stored_manifest(store: Store) -> Manifest | None:
    data = read_or_none(store, MANIFEST)
    return None if data is None else Manifest.from_bytes(data)


def _check_owner(owner: Mapping[str, Any], claim: Mapping[str, str], what: str, url: str) -> None:
    other = owner.get("release_id")
    if other != claim["release_id"]:
        finish = (
            f"finish that one with --release-id {other} (nothing is charged or drawn twice), or "
            if what == "an unfinished release"
            else ""
        )
        raise SpecError(
            f"{url} holds {what} with the id {other!r}, not {claim['release_id']!r}: "
            f"{finish}choose another output"
        )
    if owner.get("specification_digest") != claim["specification_digest"]:
        raise SpecError(
            f"{url} holds {what} with the id {other!r} of another specification: choose another "
            "output and release id, or restore the specification"
        )


def _create(store: Store, name: str, data: bytes) -> bytes:
    """Create a data file, or keep what an earlier run of this release left; the stored bytes."""
    stored = create_or_read(store, name, data)
    if stored != data and not _says_the_same(name, stored, data):
        raise DataError(
            f"{store.url}/{name} exists and is not a file of this release: remove it or choose "
            "another output"
        )
    return stored


def _says_the_same(name: str, stored: bytes, data: bytes) -> bool:
    """Whether a file differs at most in last bits or library versions from what it should be."""
    if name in OPTIONAL:
        return True  # made from the other files alone, by whichever version wrote it
    try:
        if name == RECEIPT:
            old, new = parse_json(name, stored), parse_json(name, data)
            return _close_values({**old, "libraries": None}, {**new, "libraries": None})
        old_table, new_table = read_table(name, stored), read_table(name, data)
    except DataError:
        return False
    return bool(old_table.schema == new_table.schema) and all(
        _close(old.to_pylist(), new.to_pylist())
        for old, new in zip(old_table.columns, new_table.columns, strict=True)
    )


def _close_values(old: Any, new: Any) -> bool:
    """Whether two JSON values are equal, floats up to rounding."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_close_values(old[k], new[k]) for k in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_close_values, old, new))
    if isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=_SAME)
    return type(old) is type(new) and bool(old == new)


def _close(old: list[Any], new: list[Any]) -> bool:
    """Whether two columns are equal, numbers up to rounding relative to the column's largest."""
    if old == new:
        return True
    try:
        left, right = np.array(old, dtype=np.float64), np.array(new, dtype=np.float64)
    except (TypeError, ValueError):
        return False
    if left.shape != right.shape:
        return False
    tolerance = _SAME * float(np.abs(right[np.isfinite(right)]).max(initial=0.0))
    return bool(np.allclose(left, right, rtol=0, atol=tolerance))
