"""The commands from raw rows to synthetic ones: encode, sample, decode, evaluate."""

from __future__ import annotations

from typing import Annotated

import typer

from dpgmm_dist.cli.options import Json, ReleaseUrl, Scheduler, SchedulerFile, Workers
from dpgmm_dist.cli.output import emit, guarded, warn
from dpgmm_dist.cli.storage import OutputOptions, StorageOptions, read_options


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (encode, sample, decode, evaluate):
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
    residual: Annotated[
        bool,
        typer.Option(help="Whether directions that a projection left out vary too."),
    ] = True,
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
    storage_options: StorageOptions = None,
    output_options: OutputOptions = None,
) -> None:
    """Draw synthetic rows from a release, as Parquet in the input's columns and units."""
    from dpgmm_dist.artifact.sample import write_samples
    from dpgmm_dist.artifact.sample_options import SampleOptions, parse_label_rows
    from dpgmm_dist.cli.progress_bar import engine_for_tasks

    options = SampleOptions(
        label=label,
        label_rows=parse_label_rows(label_rows or ()),
        balanced=balanced,
        temperature=temperature,
        bounds=bounds,  # type: ignore[arg-type]  # checked there
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
    from dpgmm_dist.cli.progress_bar import show_progress
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


@guarded
def encode(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="Parquet of raw rows: file, directory or URL.")
    ],
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            metavar="E",
            help="pixels, scattering, onnx:PATH, projection:PATH or MODULE:NAME.",
        ),
    ],
    column: Annotated[
        str,
        typer.Option("--column", metavar="C", help="Raw column: text, pictures or numbers."),
    ],
    output: Annotated[
        str, typer.Option("--output", metavar="URL", help="Where part-*.parquet go.")
    ],
    shape: Annotated[
        str | None, typer.Option("--shape", metavar="HxW[xC]", help="Size of pictures.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="C", help="Other column to copy; all without. Repeatable."),
    ] = None,
    projection: Annotated[
        str | None,
        typer.Option("--projection", metavar="PATH", help="Public projection after it, .npz."),
    ] = None,
    project: Annotated[
        int | None,
        typer.Option("--project", min=1, metavar="N", help="To N principal axes of drawn shapes."),
    ] = None,
    save_projection: Annotated[
        str | None,
        typer.Option(
            "--save-projection", metavar="PATH", help="Where to keep what --project made."
        ),
    ] = None,
    unit_norm: Annotated[
        bool, typer.Option("--unit-norm", help="Scale embeddings to length 1.")
    ] = False,
    batch: Annotated[
        int,
        typer.Option(
            "--batch", min=1, metavar="N", help="Rows of every batch; 1 makes rows independent."
        ),
    ] = 64,
    workers: Workers = None,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    json_: Json = False,
) -> None:
    """Turn raw rows into embeddings, beside the rows. The output is as private as the input."""
    from dpgmm_dist.cli.progress_bar import engine_for_tasks
    from dpgmm_dist.encode.job import write_embeddings

    with engine_for_tasks("encode", workers, scheduler, scheduler_file) as (for_each, progress):
        written = write_embeddings(
            source,
            output,
            encoder=encoder,
            column=column,
            shape=shape,
            keep=tuple(keep) if keep else None,
            batch=batch,
            projection=projection,
            axes=project,
            save_projection=save_projection,
            unit_norm=unit_norm,
            progress=progress,
            for_each=for_each,
        )
    if not written["rows_are_independent"]:
        warn(
            "last bits of embeddings depend on which rows are encoded together: a release's "
            "guarantee will be for the embeddings, not for the raw rows; --batch 1 mends it"
        )
    emit(written, as_json=json_)


@guarded
def decode(
    source: Annotated[
        str, typer.Argument(metavar="ROWS", help="Sampled rows: Parquet file, directory or URL.")
    ],
    decoder: Annotated[
        str,
        typer.Option(
            "--decoder", metavar="D", help="pixels, projection:PATH, onnx:PATH or MODULE:NAME."
        ),
    ],
    shape: Annotated[str, typer.Option("--shape", metavar="HxW[xC]", help="Size of the pictures.")],
    output: Annotated[
        str, typer.Option("--output", metavar="URL", help="Where pictures and sheets go.")
    ],
    column: Annotated[
        str | None, typer.Option("--column", metavar="C", help="List column; the only one.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option("--label", metavar="C", help="Column for contact sheets; the only other."),
    ] = None,
    form: Annotated[str, typer.Option("--format", metavar="F", help="parquet or png.")] = "parquet",
    workers: Workers = None,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    json_: Json = False,
) -> None:
    """Turn sampled rows into pictures, with a contact sheet for each label."""
    from dpgmm_dist.cli.progress_bar import engine_for_tasks
    from dpgmm_dist.encode.decode_job import write_images

    with engine_for_tasks("decode", workers, scheduler, scheduler_file) as (for_each, progress):
        written = write_images(
            source,
            output,
            decoder=decoder,
            shape=shape,
            column=column,
            label=label,
            form=form,
            progress=progress,
            for_each=for_each,
        )
    emit(written, as_json=json_)
