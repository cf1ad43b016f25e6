"""The commands that lead from raw to synthetic rows: encode, sample, decode, evaluate."""

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
        str, typer.Option("--output", metavar="URL", help="Directory for part-*.parquet.")
    ],
    rows: Annotated[
        int | None, typer.Option("--rows", min=1, metavar="N", help="The number of rows.")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", metavar="L", help="Only rows of this label.")
    ] = None,
    label_rows: Annotated[
        list[str] | None,
        typer.Option(
            "--label-rows",
            metavar="L=N",
            help="Exactly N rows of label L; none of other labels. May be repeated.",
        ),
    ] = None,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="The same number of rows of every label.")
    ] = False,
    temperature: Annotated[
        float,
        typer.Option("--temperature", metavar="T", help="Factor for standard deviations."),
    ] = 1.0,
    bounds: Annotated[
        str | None,
        typer.Option(
            "--bounds",
            metavar="HOW",
            help="Rows outside the public bounds: none (keep), reject (draw again), clip (move). "
            "By default clip for a table, none for embeddings.",
        ),
    ] = None,
    residual: Annotated[
        bool,
        typer.Option(help="Whether to add variation in directions that a projection left out."),
    ] = True,
    partitions: Annotated[
        int, typer.Option("--partitions", min=1, metavar="P", help="The number of files.")
    ] = 1,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, metavar="S", help="Seed, to draw the same rows again."),
    ] = None,
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


