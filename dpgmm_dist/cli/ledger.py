"""The ``dpgmm ledger`` commands, and the tables and bars that they print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from dpgmm_dist.cli.output import emit, guarded, plain, table
from dpgmm_dist.cli.storage import StorageOptions, read_options

app = typer.Typer(
    help="Manage privacy budgets that releases are charged to.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

LedgerUrl = Annotated[str, typer.Argument(metavar="URL", help="Directory or URL of the ledger.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]

_BAR = 20


@app.command("init")
@guarded
def init(
    url: LedgerUrl,
    epsilon: Annotated[
        float, typer.Option("--epsilon", metavar="E", help="Epsilon of the whole budget.")
    ],
    delta: Annotated[
        float, typer.Option("--delta", metavar="D", help="Delta of the whole budget.")
    ],
    period: Annotated[
        str | None,
        typer.Option(
            "--period",
            metavar="P",
            help="Limit the charges within any 365d, 52w or 12h, instead of all time.",
        ),
    ] = None,
    json_: Json = False,
    storage_options: StorageOptions = None,
) -> None:
    """Begin a ledger. Refuse a store that lets two writers create one object."""
    from dpgmm_dist.budget.ledger import Ledger

    ledger = Ledger.init(url, epsilon, delta, period, read_options(storage_options))
    _print(ledger.show(), json_)


@app.command("show")
@guarded
def show(url: LedgerUrl, json_: Json = False, storage_options: StorageOptions = None) -> None:
    """Show the limit, what is spent and what remains, each release and each month."""
    from dpgmm_dist.budget.ledger import Ledger

    _print(Ledger.open(url, read_options(storage_options)).show(), json_)


@app.command("verify")
@guarded
def verify(url: LedgerUrl, json_: Json = False, storage_options: StorageOptions = None) -> None:
    """Check every record, that all charges fit, and that no charged release lost its journal."""
    from dpgmm_dist.budget.ledger import Ledger
    from dpgmm_dist.budget.summary import journals
    from dpgmm_dist.errors import DataError

    ledger = Ledger.open(url, read_options(storage_options))
    charges = ledger.verify()
    states = journals(ledger.store, ledger.records)
    if states["missing"]:
        raise DataError(
            f"The ledger at {ledger.url} is intact, but the journals of charged releases are"
            f" missing: {', '.join(states['missing'])}. Restore them from a backup. A release"
            " without its journal cannot be finished under its id."
        )
    emit(
        {"ledger": ledger.url, "ok": True, "charges": charges, "closed": ledger.closed, **states},
        as_json=json_,
    )


@app.command("close")
@guarded
def close(url: LedgerUrl, json_: Json = False, storage_options: StorageOptions = None) -> None:
    """Close a ledger for good. Charged releases can still be finished; no other is charged."""
    from dpgmm_dist.budget.ledger import Ledger

    ledger = Ledger.open(url, read_options(storage_options))
    emit({"ledger": ledger.url, "closed": ledger.close()}, as_json=json_)


def _print(shown: Mapping[str, Any], as_json: bool) -> None:
    """Print a ledger as JSON, or as its values, a table of its charges and a bar per month."""
    if as_json:
        emit(shown, as_json=True)
        return
    values = plain(shown)
    charges, months = values.pop("charges", []), values.pop("months", [])
    emit(values, as_json=False)
    typer.echo("charges:" if charges else "charges: none")
    for line in [*_charges(charges), *_months(months, values)]:
        typer.echo(line)


def _charges(charges: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table with a line for each charge: its cost and its share of the budget."""
    head = ("#", "charged", "release", "epsilon", "delta", "rho", "mu", "share", "rows", "counts")
    rows = [
        (
            str(charge.get("seq", "")),
            str(charge.get("time", ""))[:16].replace("T", " "),
            str(charge.get("release_id", "")),
            *(_number(charge.get(key)) for key in ("epsilon", "delta", "rho", "mu")),
            f"{charge.get('share', 0.0):.1%}",
            _rows(charge),
            _until(charge),
        )
        for charge in charges
    ]
    return table(head, rows) if rows else []


def _rows(charge: Mapping[str, Any]) -> str:
    window = charge.get("window")
    if not window:
        return "all"
    if "equals" in window:
        text = f"{window['column']}={window['equals']}"
    else:
        text = f"{window['column']} {window['start']}..{window['end']}"
    return f"{text} ({charge['account']})" if charge.get("account") else text


def _until(charge: Mapping[str, Any]) -> str:
    until = charge.get("counts_until")
    if until is None:
        return "always"
    return f"until {until[:10]}" if charge.get("counts") else "expired"


def _months(months: Sequence[Mapping[str, Any]], ledger: Mapping[str, Any]) -> list[str]:
    """Return a bar for the share of the budget of each month, and one for what is spent now."""
    if not months:
        return []
    bars = [(str(m["month"]), f"{m['releases']} released", float(m["share"])) for m in months]
    period = ledger.get("period")
    bars.append((f"last {period}" if period else "all", "spent", float(ledger["share_spent"])))
    lines = table(
        ("month", "", "share of the budget", ""),
        [(month, note, _bar(share), f"{share:.1%}") for month, note, share in bars],
    )
    return ["", *lines]


def _bar(share: float) -> str:
    filled = min(_BAR, round(share * _BAR))
    return "#" * filled + "." * (_BAR - filled)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
