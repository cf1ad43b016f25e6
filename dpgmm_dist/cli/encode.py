"""``dpgmm encode``: raw rows to embeddings, before a release."""

from __future__ import annotations

from typing import Annotated

import typer

from dpgmm_dist.cli.options import Json, Scheduler, SchedulerFile, Workers
from dpgmm_dist.cli.output import emit, guarded, warn

Input = Annotated[
    str, typer.Argument(metavar="INPUT", help="Raw rows: a Parquet file, directory or URL.")
]
Encoder = Annotated[
    str,
    typer.Option(
        "--encoder",
        metavar="E",
        help="pixels, scattering, onnx:PATH, sentence-transformers:PATH, transformers:PATH, "
        "timm:NAME, projection:PATH or MODULE:NAME.",
    ),
]
Column = Annotated[
    str,
    typer.Option("--column", metavar="C", help="The column to encode: text, pictures or numbers."),
]
Output = Annotated[
    str, typer.Option("--output", metavar="URL", help="Directory for part-*.parquet.")
]
Shape = Annotated[
    str | None, typer.Option("--shape", metavar="HxW[xC]", help="Size of the pictures.")
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        metavar="C",
        help="A column to copy; may be repeated. Default: all but the encoded one.",
    ),
]
Projection = Annotated[
    str | None,
    typer.Option(
        "--projection",
        metavar="PATH",
        help="Public projection to apply to the embeddings, .npz.",
    ),
]
Project = Annotated[
    int | None,
    typer.Option(
        "--project", min=1, metavar="N", help="Project on N principal axes of artificial shapes."
    ),
]
SaveProjection = Annotated[
    str | None,
    typer.Option(
        "--save-projection", metavar="PATH", help="Where to save the projection of --project."
    ),
]
UnitNorm = Annotated[bool, typer.Option("--unit-norm", help="Scale embeddings to length 1.")]
Batch = Annotated[
    int,
    typer.Option("--batch", min=1, metavar="N", help="Rows per batch; 1 makes rows independent."),
]
Resize = Annotated[
    str | None,
    typer.Option(
        "--resize", metavar="N|HxW", help="Resize pictures: the shorter side, or both sides."
    ),
]
Crop = Annotated[
    str | None,
    typer.Option("--crop", metavar="N|HxW", help="Then cut out the centre of pictures."),
]
Mean = Annotated[
    str | None,
    typer.Option("--mean", metavar="R,G,B", help="Subtract from pixels in [0, 1]."),
]
Std = Annotated[str | None, typer.Option("--std", metavar="R,G,B", help="Then divide by these.")]
Channels = Annotated[
    str | None,
    typer.Option("--channels", metavar="rgb|bgr", help="Order of the model's channels."),
]
Interpolation = Annotated[
    str | None,
    typer.Option(
        "--interpolation", metavar="I", help="Method of --resize: bilinear, bicubic, lanczos, ..."
    ),
]
Pooling = Annotated[
    str | None,
    typer.Option("--pooling", metavar="mean|first", help="The tokens that make an embedding."),
]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", metavar="N", help="Tokens that are kept of a text."),
]

_ROWS_DEPEND = (
    "the last bits of an embedding depend on the rows that are encoded with it: the guarantee of a "
    "release is for the embeddings, not for the raw rows; --batch 1 fixes it"
)


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(encode)


@guarded
def encode(
    source: Input,
    encoder: Encoder,
    column: Column,
    output: Output,
    shape: Shape = None,
    keep: Keep = None,
    projection: Projection = None,
    project: Project = None,
    save_projection: SaveProjection = None,
    unit_norm: UnitNorm = False,
    batch: Batch = 64,
    resize: Resize = None,
    crop: Crop = None,
    mean: Mean = None,
    std: Std = None,
    channels: Channels = None,
    interpolation: Interpolation = None,
    pooling: Pooling = None,
    max_tokens: MaxTokens = None,
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
        resize, crop, mean, std, channels, interpolation, pooling, max_tokens=max_tokens
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
        warn(_ROWS_DEPEND)
    emit(written, as_json=json_)
