"""What a specification may say about windows, accounts and dates, key against key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dpgmm_dist.errors import SpecError
from dpgmm_dist.spec.dates import PERIODS, has_template
from dpgmm_dist.windows import Account, Window, instant

if TYPE_CHECKING:
    from dpgmm_dist.spec.release_spec import ReleaseSpec, WindowSpec


def moment(value: object) -> str:
    """Read a date or time; returns a date alone as it is, a time in UTC."""
    if not isinstance(value, str):
        raise ValueError("must be a date or time in quotes, such as '2026-11-25'")
    try:
        found = instant(value)
    except SpecError as error:
        raise ValueError(str(error)) from None
    return found.date().isoformat() if found.time().isoformat() == "00:00:00" else found.isoformat()


def window_of(spec: ReleaseSpec) -> Window | None:
    """Return the rows that a specification selects, None for all of them."""
    held = spec.dataset.window
    return None if held is None else Window(held.column, held.equals, held.start, held.end)


def account_of(spec: ReleaseSpec) -> Account | None:
    """Return what a release is charged to in parallel with other windows, or None."""
    name = spec.privacy.account
    return None if name is None else Account(name, spec.dataset.path)


def without_unset(public: dict[str, Any]) -> dict[str, Any]:
    """Drop the keys of windows and accounts that are not set.

    So specifications without them keep the digests that they had before there were any.
    ``output.release_id`` goes too: what a release is called is not what it is.
    """
    window = public["dataset"].pop("window", None)
    if window is not None:
        given = {key: value for key, value in window.items() if value is not None}
        public["dataset"]["window"] = given
    if public["privacy"].get("account") is None:
        public["privacy"].pop("account", None)
    public["output"].pop("release_id", None)
    return public


def problems(spec: ReleaseSpec) -> list[str]:
    """Return what is wrong between these keys, each right by itself."""
    window = spec.dataset.window
    return [
        *_unfilled(spec),
        *([] if window is None else _window_problems(window)),
        *_account_problems(spec),
    ]


def _unfilled(spec: ReleaseSpec) -> list[str]:
    window = spec.dataset.window
    texts = {
        "dataset.path": spec.dataset.path,
        "dataset.window.equals": window.equals if window else None,
        "output.path": spec.output.path,
        "output.release_id": spec.output.release_id,
    }
    return [
        f"{key}: uses a date; give it with --date (ReleaseSpec.from_yaml(..., date=...))"
        for key, text in texts.items()
        if has_template(text)
    ]


def _window_problems(window: WindowSpec) -> list[str]:
    if window.every is not None:
        return [
            f"dataset.window.every: {window.every} is the one that holds the date of the run; give"
            " it with --date, or give start and end"
        ]
    given = [value is not None for value in (window.equals, window.start, window.end)]
    if given not in ([True, False, False], [False, True, True]):
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


def _account_problems(spec: ReleaseSpec) -> list[str]:
    if spec.privacy.account is None:
        return []
    found = []
    if spec.dataset.window is None:
        found.append(
            "privacy.account: is for releases of disjoint windows, which cost a row once; give"
            " dataset.window, or remove it"
        )
    if spec.privacy.ledger is None:
        found.append("privacy.account: is kept in a ledger; give privacy.ledger, or remove it")
    if spec.dataset.privacy_unit is not None:
        found.append(
            "privacy.account: the unit is not one row (dataset.privacy_unit), so a unit may have"
            " rows in several windows and releases of disjoint windows add up for it; remove"
            " privacy.account (whether units do span windows is not looked up: that would read"
            " data)"
        )
    return found
