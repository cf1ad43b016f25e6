"""``dpgmm ledger``: its output as text and as JSON, and its exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dpgmm_dist.budget.journal import Journal
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.budget.records import Charge
from dpgmm_dist.cli import main as cli
from dpgmm_dist.windows import Account, Window

DIGEST = "d" * 64


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], url: str) -> Any:
    def call(command: str, *arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.main(["ledger", command, url, *arguments])
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return call


def charged(url: str, release_id: str, epsilon: float = 1.0, **more: Any) -> Charge:
    ledger = Ledger.open(url)
    charge = Charge.of_release(release_id, DIGEST, epsilon, 1e-6, gaussian=True)
    charge = replace(charge, **more)
    Journal(ledger.store, release_id).begin(DIGEST, {}, "gaussian")
    ledger.charge(charge)
    return charge


def test_the_text_output(run: Any, url: str) -> None:
    code, out, _ = run("init", "--epsilon", "4", "--delta", "1e-5", "--period", "365d")
    assert code == 0
    assert "charges: none" in out
    assert "bounds the loss per period, not the loss of all time" in out
    charged(url, "week-1")
    account = Account("events", "data/")
    charged(url, "week-2", account=account, window=Window("month", equals="2026-11"))
    charged(url, "w-3", account=None, window=Window("t", start="2026-01-01", end="2026-02-01"))
    code, out, _ = run("show")
    assert code == 0
    table = out.split("charges:\n")[1].splitlines()
    assert table[0].split()[:7] == ["#", "charged", "release", "epsilon", "delta", "rho", "mu"]
    assert table[0].split()[7:] == ["share", "rows", "counts"]
    assert [line.split()[3] for line in table[1:4]] == ["week-1", "week-2", "w-3"]
    assert "month=2026-11 (events)" in table[2]
    assert "t 2026-01-01..2026-02-01" in table[3]
    assert all("until " in line for line in table[1:4])
    share = Ledger.open(url).show()["share_spent"]
    last = table[-1]
    assert last.startswith("last 365d  spent")
    assert last.count("#") == round(20 * share) > 0
    assert last.endswith(f"{share:.1%}")
    assert "3 released" in table[-2]


def test_the_json_output(run: Any, url: str) -> None:
    run("init", "--epsilon", "1.5", "--delta", "1e-5")
    charged(url, "a")
    charged(url, "b")
    shown = json.loads(run("show", "--json")[1])
    assert [charge["release_id"] for charge in shown["charges"]] == ["a", "b"]
    assert sum(charge["share"] for charge in shown["charges"]) == pytest.approx(
        shown["share_spent"]
    )
    assert [month["releases"] for month in shown["months"]] in ([2], [1, 1])
    assert sum(month["share"] for month in shown["months"]) == pytest.approx(shown["share_spent"])
    assert shown["currency"] == "mu"
    assert (shown["period"], shown["closed"]) == (None, None)


def test_verify(run: Any, url: str) -> None:
    run("init", "--epsilon", "1.5", "--delta", "1e-5")
    charged(url, "a")
    charged(url, "b")
    Journal(Ledger.open(url).store, "a").finish({})
    code, out, _ = run("verify", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["ok"], found["charges"]) == (True, 2)
    assert (found["finished"], found["unfinished"], found["missing"]) == (["a"], ["b"], [])


def test_verify_finds_a_lost_journal_and_an_edited_record(run: Any, url: str) -> None:
    run("init", "--epsilon", "1.5", "--delta", "1e-5")
    charged(url, "a")
    (Path(url) / "journal" / "a" / "meta.json").unlink()
    code, _, err = run("verify")
    assert code == 4
    assert "journals of charged releases are missing: a" in err
    record = Path(url) / "ledger" / "00000001.json"
    record.write_text(record.read_text().replace('"epsilon":1.0', '"epsilon":0.1'))
    code, _, err = run("verify")
    assert code == 4
    assert "corrupt or was edited" in err


def test_close(run: Any, url: str) -> None:
    run("init", "--epsilon", "1.5", "--delta", "1e-5")
    code, out, _ = run("close")
    assert code == 0
    assert out == run("close")[1]
    closed = json.loads(run("show", "--json")[1])["closed"]
    assert f"closed: {closed}" in out


def test_mistakes(run: Any) -> None:
    code, _, err = run("init", "--epsilon", "1", "--delta", "1e-6", "--period", "1y")
    assert code == 2
    assert "The period '1y' is not valid" in err
    for command in ("show", "verify", "close"):
        code, _, err = run(command)
        assert code == 4
        assert "dpgmm ledger init" in err
