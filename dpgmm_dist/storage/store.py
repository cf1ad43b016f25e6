"""A small create-only object store over fsspec: what the ledger and the journal stand on.

An object is written once, whole, and never changed. Two writers of one name race, exactly one
wins, and the other learns of it: everything the budget promises rests on that, so a store that
cannot promise it is refused.

Local files are linked to their name (`local_file`). Object stores take a conditional write
(``pipe_file(mode="create")``), the one form fsspec has alike on S3, GCS and Azure. ``memory://``
works within one process, for tests.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from fsspec.core import url_to_fs
from fsspec.spec import AbstractFileSystem

from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.storage.local_file import create_file
from dpgmm_dist.storage.urls import check_no_password, describe_error, safe_url, secrets_in

# A failed create is tried again: same name and same bytes, so that trying twice cannot harm.
_CREATE_ATTEMPTS = 3


Names = list[str]  # inside the classes below, ``list`` is their method


class ObjectExists(DataError):
    """A create was refused because the name is taken."""


class ObjectMissing(DataError):
    """There is no object of that name."""


class Store(Protocol):
    """Named byte objects that are created once; names are relative, with ``/`` between parts."""

    @property
    def url(self) -> str:
        """Where the store is, without credentials, for messages."""
        ...

    def create(self, name: str, data: bytes) -> None:
        """Write a new object, durable on return; raise `ObjectExists` if the name is taken."""
        ...

    def read(self, name: str) -> bytes:
        """Return the whole object; raise `ObjectMissing` if there is none."""
        ...

    def list(self, prefix: str) -> Names:
        """Return the sorted names of the objects directly under ``prefix`` (ends with ``/``)."""
        ...

    def exists(self, name: str) -> bool:
        """Say whether the object is there; an unreachable store is an error, not a no."""
        ...


class FsspecStore:
    """The `Store` of one directory or object prefix; made by `open_store`."""

    def __init__(self, fs: Any, root: str, url: str, secret_values: tuple[str, ...] = ()) -> None:
        self._fs = fs
        self._root = root.rstrip("/") or "/"
        self._url = safe_url(url)
        self._secrets = secret_values
        self._local = bool(getattr(fs, "local_file", False))

    @property
    def url(self) -> str:
        return self._url

    def __repr__(self) -> str:
        return f"FsspecStore({self._url!r})"

    def create(self, name: str, data: bytes) -> None:
        try:
            if self._local:
                create_file(self._path(name), data, self._root)
            else:
                self._fs.pipe_file(self._path(name), data, mode="create")
        except FileExistsError:
            raise ObjectExists(f"{self._url}/{name} exists already.") from None
        except Exception as err:
            # S3 answers a lost race with EINVAL and a text; other clients have their own types.
            if "precondition" in str(err).lower().replace("-", ""):
                raise ObjectExists(f"{self._url}/{name} exists already.") from None
            raise self._failure("write", name, err) from None

    def read(self, name: str) -> bytes:
        try:
            return bytes(self._fs.cat_file(self._path(name)))
        except FileNotFoundError:
            raise ObjectMissing(f"There is no {self._url}/{name}.") from None
        except Exception as err:
            raise self._failure("read", name, err) from None

    def list(self, prefix: str) -> Names:
        folder = prefix.rstrip("/")
        try:
            return sorted(f"{folder}/{base}" for base in self._bases(self._path(folder)))
        except FileNotFoundError:
            return []
        except Exception as err:
            raise self._failure("list", prefix, err) from None

    def exists(self, name: str) -> bool:
        # Not fs.exists(): it answers "no" to every error, and a "no" here means "draw again".
        try:
            self._fs.invalidate_cache()
            self._fs.info(self._path(name))
        except FileNotFoundError:
            return False
        except Exception as err:
            raise self._failure("look for", name, err) from None
        return True

    def discard(self, name: str) -> None:
        """Try to remove a probe object; it does no harm where it stays."""
        try:
            self._fs.rm_file(self._path(name))
        except Exception:
            # Append-only credentials may not delete: then the few bytes stay.
            return

    def _bases(self, folder: str) -> Iterator[str]:
        """Yield the base names of the objects in ``folder``; hidden (temporary) ones are not."""
        if self._local:
            # Not fs.ls(): it takes the status of every entry and fails as "not found" when
            # another writer's temporary file goes away meanwhile.
            names = [n for n in os.listdir(folder) if os.path.isfile(os.path.join(folder, n))]
        else:
            self._fs.invalidate_cache()
            entries = self._fs.ls(folder, detail=True)
            inside = folder.strip("/") + "/"
            names = [
                str(entry["name"]).strip("/").removeprefix(inside)
                for entry in entries
                if entry["type"] == "file" and str(entry["name"]).strip("/").startswith(inside)
            ]
        return (name for name in names if not name.startswith("."))

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _failure(self, verb: str, name: str, err: Exception) -> DataError:
        what = describe_error(err, self._secrets)
        return DataError(
            f"Cannot {verb} {self._url}/{name}: {what}. Check that the store is there and that you"
            " may list, read and write in it, then run the same command again."
        )


def open_store(url: str, storage_options: Mapping[str, Any] | None = None) -> FsspecStore:
    """Open the create-only store at a directory or fsspec URL; nothing is read or written.

    Parameters
    ----------
    url : str
        Directory or URL, for example ``s3://bucket/ledger``. Credentials belong in the
        environment or in ``storage_options``, never in the URL.
    storage_options : mapping, optional
        Given to the file system; never stored or shown.

    Raises
    ------
    SpecError
        The URL holds a password, is chained, or its protocol is unknown.
    DataError
        The file system cannot be opened, or it has no atomic create.
    """
    check_no_password(url)
    if "::" in url:
        raise SpecError(f"{safe_url(url)} is a chained URL: give the URL of the store itself.")
    options = dict(storage_options or {})
    secret_values = secrets_in(options)
    try:
        # Stores must see other drivers' objects at once: no cached listings.
        fs, root = url_to_fs(url, **{"use_listings_cache": False, **options})
    except ImportError as err:
        raise DataError(
            f"Cannot open {safe_url(url)}: {describe_error(err, secret_values)}. Install the"
            " matching extra: pip install 'dpgmm-dist[s3]', '[gcs]' or '[azure]'."
        ) from None
    except Exception as err:
        raise SpecError(
            f"Cannot open {safe_url(url)}: {describe_error(err, secret_values)}. Check the URL and"
            " the storage options."
        ) from None
    _refuse_check_then_write(fs, url)
    return FsspecStore(fs, str(root), url, secret_values)


def create_or_read(store: Store, name: str, data: bytes) -> bytes:
    """Create the object, or find out what is there; return the bytes that are stored.

    After a conflict, and after any error whose outcome is unknown (the write may have succeeded
    although the client saw an error), the object is read back. ``data`` should hold a nonce
    where the caller must know whether its own write won: compare the result with ``data``.

    Raises
    ------
    DataError
        The write failed and nothing is stored, after a few attempts, or the store cannot be read.
    """
    failure: DataError | None = None
    for attempt in range(_CREATE_ATTEMPTS):
        if attempt:
            time.sleep(0.05 * 2**attempt)
        try:
            store.create(name, data)
        except DataError as err:
            failure = err
        else:
            return data
        try:
            return store.read(name)
        except ObjectMissing:
            continue
    raise failure or DataError(f"{store.url}/{name} could be neither written nor read.")


def read_or_none(store: Store, name: str) -> bytes | None:
    """Return the object's bytes, or None where there is none; any other failure is raised."""
    try:
        return store.read(name)
    except ObjectMissing:
        return None


def _refuse_check_then_write(fs: Any, url: str) -> None:
    """Refuse fsspec's default create, which looks and then writes: two writers can both win."""
    inherited = getattr(type(fs), "pipe_file", None) is AbstractFileSystem.pipe_file
    if inherited and not getattr(fs, "async_impl", False) and not getattr(fs, "local_file", False):
        raise DataError(
            f"The file system of {safe_url(url)} has no atomic create, so two drivers could spend"
            " the same budget. Use a local directory, S3, Google Cloud Storage or Azure Blob"
            " Storage."
        )
