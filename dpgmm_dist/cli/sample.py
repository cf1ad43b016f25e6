"""``dpgmm sample``: synthetic rows from a release."""

from __future__ import annotations

from typing import Annotated

import typer

from dpgmm_dist.cli.options import Json, ReleaseUrl, Scheduler, SchedulerFile, Workers
from dpgmm_dist.cli.output import emit, guarded
from dpgmm_dist.cli.storage import OutputOptions, StorageOptions, read_options

Output = Annotated[
    str, typer.Option("--output", metavar="URL", help="Directory for part-*.parquet.")
]
Rows = Annotated[int | None, typer.Option("--rows", min=1, metavar="N", help="The number of rows.")]
Label = Annotated[str | None, typer.Option("--label", metavar="L", help="Only rows of this label.")]
LabelRows = Annotated[
    list[str] | None,
    typer.Option(
        "--label-rows",
        metavar="L=N",
        help="Exactly N rows of label L; none of other labels. May be repeated.",
    ),
]
Balanced = Annotated[
    bool, typer.Option("--balanced", help="The same number of rows of every label.")
]
Temperature = Annotated[
    float,
    typer.Option("--temperature", metavar="T", help="Factor for standard deviations."),
]
Bounds = Annotated[
    str | None,
    typer.Option(
        "--bounds",
        metavar="HOW",
        help="Rows outside the public bounds: none (keep), reject (draw again), clip (move). "
        "By default clip for a table, none for embeddings.",
    ),
]
Residual = Annotated[
    bool,
    typer.Option(help="Whether to add variation in directions that a projection left out."),
]
Partitions = Annotated[
    int, typer.Option("--partitions", min=1, metavar="P", help="The number of files.")
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", min=0, metavar="S", help="Seed, to draw the same rows again."),
]


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(sample)


@guarded
def sample(
    release: ReleaseUrl,
    output: Output,
    rows: Rows = None,
    label: Label = None,
    label_rows: LabelRows = None,
    balanced: Balanced = False,
    temperature: Temperature = 1.0,
    bounds: Bounds = None,
    residual: Residual = True,
    partitions: Partitions = 1,
    seed: Seed = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    json_: Json = False,
    storage_options: StorageOptions = None,
    output_options: OutputOptions = None,
) -> None:
    """Draw synthetic rows from a release as Parquet, in the columns and units of the input."""
    from dpgmm_dist.artifact.sample import write_samples
    from dpgmm_dist.artifact.sample_options import SampleOptions, parse_label_rows
    from dpgmm_dist.cli.progress_bar import engine_for_tasks

    options = SampleOptions(
        label=label,
        label_rows=parse_label_rows(label_rows or ()),
        balanced=balanced,
        temperature=temperature,
        bounds=bounds,  # type: ignore[arg-type]  # SampleOptions checks it
        residual=residual,
    )
    with engine_for_tasks("sample", workers, scheduler, scheduler_file) as (for_each, progress):
        written = write_samples(
            release,
            rows,
            output,
            partitions=partitions,
            seed=seed,
            options=options,
            storage_options=read_options(storage_options),
            output_options=read_options(output_options or storage_options),
            progress=progress,
            for_each=for_each,
        )
    emit(written, as_json=json_)
