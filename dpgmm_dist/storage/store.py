"""A create-only object store over fsspec, in which the ledger and the journal are kept.

An object is written once, whole, and never changed. If two writers create one name, exactly one
wins, and the other gets an error. The budget depends on this, so any other store is refused.

A local file is linked to its name (`local_file`). On S3, Google Cloud Storage and Azure a create is
a conditional write, ``pipe_file(mode="create")`` in fsspec. ``memory://`` works within one process,
for tests.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from fsspec.core import url_to_fs
from fsspec.spec import AbstractFileSystem

from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.storage.local_file import create_file, read_file
from dpgmm_dist.storage.urls import check_no_password, describe_error, safe_url, secrets_in

# A failed create is retried with the same name and the same bytes, which does no harm.
_CREATE_ATTEMPTS = 3


Names = list[str]  # in the classes below, ``list`` is a method


class ObjectExists(DataError):
    """A create was refused because the name is taken."""


class ObjectMissing(DataError):
    """There is no object with that name."""


class Store(Protocol):
    """Named objects of bytes, created once. Names are relative, with ``/`` between their parts."""

    @property
    def url(self) -> str:
        """The URL of the store without credentials, for messages."""
        ...

    def create(self, name: str, data: bytes) -> None:
        """Write a new, durable object; raise `ObjectExists` if the name is taken."""
        ...

    def read(self, name: str) -> bytes:
        """Return the whole object; raise `ObjectMissing` if there is none."""
        ...

    def list(self, prefix: str) -> Names:
        """Return the sorted names directly below ``prefix``, which ends with ``/``."""
        ...

    def exists(self, name: str) -> bool:
        """Say whether the object exists; raise DataError if the store cannot be reached."""
        ...


class FsspecStore:
    """The `Store` in one directory or object prefix. Open it with `open_store`."""

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
            # s3fs reports a lost race as EINVAL with this word. Other clients have their own types.
            if "precondition" in str(err).lower().replace("-", ""):
                raise ObjectExists(f"{self._url}/{name} exists already.") from None
            raise self._failure("write", name, err) from None

    def read(self, name: str) -> bytes:
        try:
            if self._local:
                return read_file(self._path(name))
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
        # fs.exists() turns every error into False, and False here would mean to draw noise again.
        try:
            self._fs.invalidate_cache()
            self._fs.info(self._path(name))
        except FileNotFoundError:
            return False
        except Exception as err:
            raise self._failure("look for", name, err) from None
        return True

    def discard(self, name: str) -> None:
        """Try to remove a probe object. If that fails, the object stays and does no harm."""
        try:
            self._fs.rm_file(self._path(name))
        except Exception:
            return  # append-only credentials may not delete

    def _bases(self, folder: str) -> Iterator[str]:
        """Return the base names of the objects in ``folder``, without hidden (temporary) ones."""
        if self._local:
            # fs.ls() reads the status of every entry: it fails with "not found" if another
            # writer's temporary file is removed meanwhile.
            # What is no file is named too: a record that became a pipe is not a missing one.
            names = [n for n in os.listdir(folder) if not os.path.isdir(os.path.join(folder, n))]
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
        reason = describe_error(err, self._secrets)
        return DataError(
            f"Cannot {verb} {self._url}/{name}: {reason}. Check that the store exists and that"
            " you may list, read and write in it, then run the same command again."
        )


def open_store(url: str, storage_options: Mapping[str, Any] | None = None) -> FsspecStore:
    """Open the create-only store at a directory or fsspec URL, without reading or writing.

    Parameters
    ----------
    url : str
        Directory or URL, for example ``s3://bucket/ledger``. Credentials belong in the
        environment or in ``storage_options``, never in the URL.
    storage_options : mapping, optional
        Passed to fsspec; never stored or shown.

    Raises
    ------
    SpecError
        The URL holds a password, is chained, or its protocol is unknown.
    DataError
        The file system cannot be opened, or it has no atomic create.
    """
    check_no_password(url)
    if "::" in url:
        raise SpecError(f"{safe_url(url)} is a chained URL. Give the URL of the store itself.")
    options = dict(storage_options or {})
    secret_values = secrets_in(options)
    try:
        # No cached listings: objects of other drivers count at once.
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
    """Create the object unless it exists; return the bytes that are stored.

    The object is read back after a conflict, and after an error that leaves open whether the write
    succeeded. A caller that needs to know whether its own write won puts a nonce into ``data`` and
    compares the result with it.

    Raises
    ------
    DataError
        Several writes failed and nothing is stored, or the store cannot be read.
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
    raise failure or DataError(f"{store.url}/{name} could not be written or read.")


def read_or_none(store: Store, name: str) -> bytes | None:
    """Return the bytes of the object, or None if it does not exist; raise any other failure."""
    try:
        return store.read(name)
    except ObjectMissing:
        return None


def _refuse_check_then_write(fs: Any, url: str) -> None:
    """Refuse fsspec's default create, which looks first and then writes: two writers can win."""
    inherited = getattr(type(fs), "pipe_file", None) is AbstractFileSystem.pipe_file
    if inherited and not getattr(fs, "async_impl", False) and not getattr(fs, "local_file", False):
        raise DataError(
            f"The file system of {safe_url(url)} has no atomic create, so two drivers could spend"
            " the same budget. Use a local directory, S3, Google Cloud Storage or Azure Blob"
            " Storage."
        )
