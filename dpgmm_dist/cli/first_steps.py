"""The commands for a first start: init writes a specification, doctor checks the installation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpgmm_dist.cli.options import Json, Scheduler, SchedulerFile, Workers
from dpgmm_dist.cli.output import emit, fail, guarded
from dpgmm_dist.cli.storage import StorageOptions, read_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dpgmm_dist.pipeline.first_spec import Answers, PublicColumn

Column = Annotated[
    list[str] | None,
    typer.Option("--features", metavar="COLUMN", help="A feature column. May be repeated."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (init, doctor):
        app.command()(command)


@guarded
def init(
    data: Annotated[str, typer.Argument(metavar="DATA", help="File, directory or URL of Parquet.")],
    spec: Annotated[
        Path | None, typer.Option("--spec", metavar="FILE", help="File to write. Default: stdout.")
    ] = None,
    features: Column = None,
    label: Annotated[
        str | None, typer.Option("--label", metavar="COLUMN", help="The label column.")
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--labels", metavar="VALUE", help="A public value of it. May be repeated."),
    ] = None,
    unit: Annotated[
        str | None, typer.Option("--unit", metavar="COLUMN", help="The column that names people.")
    ] = None,
    ask: Annotated[
        bool | None,
        typer.Option("--ask/--no-ask", help="Ask for what is open. By default in a terminal."),
    ] = None,
    storage_options: StorageOptions = None,
) -> None:
    """Write a commented specification from the schema of a data set. Reads no row."""
    from dpgmm_dist.errors import SpecError
    from dpgmm_dist.pipeline.first_spec import Answers, draft, schema_of, suggested_features

    if spec is not None and spec.exists():
        raise SpecError(f"--spec {spec} exists already: remove it, or name another file")
    columns = schema_of(data, read_options(storage_options))
    answers = Answers(
        features=tuple(features or suggested_features(columns, (label, unit))),
        label=label,
        labels=tuple(labels or ()),
        unit=unit,
    )
    if ask or (ask is None and sys.stdin.isatty() and sys.stderr.isatty()):
        answers = _asked(columns, answers)
    text = draft(data, columns, answers)
    if spec is None:
        typer.echo(text, nl=False)
        return
    spec.write_text(text, encoding="utf-8")
    emit({"specification": str(spec), "next": f"dpgmm plan {spec} --rows N"}, as_json=False)


def _asked(columns: Sequence[PublicColumn], given: Answers) -> Answers:
    """The answers of a person; an empty one leaves a line open."""
    from dpgmm_dist.pipeline.first_spec import Answers

    typer.echo("Columns: " + ", ".join(f"{c.name} ({c.type})" for c in columns), err=True)

    def ask(question: str, default: str) -> str:
        return str(typer.prompt(question, default=default, show_default=bool(default), err=True))

    label = ask("Label column, if any", given.label or "") or None
    labels: tuple[str, ...] = ()
    if label:
        labels = _list_of(ask("Its public values, with commas", ", ".join(given.labels)))
    unit = ask("Column that names a person, if one has several rows", given.unit or "") or None
    suggested = tuple(name for name in given.features if name not in (label, unit))
    return Answers(
        features=_list_of(ask("Feature columns, with commas", ", ".join(suggested))),
        label=label,
        labels=labels,
        unit=unit,
        epsilon=_number(ask("epsilon", f"{given.epsilon:g}"), "epsilon"),
        delta=_number(ask("delta", f"{given.delta:g}"), "delta"),
        ledger=ask("Ledger, a directory or URL", given.ledger),
        output=ask("Where the release goes", given.output),
    )


def _list_of(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _number(text: str, name: str) -> float:
    from dpgmm_dist.errors import SpecError

    try:
        return float(text)
    except ValueError:
        raise SpecError(f"{name}: got {text!r}, which is not a number") from None


@guarded
def doctor(
    store: Annotated[
        list[str] | None,
        typer.Option("--store", metavar="URL", help="A ledger's or release's store to try."),
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    json_: Json = False,
    storage_options: StorageOptions = None,
) -> None:
    """Check versions and, if they are named, a store and a cluster. Exit code 0, 1, 4 or 5."""
    from dpgmm_dist.errors import DpgmmError
    from dpgmm_dist.pipeline import doctor as checks

    findings = list(checks.installation())
    for url in store or ():
        findings.append(checks.store(url, read_options(storage_options)))
    if workers or scheduler or scheduler_file:
        findings.append(checks.cluster(workers, scheduler, scheduler_file))
    failed = [finding for finding in findings if not finding.ok]
    if json_:
        shown = [{"check": f.check, "ok": f.ok, "found": f.found} for f in findings]
        emit({"ok": not failed, "checks": shown}, as_json=True)
    else:
        for finding in findings:
            typer.echo(f"{'ok  ' if finding.ok else 'FAIL'} {finding.check}: {finding.found}")
    if failed:
        error = DpgmmError(f"{len(failed)} of {len(findings)} checks failed")
        error.exit_code = failed[0].exit_code or 1
        fail(error)
