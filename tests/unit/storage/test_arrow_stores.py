"""Options of fsspec are passed to Arrow's clients with the same meaning, or fsspec is used."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pyarrow.fs
import pytest

from dpgmm_dist.storage import arrow_stores
from dpgmm_dist.storage.arrow_stores import arrow_filesystem

AZURE = "AccountName=acc;AccountKey=a2V5PQ=="


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The arguments with which Arrow's file systems were created."""
    calls: list[dict[str, Any]] = []
    for name in ("GcsFileSystem", "AzureFileSystem"):
        monkeypatch.setattr(
            pyarrow.fs, name, lambda _n=name, **args: calls.append({"kind": _n, **args}) or _n
        )
    arrow_stores._google.cache_clear()
    arrow_stores._azure.cache_clear()
    yield calls
    arrow_stores._google.cache_clear()
    arrow_stores._azure.cache_clear()


def store(protocol: Any, **options: Any) -> Any:
    return SimpleNamespace(protocol=protocol, storage_options=options)


def test_google_gets_the_endpoint_and_the_credentials(made: list[dict[str, Any]]) -> None:
    options = {"token": "anon", "endpoint_url": "http://127.0.0.1:9", "project": "p"}
    for _ in range(2):  # one client per process
        assert arrow_filesystem(store(("gs", "gcs"), **options)) == "GcsFileSystem"
    assert len(made) == 1
    assert made[0].pop("retry_time_limit").total_seconds() <= 60
    assert made == [
        {
            "kind": "GcsFileSystem",
            "anonymous": True,
            "scheme": "http",
            "endpoint_override": "127.0.0.1:9",
        }
    ]
    assert arrow_filesystem(store("gs", token="google_default")) == "GcsFileSystem"
    assert made[1]["anonymous"] is False


def test_azure_gets_the_account_from_either_kind_of_options(made: list[dict[str, Any]]) -> None:
    account = {"account_name": "acc", "account_key": "a2V5PQ=="}
    assert arrow_filesystem(store("abfs", **account)) == "AzureFileSystem"
    text = f"DefaultEndpointsProtocol=https;{AZURE};EndpointSuffix=core.windows.net"
    assert arrow_filesystem(store(("abfs", "az"), connection_string=text)) == "AzureFileSystem"
    local = f"DefaultEndpointsProtocol=http;{AZURE};BlobEndpoint=http://127.0.0.1:9/acc;"
    assert arrow_filesystem(store("az", connection_string=local)) == "AzureFileSystem"
    known = {"kind": "AzureFileSystem", **account}
    place = {"blob_storage_scheme": "http", "blob_storage_authority": "127.0.0.1:9"}
    assert made == [known, known, {**known, **place}]


@pytest.mark.parametrize(
    ("protocol", "options"),
    [
        (("s3", "s3a"), {"key": "k", "secret": "s"}),
        ("memory", {}),
        ("gs", {}),  # gcsfs tries several ways to find credentials
        ("gs", {"token": "/path/of/a/key.json"}),
        ("gs", {"token": {"type": "service_account"}}),
        ("gs", {"token": "anon", "requester_pays": True}),
        ("gs", {"token": "anon", "access": "read_only"}),
        ("gs", {"token": "anon", "endpoint_url": "http://host/below"}),
        ("abfs", {"account_name": "acc"}),
        ("abfs", {"account_name": "acc", "sas_token": "t"}),
        ("abfs", {"connection_string": "AccountName=acc;SharedAccessSignature=s"}),
        ("abfs", {"connection_string": f"{AZURE};BlobEndpoint=https://a.custom.domain"}),
        ("abfs", {"connection_string": f"{AZURE};EndpointSuffix=core.example"}),
        ("abfs", {"connection_string": f"DefaultEndpointsProtocol=http;{AZURE}"}),
        ("abfs", {"connection_string": "UseDevelopmentStorage=true"}),
    ],
)
def test_options_without_an_equivalent_in_arrow_are_left_to_fsspec(
    protocol: Any, options: dict[str, Any], made: list[dict[str, Any]]
) -> None:
    assert arrow_filesystem(store(protocol, **options)) is None
    assert made == []


def test_fsspec_is_used_if_pyarrow_lacks_the_client_or_refuses(
    made: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(pyarrow.fs, "GcsFileSystem")
    assert arrow_filesystem(store("gs", token="anon")) is None

    def refuses(**_: Any) -> Any:
        raise ValueError("no such account")

    monkeypatch.setattr(pyarrow.fs, "AzureFileSystem", refuses)
    assert arrow_filesystem(store("az", account_name="a", account_key="k")) is None
