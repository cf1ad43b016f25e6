"""``dpgmm audit``: try to refute the guarantee of a specification."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dpgmm_dist.cli.options import Date, Json, Scheduler, SchedulerFile, Workers
from dpgmm_dist.cli.output import emit, guarded

Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="Specification, a YAML file.")]
Draws = Annotated[
    int | None,
    typer.Option(
        "--draws",
        min=100,
        metavar="N",
        help="Answers about each data set; by default what this epsilon needs.",
    ),
]
Reruns = Annotated[
    int,
    typer.Option("--reruns", min=0, metavar="N", help="Also repeat N whole runs per data set."),
]
Rows = Annotated[
    int,
    typer.Option(
        "--rows", min=1, metavar="N", help="Made-up rows. With 100, whole runs are quicker."
    ),
]
Confidence = Annotated[
    float, typer.Option("--confidence", metavar="P", help="Confidence of each bound, such as 0.95.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key. May be repeated."),
]
Scratch = Annotated[
    str | None,
    typer.Option("--scratch", metavar="URL", help="As in release, for privacy units."),
]


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(audit)


@guarded
def audit(
    spec: Spec,
    draws: Draws = None,
    reruns: Reruns = 0,
    rows: Rows = 400,
    confidence: Confidence = 0.95,
    set_: Set = None,
    date: Date = None,
    json_: Json = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    scratch: Scratch = None,
) -> None:
    """Bound epsilon from below, on made-up rows: nothing is charged and no row of yours is read.

    Exit code 0 where the guarantee stands, 6 where the audit refutes it.
    """
    from dpgmm_dist.spec.release_spec import ReleaseSpec

    parsed = ReleaseSpec.from_yaml(spec, overrides=set_ or (), date=date)
    from dpgmm_dist.audit.result import render
    from dpgmm_dist.audit.run import audit as run
    from dpgmm_dist.cli.progress_bar import show_progress
    from dpgmm_dist.cores import cores
    from dpgmm_dist.engine import open_engine
    from dpgmm_dist.errors import NotPrivateError
    from dpgmm_dist.pipeline.resolve import cluster_config
    from dpgmm_dist.progress import PassProgress

    cluster = cluster_config(parsed.cluster)
    flags = (workers, scheduler, scheduler_file)
    in_threads = all(flag is None for flag in flags) and cluster.kind == "threads"
    with open_engine(workers, scheduler, scheduler_file, cluster) as engine, show_progress() as bar:
        found = run(
            parsed,
            draws=draws,
            reruns=reruns,
            confidence=confidence,
            rows=rows,
            engine=None if in_threads else engine,
            processes=cores(),
            scratch=scratch,
            progress=lambda what, fraction: bar(PassProgress(what, 1, 1, fraction)),
        )
    if json_:
        emit(found.to_dict(), as_json=True)
    else:
        typer.echo(render(found))
    if found.refuted:
        raise NotPrivateError("the audit refutes the guarantee:\n" + "\n".join(found.refuted))
