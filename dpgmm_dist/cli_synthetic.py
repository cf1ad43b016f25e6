"""The commands from data to synthetic data and back: sample, evaluate."""

from __future__ import annotations

from typing import Annotated

import typer

from dpgmm_dist.cli_options import Json, ReleaseUrl, Scheduler, SchedulerFile, Workers
from dpgmm_dist.cli_output import emit, guarded, warn


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (sample, evaluate):
        app.command()(command)


@guarded
def sample(
    release: ReleaseUrl,
    output: Annotated[
        str, typer.Option("--output", metavar="URL", help="Where part-*.parquet go.")
    ],
    rows: Annotated[
        int | None, typer.Option("--rows", min=1, metavar="N", help="How many rows.")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", metavar="L", help="Rows of this label only.")
    ] = None,
    label_rows: Annotated[
        list[str] | None,
        typer.Option(
            "--label-rows",
            metavar="L=N",
            help="Exactly N rows of label L, none of those not named. May be repeated.",
        ),
    ] = None,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="As many rows of every label.")
    ] = False,
    temperature: Annotated[
        float,
        typer.Option("--temperature", metavar="T", help="Factor on standard deviations."),
    ] = 1.0,
    bounds: Annotated[
        str,
        typer.Option(
            "--bounds",
            metavar="HOW",
            help="Rows outside the public bounds: none (leave), reject (draw again), clip (move).",
        ),
    ] = "none",
    partitions: Annotated[
        int, typer.Option("--partitions", min=1, metavar="P", help="How many files.")
    ] = 1,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, metavar="S", help="For the same rows again.")
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    json_: Json = False,
) -> None:
    """Draw synthetic rows from a release, as Parquet in the input's columns and units."""
    from dpgmm_dist.artifact.sample import write_samples
    from dpgmm_dist.artifact.sample_options import SampleOptions, parse_label_rows
    from dpgmm_dist.cli_progress import engine_for_tasks

    options = SampleOptions(
        label=label,
        label_rows=parse_label_rows(label_rows or ()),
        balanced=balanced,
        temperature=temperature,
        bounds=bounds,  # type: ignore[arg-type]  # checked there
    )
    with engine_for_tasks("sample", workers, scheduler, scheduler_file) as (for_each, progress):
        written = write_samples(
            release,
            rows,
            output,
            partitions=partitions,
            seed=seed,
            options=options,
            progress=progress,
            for_each=for_each,
        )
    emit(written, as_json=json_)


@guarded
def evaluate(
    release: ReleaseUrl,
    data: Annotated[
        str,
        typer.Option("--data", metavar="URL", help="Real rows that had no part in the release."),
    ],
    training: Annotated[
        str | None,
        typer.Option(
            "--training", metavar="URL", help="The rows it was made from, to compare with."
        ),
    ] = None,
    synthetic: Annotated[
        str | None,
        typer.Option("--synthetic", metavar="URL", help="Sampled rows; drawn anew without."),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option("--rows", min=1, metavar="N", help="Rows to draw; as many as there were."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="URL", help="Folder for table, JSON and plots."),
    ] = None,
    epochs: Annotated[
        int, typer.Option("--epochs", min=1, metavar="N", help="Epochs of the network.")
    ] = 20,
    max_rows: Annotated[
        int, typer.Option("--max-rows", min=1, metavar="N", help="Use a part of larger sets.")
    ] = 60_000,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="S", help="Of all draws.")] = 0,
    json_: Json = False,
) -> None:
    """Measure a release against real rows (trusted side). The output is NOT PRIVATE."""
    from dpgmm_dist.cli_progress import show_progress
    from dpgmm_dist.evaluate import evaluate as run
    from dpgmm_dist.evaluate.evaluation import WARNING
    from dpgmm_dist.evaluate.show import table, write_evaluation
    from dpgmm_dist.progress import PassProgress

    with show_progress() as progress:
        found = run(
            release,
            data,
            training,
            synthetic=synthetic,
            rows=rows,
            max_rows=max_rows,
            epochs=epochs,
            seed=seed,
            progress=lambda done: progress(PassProgress("evaluate", 1, 1, done)),
        )
    if output is not None:
        write_evaluation(found, output)
    if json_:
        warn(WARNING)
        emit(found.values, as_json=True)
    else:
        typer.echo(table(found))
