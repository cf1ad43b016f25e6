"""URLs and errors of other libraries are shown without credentials."""

from __future__ import annotations

import pytest

from dpgmm_dist.errors import SpecError
from dpgmm_dist.storage.urls import check_no_password, describe_error, safe_url, secrets_in


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("/data/ledger/", "/data/ledger"),
        ("/", "/"),
        ("file:///data/a@b", "file:///data/a@b"),
        ("s3://bucket/a@b/c", "s3://bucket/a@b/c"),
        ("s3://AKIA:se/cr@et@bucket/x", "s3://bucket/x"),
        ("sftp://me@host/x", "sftp://host/x"),
        ("sftp://me@host/a@b", "sftp://host/a@b"),
        ("s3://bucket/x?versionId=1#y", "s3://bucket/x"),
        ("abfs://container@account/x", "abfs://container@account/x"),
        ("abfs://container:key@account/x", "abfs://account/x"),
    ],
)
def test_safe_url(url: str, shown: str) -> None:
    assert safe_url(url) == shown


@pytest.mark.parametrize("url", ["s3://k:s@b/x", "sftp://me:p/w@host/x"])
def test_passwords_are_refused_without_being_shown(url: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_no_password(url)
    assert "s@" not in str(caught.value)
    assert "p/w" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["s3://b/x:y", "s3://b/x:y@z", "abfs://c@a/x", "/tmp/a:b@c", "memory://a", "http://h:80/x"],
)
def test_other_urls_are_not_taken_for_passwords(url: str) -> None:
    check_no_password(url)


def test_errors_are_one_short_line() -> None:
    assert describe_error(ValueError("one\ntwo")) == "ValueError: one"
    assert describe_error(ValueError()) == "ValueError"
    assert len(describe_error(ValueError("x" * 1000))) < 250
    assert describe_error(FileNotFoundError(2, "m", "/secret/path")) == "No such file or directory"
    assert describe_error(ValueError("key abcd1234 bad"), ("abcd", "abcd1234")) == (
        "ValueError: key *** bad"
    )
    assert describe_error(OSError("to s3://me:pw@bucket failed")) == (
        "OSError: to s3://***@bucket failed"
    )


def test_secrets_of_nested_options_are_found_whole_and_in_parts() -> None:
    key = "a-key-that-is-long-enough=="
    text = f"DefaultEndpointsProtocol=http;AccountName=me;AccountKey={key};"
    options = {"connection_string": text, "kwargs": {"tokens": ["tok-1", 5, None]}, "anon": "yes"}
    assert set(secrets_in(options)) == {text, key, "tok-1"}
    shown = describe_error(ValueError(f"bad {key} of tok-1"), secrets_in(options))
    assert shown == "ValueError: bad *** of ***"