@guarded
def evaluate(
    release: ReleaseUrl,
    data: Annotated[
        str,
        typer.Option("--data", metavar="URL", help="Real rows that the release did not use."),
    ],
    training: Annotated[
        str | None,
        typer.Option(
            "--training",
            metavar="URL",
            help="The rows that the release was made from, for comparison.",
        ),
    ] = None,
    synthetic: Annotated[
        str | None,
        typer.Option("--synthetic", metavar="URL", help="Sampled rows. Default: draw new ones."),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            "--rows",
            min=1,
            metavar="N",
            help="The number of rows to draw. Default: the noisy row count of the release.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="URL", help="Directory for the table, JSON and plots."),
    ] = None,
    public: Annotated[
        str | None,
        typer.Option(
            "--public", metavar="URL", help="Public items with embeddings: how many are used."
        ),
    ] = None,
    public_embedding: Annotated[
        str | None,
        typer.Option(
            "--public-embedding", metavar="C", help="Their column. Default: the only one."
        ),
    ] = None,
    pictures: Annotated[
        str | None,
        typer.Option(
            "--pictures", metavar="URL", help="Real pictures, for a page beside synthetic ones."
        ),
    ] = None,
    picture_column: Annotated[
        str | None,
        typer.Option("--picture-column", metavar="C", help="Their column. Default: the only one."),
    ] = None,
    decoded: Annotated[
        str | None,
        typer.Option(
            "--decoded", metavar="URL", help="Synthetic pictures: an output of dpgmm decode."
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option("--shape", metavar="HxW[xC]", help="Size of these pictures."),
    ] = None,
    epochs: Annotated[
        int,
        typer.Option("--epochs", min=1, metavar="N", help="Training epochs of the neural network."),
    ] = 20,
    max_rows: Annotated[
        int,
        typer.Option("--max-rows", min=1, metavar="N", help="Use at most N rows of each data set."),
    ] = 60_000,
    seed: Annotated[
        int, typer.Option("--seed", min=0, metavar="S", help="Seed of all random numbers.")
    ] = 0,
    json_: Json = False,
) -> None:
    """Compare a release with real rows, on the trusted side. The output is NOT PRIVATE."""
    from dpgmm_dist.cli.progress_bar import show_progress
    from dpgmm_dist.evaluate import evaluate as run
    from dpgmm_dist.evaluate.evaluation import WARNING
    from dpgmm_dist.evaluate.pictures import page_of
    from dpgmm_dist.evaluate.show import table, write_evaluation
    from dpgmm_dist.progress import PassProgress

    page = page_of(release, pictures, decoded, shape, picture_column, output)
    with show_progress() as progress:
        evaluation = run(
            release,
            data,
            training,
            synthetic=synthetic,
            rows=rows,
            max_rows=max_rows,
            epochs=epochs,
            seed=seed,
            public=public,
            public_embedding=public_embedding,
            progress=lambda done: progress(PassProgress("evaluate", 1, 1, done)),
        )
    if output is not None:
        write_evaluation(evaluation, output, page=page)
    if json_:
        warn(WARNING)
        emit(evaluation.values, as_json=True)
    else:
        typer.echo(table(evaluation))


@guarded
def encode(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="Raw rows: a Parquet file, directory or URL.")
    ],
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            metavar="E",
            help="pixels, scattering, onnx:PATH, sentence-transformers:PATH, transformers:PATH, "
            "timm:NAME, projection:PATH or MODULE:NAME.",
        ),
    ],
    column: Annotated[
        str,
        typer.Option(
            "--column", metavar="C", help="The column to encode: text, pictures or numbers."
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", metavar="URL", help="Directory for part-*.parquet.")
    ],
    shape: Annotated[
        str | None, typer.Option("--shape", metavar="HxW[xC]", help="Size of the pictures.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="C",
            help="A column to copy; may be repeated. Default: all but the encoded one.",
        ),
    ] = None,
    projection: Annotated[
        str | None,
        typer.Option(
            "--projection",
            metavar="PATH",
            help="Public projection to apply to the embeddings, .npz.",
        ),
    ] = None,
    project: Annotated[
        int | None,
        typer.Option(
            "--project", min=1, metavar="N", help="Project on N principal axes of drawn shapes."
        ),
    ] = None,
    save_projection: Annotated[
        str | None,
        typer.Option(
            "--save-projection", metavar="PATH", help="Where to save the projection of --project."
        ),
    ] = None,
    unit_norm: Annotated[
        bool, typer.Option("--unit-norm", help="Scale embeddings to length 1.")
    ] = False,
    batch: Annotated[
        int,
        typer.Option(
            "--batch", min=1, metavar="N", help="Rows per batch; 1 makes rows independent."
        ),
    ] = 64,
    resize: Annotated[
        str | None,
        typer.Option(
            "--resize", metavar="N|HxW", help="Resize pictures: the shorter side, or both sides."
        ),
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option("--crop", metavar="N|HxW", help="Then cut out the centre of pictures."),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option("--mean", metavar="R,G,B", help="Subtract from pixels in [0, 1]."),
    ] = None,
    std: Annotated[
        str | None, typer.Option("--std", metavar="R,G,B", help="Then divide by this.")
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option("--channels", metavar="rgb|bgr", help="Order of the model's channels."),
    ] = None,
    interpolation: Annotated[
        str | None,
        typer.Option(
            "--interpolation", metavar="I", help="Of --resize: bilinear, bicubic, lanczos, ..."
        ),
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option("--pooling", metavar="mean|first", help="The tokens that make an embedding."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", metavar="N", help="Tokens that are kept of a text."),
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    json_: Json = False,
) -> None:
    """Turn raw rows into embeddings. The output is as sensitive as the input.

    How a model wants its pictures or texts is read from the files beside it
    (preprocessor_config.json, tokenizer.json); options change it.
    """
    from dpgmm_dist.cli.progress_bar import engine_for_tasks
    from dpgmm_dist.encode.job import write_embeddings
    from dpgmm_dist.encode.options import EncoderOptions

    options = EncoderOptions(
        resize=resize,
        crop=crop,
        mean=mean,
        std=std,
        channels=channels,
        interpolation=interpolation,
        pooling=pooling,
        max_tokens=max_tokens,
    )
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
            options=options,
            progress=progress,
            for_each=for_each,
        )
    if not written["rows_are_independent"]:
        warn(
            "the last bits of an embedding depend on the rows that are encoded with it: the "
            "guarantee of a release is for the embeddings, not for the raw rows; --batch 1 fixes it"
        )
    emit(written, as_json=json_)


@guarded
def decode(
    source: Annotated[
        str, typer.Argument(metavar="ROWS", help="Sampled rows: a Parquet file, directory or URL.")
    ],
    decoder: Annotated[
        str,
        typer.Option(
            "--decoder",
            metavar="D",
            help="pixels, projection:PATH, nearest:PUBLIC, fit:PUBLIC, learned:PATH, onnx:PATH or "
            "MODULE:NAME.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option("--output", metavar="URL", help="Directory for pictures and contact sheets."),
    ],
    shape: Annotated[
        str | None,
        typer.Option("--shape", metavar="HxW[xC]", help="Size of the pictures; none for texts."),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option("--column", metavar="C", help="The list column. Default: the only one."),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--label", metavar="C", help="The column of labels. Default: the only other column."
        ),
    ] = None,
    form: Annotated[str, typer.Option("--format", metavar="F", help="parquet or png.")] = "parquet",
    repeat: Annotated[
        int | None,
        typer.Option(
            "--repeat", min=1, metavar="N", help="nearest: use each public item at most N times."
        ),
    ] = None,
    public_item: Annotated[
        str | None,
        typer.Option(
            "--public-item",
            metavar="C",
            help="The column of public texts or pictures. Default: the only one.",
        ),
    ] = None,
    public_embedding: Annotated[
        str | None,
        typer.Option(
            "--public-embedding",
            metavar="C",
            help="The column of their embeddings. Default: the only one.",
        ),
    ] = None,
    public_label: Annotated[
        str | None,
        typer.Option(
            "--public-label",
            metavar="C",
            help="nearest: the column of their labels, to use only items of a row's own label.",
        ),
    ] = None,
    fit: Annotated[
        str, typer.Option("--fit", metavar="HOW", help="fit: ridge, or network (needs torch).")
    ] = "ridge",
    save_decoder: Annotated[
        str | None,
        typer.Option(
            "--save-decoder", metavar="PATH", help="fit: where to keep it, for learned:PATH."
        ),
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    json_: Json = False,
) -> None:
    """Turn sampled rows into pictures or texts, with a contact sheet for each label and a map.

    PUBLIC is Parquet with raw items and their embeddings (`dpgmm encode --keep`), of people who
    agreed to publish them: never rows of the release. No decoder costs privacy.
    """
    from dpgmm_dist.cli.progress_bar import engine_for_tasks
    from dpgmm_dist.encode.decode_job import write_images
    from dpgmm_dist.encode.decoder_recipe import DecodeOptions
    from dpgmm_dist.encode.public_items import PublicColumns

    public = PublicColumns(public_item, public_embedding, public_label)
    with engine_for_tasks("decode", workers, scheduler, scheduler_file) as (for_each, progress):
        written = write_images(
            source,
            output,
            decoder=decoder,
            shape=shape,
            column=column,
            label=label,
            form=form,
            options=DecodeOptions(repeat, public, fit, save_decoder),
            progress=progress,
            for_each=for_each,
        )
    emit(written, as_json=json_)
