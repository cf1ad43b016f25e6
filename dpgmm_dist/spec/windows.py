"""Checks of windows, accounts and dates: whether their keys agree."""

from __future__ import annotations

from typing import Any

from dpgmm_dist.spec.dates import PERIODS, has_template
from dpgmm_dist.spec.sections import DatasetSpec, OutputSpec, PrivacySpec, WindowSpec
from dpgmm_dist.windows import instant


def without_unset(public: dict[str, Any]) -> dict[str, Any]:
    """Drop the keys of windows and accounts that are not set, and ``output.release_id``.

    A specification without a window keeps the digest that ledgers and journals already hold. The
    release id is dropped because it names a release and does not define it.
    """
    window = public["dataset"].pop("window", None)
    if window is not None:
        given = {key: value for key, value in window.items() if value is not None}
        public["dataset"]["window"] = given
    if public["privacy"].get("account") is None:
        public["privacy"].pop("account", None)
    public["output"].pop("release_id", None)
    return public


def problems(dataset: DatasetSpec, privacy: PrivacySpec, output: OutputSpec) -> list[str]:
    """Return a line for each contradiction between these keys."""
    return [
        *_unfilled(dataset, output),
        *([] if dataset.window is None else _window_problems(dataset.window)),
        *_account_problems(dataset, privacy),
    ]


def _unfilled(dataset: DatasetSpec, output: OutputSpec) -> list[str]:
    texts = {
        "dataset.path": dataset.path,
        "dataset.window.equals": dataset.window.equals if dataset.window else None,
        "output.path": output.path,
        "output.release_id": output.release_id,
    }
    return [
        f"{key}: uses a date; give it with --date (ReleaseSpec.from_yaml(..., date=...))"
        for key, text in texts.items()
        if has_template(text)
    ]


def _window_problems(window: WindowSpec) -> list[str]:
    if window.every is not None:
        return [
            f"dataset.window.every: got {window.every}, the {window.every} that holds the date of"
            " the run; give that date with --date, or give start and end"
        ]
    is_given = [value is not None for value in (window.equals, window.start, window.end)]
    if is_given not in ([True, False, False], [False, True, True]):
        return [
            "dataset.window: give equals (the text of a partition), or start and end (end is"
            f" excluded), or every ({', '.join(PERIODS)}) with --date"
        ]
    if window.start is not None and instant(window.start) >= instant(window.end):
        return [
            f"dataset.window: start {window.start} must be before end {window.end}, which is"
            " excluded"
        ]
    return []


def _account_problems(dataset: DatasetSpec, privacy: PrivacySpec) -> list[str]:
    if privacy.account is None:
        return []
    found = []
    if dataset.window is None:
        found.append(
            "privacy.account: is for releases of disjoint windows; give dataset.window, or remove"
            " privacy.account"
        )
    if privacy.ledger is None:
        found.append("privacy.account: is kept in a ledger; give privacy.ledger, or remove it")
    if dataset.privacy_unit is not None:
        found.append(
            "privacy.account: the unit is not one row (dataset.privacy_unit), so a unit may have"
            " rows in several windows, and their releases add up for it; remove privacy.account"
            " (whether units have rows in several windows is not checked: that would read data)"
        )
    return found
