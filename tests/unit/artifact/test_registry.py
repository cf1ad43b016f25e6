"""The record of a release for a registry: public values, from the receipt."""

from __future__ import annotations

import json

import pytest

from dpgmm_dist.artifact.registry import registry_record
from dpgmm_dist.cli.main import main

from .releases import write


def test_a_record_says_what_was_spent_and_for_whom(tmp_path, capsys):
    write(tmp_path)
    record = registry_record(str(tmp_path))
    receipt = json.loads((tmp_path / "receipt.json").read_bytes())
    assert record["epsilon"] == receipt["totals"]["epsilon"]
    assert record["privacy_unit"] == "one row"
    assert record["private"] is True
    assert record["queries"] == len(receipt["queries"])
    with pytest.raises(SystemExit) as ended:
        main(["record", str(tmp_path), "--json"])
    assert not ended.value.code
    assert json.loads(capsys.readouterr().out) == record
