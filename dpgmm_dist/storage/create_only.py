"""Checks of a store: names are created only once, and no number of a series is missing."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection

from dpgmm_dist.errors import DataError
from dpgmm_dist.storage.store import ObjectExists, Store, create_or_read


def is_complete(
    store: Store, listed: Collection[int], below: int, name: Callable[[int], str]
) -> bool:
    """Say whether the objects ``name(0)`` to ``name(below - 1)`` all exist.

    A listing made while others write may contain an object and miss an earlier one. So each number
    that is not ``listed`` is looked up by its name.
    """
    return all(number in listed or store.exists(name(number)) for number in range(below))


def probe(store: Store) -> None:
    """Verify on a fresh object that the store refuses to create a name twice.

    Raises
    ------
    DataError
        The store let a second create succeed, or lost the first object.
    """
    name = f"probe-{secrets.token_hex(8)}"
    first = b"first\n"
    try:
        if create_or_read(store, name, first) != first:
            raise DataError(_not_create_only(store))
        confirm_create_only(store, name, b"second\n")
        if store.read(name) != first:
            raise DataError(_not_create_only(store))
    finally:
        discard = getattr(store, "discard", None)
        if discard is not None:
            discard(name)


def confirm_create_only(store: Store, name: str, data: bytes) -> None:
    """Verify that an existing object cannot be created again.

    This detects a ledger that was copied to an unsuitable store. Pass the object's own bytes as
    ``data``: then nothing changes even if the store overwrites, so live records are safe. On local
    files it also makes an object that another process wrote durable.

    Raises
    ------
    DataError
        The store let the create succeed.
    """
    try:
        store.create(name, data)
    except ObjectExists:
        return
    raise DataError(_not_create_only(store))


def _not_create_only(store: Store) -> str:
    return (
        f"The store {store.url} let an existing object be created a second time, so two drivers"
        " could spend the same budget. Use a local directory, S3, Google Cloud Storage or Azure"
        " Blob Storage (or an emulator or gateway that honours conditional writes)."
    )
