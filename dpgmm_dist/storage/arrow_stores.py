"""Arrow's own clients of object stores, for stores that they read faster than fsspec does.

`python jobs/benchmarks/stores.py` compares the two; docs/scaling.md has the figures. fsspec lists,
writes and reports every error.
"""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs

_RETRY = timedelta(seconds=30)
"""Google's client otherwise retries for 15 minutes. `dpgmm_dist.storage.rereading` retries too."""


def arrow_filesystem(fs: Any) -> Any | None:
    """Return Arrow's file system with the store and the credentials of an fsspec file system.

    Returns
    -------
    pyarrow.fs.FileSystem or None
        None if fsspec reads the store as fast (S3), if this pyarrow has no such client, or if an
        option has no equivalent in Arrow's client.
    """
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    options = {k: v for k, v in fs.storage_options.items() if v is not None}
    if not all(isinstance(value, str) for value in options.values()):
        return None
    for schemes, make in (({"gs", "gcs"}, _google), ({"abfs", "az"}, _azure)):
        if protocols & schemes:
            return make(tuple(sorted(options.items())))
    return None


@lru_cache(maxsize=16)
def _google(items: tuple[tuple[str, str], ...]) -> Any | None:
    options = dict(items)
    anonymous = {"anon": True, "google_default": False}.get(options.get("token", ""))
    if anonymous is None or set(options) - {"token", "project", "endpoint_url"}:
        return None
    arguments: dict[str, Any] = {"anonymous": anonymous}
    if "endpoint_url" in options:
        endpoint = urlsplit(options["endpoint_url"])
        if endpoint.path.strip("/"):
            return None
        arguments |= {"scheme": endpoint.scheme, "endpoint_override": endpoint.netloc}
    return _created("GcsFileSystem", retry_time_limit=_RETRY, **arguments)


@lru_cache(maxsize=16)
def _azure(items: tuple[tuple[str, str], ...]) -> Any | None:
    options = dict(items)
    if set(options) == {"account_name", "account_key"}:
        return _created("AzureFileSystem", **options)
    if set(options) != {"connection_string"}:
        return None
    pairs = [part.partition("=") for part in options["connection_string"].split(";") if part]
    fields = {key: value for key, _, value in pairs}
    known = {"DefaultEndpointsProtocol", "AccountName", "AccountKey", "BlobEndpoint"}
    if set(fields) - {*known, "EndpointSuffix"} or not {"AccountName", "AccountKey"} <= set(fields):
        return None
    arguments = {"account_name": fields["AccountName"], "account_key": fields["AccountKey"]}
    if fields.get("EndpointSuffix", "core.windows.net") != "core.windows.net":
        return None
    if "BlobEndpoint" in fields:
        endpoint = urlsplit(fields["BlobEndpoint"])
        # On hosts that are not Microsoft's, Arrow puts the account's name first in every path.
        if endpoint.path.strip("/") != fields["AccountName"]:
            return None
        arguments |= {
            "blob_storage_scheme": endpoint.scheme,
            "blob_storage_authority": endpoint.netloc,
        }
    elif fields.get("DefaultEndpointsProtocol", "https") != "https":
        return None
    return _created("AzureFileSystem", **arguments)


def _created(name: str, **arguments: Any) -> Any | None:
    """Return one of pyarrow's file systems, or None if this build lacks it or rejects them."""
    file_system = getattr(pyarrow.fs, name, None)
    try:
        return None if file_system is None else file_system(**arguments)
    except (ImportError, TypeError, ValueError, OSError):
        return None
