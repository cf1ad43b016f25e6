"""``dpgmm runs``: the records of the runs that a ledger's store keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from dpgmm_dist.cli.ledger import LedgerUrl
from dpgmm_dist.cli.options import Json
from dpgmm_dist.cli.output import emit, guarded, table
from dpgmm_dist.cli.storage import StorageOptions, read_options

_LAST = 20
_HEAD = ("started", "release", "run", "engine", "outcome", "passes", "wall", "processor", "tasks")
_RESOURCES = ("data", "retries", "stalls", "worker peak", "driver peak")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("runs")(runs)


@guarded
def runs(
    url: LedgerUrl,
    last: Annotated[
        int, typer.Option("--last", min=1, metavar="N", help="Number of runs to list.")
    ] = _LAST,
    json_: Json = False,
    storage_options: StorageOptions = None,
) -> None:
    """List the runs of a ledger's releases: time, memory and work. For the trusted side."""
    from dpgmm_dist.budget.ledger import Ledger
    from dpgmm_dist.budget.runs import runs as read_runs

    ledger = Ledger.open(url, read_options(storage_options))
    found = read_runs(ledger.store, last)
    if json_:
        emit({"trusted_side": True, "ledger": ledger.url, "runs": found}, as_json=True)
        return
    typer.echo("TRUSTED SIDE, not for publication: times, tasks and sizes depend on the rows")
    damaged = [record["url"] for record in found if "problem" in record]
    rows = [_row(record) for record in found if "problem" not in record]
    for line in table((*_HEAD, *_RESOURCES), rows) if rows else ["runs: none"]:
        typer.echo(line)
    for place in damaged:
        typer.echo(f"damaged: {place}; it may be deleted")


def _row(record: Mapping[str, Any]) -> tuple[str, ...]:
    passes = record["passes"]
    replayed = record.get("passes_replayed", 0)

    def total(key: str) -> Any:
        return sum(pass_.get(key, 0) for pass_ in passes)

    worker = max((pass_.get("worker_peak_bytes", 0) for pass_ in passes), default=0)
    return (
        str(record.get("started", ""))[:16].replace("T", " "),
        str(record.get("release_id", "")),
        str(record.get("run", "")),
        str(record.get("engine", "")),
        str(record.get("outcome", "")),
        f"{len(passes)}+{replayed} replayed" if replayed else str(len(passes)),
        f"{record.get('wall_seconds', 0):.1f} s",
        f"{total('processor_seconds'):.1f} s",
        str(total("tasks")),
        _size(total("bytes")),
        str(total("retries")),
        str(total("stalls")),
        _size(worker),
        _size(record.get("driver_peak_bytes", 0)),
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 1 << 30 else f"{count / 2**20:.0f} MiB"
