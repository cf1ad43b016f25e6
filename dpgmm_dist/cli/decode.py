"""``dpgmm decode``: sampled rows to pictures or texts, after a release."""

from __future__ import annotations

from typing import Annotated

import typer

from dpgmm_dist.cli.options import Json, Scheduler, SchedulerFile, Workers
from dpgmm_dist.cli.output import emit, guarded

Input = Annotated[
    str, typer.Argument(metavar="ROWS", help="Sampled rows: a Parquet file, directory or URL.")
]
Decoder = Annotated[
    str,
    typer.Option(
        "--decoder",
        metavar="D",
        help="pixels, projection:PATH, nearest:PUBLIC, fit:PUBLIC, learned:PATH, onnx:PATH or "
        "MODULE:NAME.",
    ),
]
Output = Annotated[
    str,
    typer.Option("--output", metavar="URL", help="Directory for pictures and contact sheets."),
]
Shape = Annotated[
    str | None,
    typer.Option("--shape", metavar="HxW[xC]", help="Size of the pictures; none for texts."),
]
Column = Annotated[
    str | None,
    typer.Option("--column", metavar="C", help="The list column. Default: the only one."),
]
Label = Annotated[
    str | None,
    typer.Option(
        "--label", metavar="C", help="The column of labels. Default: the only other column."
    ),
]
Format = Annotated[str, typer.Option("--format", metavar="F", help="parquet or png.")]
Repeat = Annotated[
    int | None,
    typer.Option(
        "--repeat", min=1, metavar="N", help="nearest: use each public item at most N times."
    ),
]
PublicItem = Annotated[
    str | None,
    typer.Option(
        "--public-item",
        metavar="C",
        help="The column of public texts or pictures. Default: the only one.",
    ),
]
PublicEmbedding = Annotated[
    str | None,
    typer.Option(
        "--public-embedding",
        metavar="C",
        help="The column of their embeddings. Default: the only one.",
    ),
]
PublicLabel = Annotated[
    str | None,
    typer.Option(
        "--public-label",
        metavar="C",
        help="nearest: the column of their labels, to use only items of a row's own label.",
    ),
]
Fit = Annotated[
    str, typer.Option("--fit", metavar="HOW", help="fit: ridge, or network (needs torch).")
]
SaveDecoder = Annotated[
    str | None,
    typer.Option("--save-decoder", metavar="PATH", help="fit: where to keep it, for learned:PATH."),
]


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(decode)


@guarded
def decode(
    source: Input,
    decoder: Decoder,
    output: Output,
    shape: Shape = None,
    column: Column = None,
    label: Label = None,
    form: Format = "parquet",
    repeat: Repeat = None,
    public_item: PublicItem = None,
    public_embedding: PublicEmbedding = None,
    public_label: PublicLabel = None,
    fit: Fit = "ridge",
    save_decoder: SaveDecoder = None,
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
