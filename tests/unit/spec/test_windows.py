"""dataset.window, privacy.account and output.release_id in a specification."""

from __future__ import annotations

from typing import Any

import pytest

from dpgmm_dist.errors import SpecError
from dpgmm_dist.pipeline.resolve import account_of, window_of
from dpgmm_dist.spec.release_spec import ReleaseSpec
from dpgmm_dist.windows import Account, Window

PLAIN: dict[str, Any] = {
    "dataset": {"path": "data/", "features": "x", "width": 3},
    "bounds": {"norm": 1.0},
    "privacy": {"epsilon": 1.0, "delta": 1e-6, "ledger": "ledger"},
    "output": {"path": "out"},
}


def build(date: str | None = None, **sections: dict[str, Any]) -> ReleaseSpec:
    document = {name: keys | sections.get(name, {}) for name, keys in PLAIN.items()}
    return ReleaseSpec.from_dict(document, date=date)


def window(**keys: Any) -> dict[str, Any]:
    return {"window": {"column": "t", **keys}}


def test_specifications_without_windows_keep_their_digest() -> None:
    """Their digests are in ledgers and journals."""
    spec = build()
    assert (window_of(spec.dataset), account_of(spec)) == (None, None)
    public = spec.public_dict()
    assert "window" not in public["dataset"]
    assert "account" not in public["privacy"]
    assert "release_id" not in public["output"]


def test_a_release_id_is_not_part_of_what_is_released() -> None:
    assert build(output={"release_id": "a"}).digest() == build().digest()


def test_two_windows_are_two_specifications() -> None:
    digests = {
        build().digest(),
        build(dataset=window(equals="a")).digest(),
        build(dataset=window(equals="b")).digest(),
        build(dataset=window(start="2026-01-01", end="2026-02-01")).digest(),
        build(dataset=window(start="2026-01-01", end="2026-02-02")).digest(),
        build(dataset=window(equals="a"), privacy={"account": "x"}).digest(),
    }
    assert len(digests) == 6


def test_a_window_and_an_account() -> None:
    spec = build("2026-11-25", dataset=window(every="month"), privacy={"account": "months"})
    assert window_of(spec.dataset) == Window("t", start="2026-11-01", end="2026-12-01")
    assert account_of(spec) == Account("months", "data/")
    public = spec.public_dict()
    assert public["dataset"]["window"] == {
        "column": "t",
        "start": "2026-11-01",
        "end": "2026-12-01",
    }
    assert ReleaseSpec.from_dict(public).digest() == spec.digest()


def test_dates_are_filled_in_from_yaml_and_overrides() -> None:
    text = """
    dataset: {path: data/, features: x, width: 3, window: {column: month, equals: "{date:%Y-%m}"}}
    bounds: {norm: 1.0}
    privacy: {epsilon: 1.0, delta: 1e-6}
    """
    spec = ReleaseSpec.from_yaml(text, ["output.path=out/{date:%Y-%m}"], {}, date="2026-11-25")
    assert spec.output.path == "out/2026-11"
    assert window_of(spec.dataset) == Window("month", equals="2026-11")
    with pytest.raises(SpecError, match=r"dataset\.window\.equals: uses a date; give it with"):
        ReleaseSpec.from_yaml(text, environ={})


def test_times_are_kept_in_utc() -> None:
    spec = build(dataset=window(start="2026-11-01T02:00:00+02:00", end="2026-11-01T06:00:00"))
    assert spec.dataset.window is not None
    assert spec.dataset.window.start == "2026-11-01"
    assert spec.dataset.window.end == "2026-11-01T06:00:00+00:00"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"dataset": window()}, "dataset.window: give equals"),
        ({"dataset": window(start="2026-01-01")}, "dataset.window: give equals"),
        (
            {"dataset": window(equals="a", start="2026-01-01", end="2026-01-02")},
            "dataset.window: give equals",
        ),
        ({"dataset": window(start="2026-01-02", end="2026-01-02")}, "must be before end"),
        ({"dataset": window(start="soon", end="2026-01-02")}, "window.start: 'soon' is not a date"),
        ({"dataset": window(start=20260101, end="2026-01-02")}, "date or time in quotes"),
        ({"dataset": window(equals=7)}, "window.equals: got 7"),
        ({"dataset": window(every="month")}, "every: got month, the month that holds the date"),
        ({"dataset": window(every="decade")}, "must be one of day, week, month"),
        ({"dataset": {"window": {"equals": "a"}}}, "dataset.window.column: missing"),
        ({"dataset": window(equals="{date:%Y}")}, "window.equals: uses a date"),
        ({"dataset": {"path": "d/{date}"}}, "dataset.path: uses a date"),
        ({"output": {"path": "{date}"}}, "output.path: uses a date"),
        ({"output": {"release_id": "{date}"}}, "output.release_id: uses a date"),
        ({"privacy": {"account": "a"}}, "give dataset.window, or remove privacy.account"),
        (
            {"privacy": {"account": "a", "ledger": None}, "dataset": window(equals="a")},
            "give privacy.ledger, or remove it",
        ),
        (
            {
                "privacy": {"account": "a"},
                "dataset": window(equals="a") | {"privacy_unit": {"column": "u", "max_rows": 2}},
            },
            "the unit is not one row .*would read data",
        ),
    ],
)
def test_mistakes_are_refused_from_the_specification_alone(
    sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        build(**sections)


def test_a_date_that_nothing_uses_is_refused() -> None:
    with pytest.raises(SpecError, match="neither the release id, nor a path"):
        build("2026-11-25")
