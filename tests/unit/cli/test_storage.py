"""``--storage-options FILE``: read by commands without a specification, and never quoted."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpgmm_dist.cli.storage import read_options
from dpgmm_dist.errors import SpecError

SECRET = "hunter2hunter2"


def test_no_file_is_no_options() -> None:
    assert read_options(None) == {}


def test_options_are_plain_yaml(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text(f"key: me\nsecret: {SECRET}\nclient_kwargs: {{region_name: eu-west-1}}\n")
    assert read_options(path) == {
        "key": "me",
        "secret": SECRET,
        "client_kwargs": {"region_name": "eu-west-1"},
    }


@pytest.mark.parametrize("text", [SECRET, f"[{SECRET}]", f"key: @{SECRET}", f"{{1: {SECRET}}}"])
def test_anything_but_a_mapping_is_refused_without_quoting_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "options.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        read_options(path)
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="gone"):
        read_options(tmp_path / "gone.yaml")
