"""The date of a run: filled in where a specification may hold one, and nowhere else."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpgmm_dist.errors import SpecError
from dpgmm_dist.spec.dates import PERIODS, RunDate, period_around


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("monthly-{date:%Y-%m}", "monthly-2026-11"),
        ("weekly-{date:%G-W%V}", "weekly-2026-W48"),
        ("{date}", "2026-11-25"),
        ("{date:%Y}/{date:%m}/{date:%d}", "2026/11/25"),
        ("{date:%y%j%u}-{date:%H%M}", "263293-0630"),
        ("no-date", "no-date"),
        ("{other}", "{other}"),
    ],
)
def test_templates(template: str, filled: str) -> None:
    run = RunDate("2026-11-25T06:30:00+02:00")
    assert run.fill(template, "output.path") == filled
    assert run.used == ("{date" in template)


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "", "25.11.2026"])
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"--date .*not a date; write 2026-11-25"):
        RunDate(text)


@pytest.mark.parametrize("template", ["{date:%s}", "{date:%}", "{date:%-d}", "{date:%B}"])
def test_formats_that_differ_between_machines_are_refused(template: str) -> None:
    with pytest.raises(SpecError, match=r"output\.path: got %.* in a date; use %Y %m"):
        RunDate("2026-11-25").fill(template, "output.path")


def test_a_template_without_a_date_and_a_broken_one_are_refused() -> None:
    with pytest.raises(SpecError, match=r"--release-id: uses a date; give it with --date"):
        RunDate(None).fill("{date:%Y}", "--release-id")
    with pytest.raises(SpecError, match="with both braces"):
        RunDate("2026-11-25").fill("a-{date:%Y", "--release-id")


def test_a_date_that_nothing_uses_is_refused() -> None:
    run = RunDate("2026-11-25")
    run.fill("fixed", "--release-id")
    with pytest.raises(SpecError, match="neither the release id, nor a path"):
        run.require_used()
    run.fill("{date}", "--release-id")
    run.require_used()
    RunDate(None).require_used()


def test_only_paths_windows_and_ids_are_filled_in() -> None:
    document: dict[str, Any] = {
        "dataset": {"path": "d/{date:%Y}", "label": "{date}", "window": {"equals": "{date:%m}"}},
        "output": {"path": "o/{date:%m}", "release_id": "r-{date:%d}"},
        "privacy": {"ledger": "{date}"},
    }
    RunDate("2026-11-25").fill_document(document)
    assert document == {
        "dataset": {"path": "d/2026", "label": "{date}", "window": {"equals": "11"}},
        "output": {"path": "o/11", "release_id": "r-25"},
        "privacy": {"ledger": "{date}"},
    }


@pytest.mark.parametrize("document", [{}, {"dataset": 3}, {"dataset": {"window": [1]}}])
def test_documents_of_another_shape_are_left_alone(document: dict[str, Any]) -> None:
    before = dict(document)
    RunDate("2026-11-25").fill_document(document)
    assert document == before


@pytest.mark.parametrize(
    ("every", "start", "end"),
    [
        ("day", "2026-11-25", "2026-11-26"),
        ("week", "2026-11-23", "2026-11-30"),
        ("month", "2026-11-01", "2026-12-01"),
        ("quarter", "2026-10-01", "2027-01-01"),
        ("year", "2026-01-01", "2027-01-01"),
    ],
)
def test_every(every: str, start: str, end: str) -> None:
    document: dict[str, Any] = {"dataset": {"window": {"column": "t", "every": every}}}
    run = RunDate("2026-11-25")
    run.fill_document(document)
    assert document["dataset"]["window"] == {"column": "t", "start": start, "end": end}
    assert run.used


@given(
    day=st.dates(date(1990, 1, 1), date(2110, 1, 1)),
    every=st.sampled_from(PERIODS),
)
def test_periods_tile_the_calendar(day: date, every: str) -> None:
    start, end = period_around(day, every)
    assert start <= day < end
    assert period_around(start, every) == period_around(end - timedelta(days=1), every)
    assert period_around(end, every)[0] == end
