"""Arrow's own clients of object stores, where they were measured to read faster than fsspec's.

`python jobs/benchmarks/stores.py` compares them; docs/scaling.md has the figures. Listing, writing
and every message about a store stay with fsspec.
"""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs

_RETRY = timedelta(seconds=30)
"""Of Google's client, which otherwise tries for a quarter of an hour; reading begins again anyway
(`dpgmm_dist.storage.rereading`)."""


def arrow_filesystem(fs: Any) -> Any | None:
    """Arrow's file system for the store and the credentials of an fsspec one.

    Returns
    -------
    pyarrow.fs.FileSystem or None
        None where fsspec reads as fast (S3), where this pyarrow has no such client, or where the
        options say something that cannot be said to it with the same meaning.
    """
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    options = {k: v for k, v in fs.storage_options.items() if v is not None}
    if not all(isinstance(value, str) for value in options.values()):
        return None
    for makers, make in (({"gs", "gcs"}, _google), ({"abfs", "az"}, _azure)):
        if protocols & makers:
            return make(tuple(sorted(options.items())))
    return None


@lru_cache(maxsize=16)
def _google(items: tuple[tuple[str, str], ...]) -> Any | None:
    options = dict(items)
    anonymous = {"anon": True, "google_default": False}.get(options.get("token", ""))
    if anonymous is None or set(options) - {"token", "project", "endpoint_url"}:
        return None
    given: dict[str, Any] = {"anonymous": anonymous}
    if "endpoint_url" in options:
        endpoint = urlsplit(options["endpoint_url"])
        if endpoint.path.strip("/"):
            return None
        given |= {"scheme": endpoint.scheme, "endpoint_override": endpoint.netloc}
    return _made("GcsFileSystem", retry_time_limit=_RETRY, **given)


@lru_cache(maxsize=16)
def _azure(items: tuple[tuple[str, str], ...]) -> Any | None:
    options = dict(items)
    if set(options) == {"account_name", "account_key"}:
        return _made("AzureFileSystem", **options)
    if set(options) != {"connection_string"}:
        return None
    parts = [one.partition("=") for one in options["connection_string"].split(";") if one]
    told = {key: value for key, _, value in parts}
    known = {"DefaultEndpointsProtocol", "AccountName", "AccountKey", "BlobEndpoint"}
    if set(told) - {*known, "EndpointSuffix"} or not {"AccountName", "AccountKey"} <= set(told):
        return None
    given = {"account_name": told["AccountName"], "account_key": told["AccountKey"]}
    if told.get("EndpointSuffix", "core.windows.net") != "core.windows.net":
        return None
    if "BlobEndpoint" in told:
        endpoint = urlsplit(told["BlobEndpoint"])
        # Arrow asks below the account's name where the store is not one of Microsoft's hosts.
        if endpoint.path.strip("/") != told["AccountName"]:
            return None
        given |= {
            "blob_storage_scheme": endpoint.scheme,
            "blob_storage_authority": endpoint.netloc,
        }
    elif told.get("DefaultEndpointsProtocol", "https") != "https":
        return None
    return _made("AzureFileSystem", **given)


def _made(name: str, **given: Any) -> Any | None:
    """One of pyarrow's file systems; None where this build of it has none, or refuses."""
    kind = getattr(pyarrow.fs, name, None)
    try:
        return None if kind is None else kind(**given)
    except (ImportError, TypeError, ValueError, OSError):
        return None
