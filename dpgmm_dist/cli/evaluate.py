"""``dpgmm evaluate``: a release compared with real rows, on the trusted side."""

from __future__ import annotations

from typing import Annotated

import typer

from dpgmm_dist.cli.options import Json, ReleaseUrl
from dpgmm_dist.cli.output import emit, guarded, warn

Data = Annotated[
    str,
    typer.Option("--data", metavar="URL", help="Real rows that the release did not use."),
]
Training = Annotated[
    str | None,
    typer.Option(
        "--training",
        metavar="URL",
        help="The rows that the release was made from, for comparison.",
    ),
]
Synthetic = Annotated[
    str | None,
    typer.Option("--synthetic", metavar="URL", help="Sampled rows. Default: draw new ones."),
]
Rows = Annotated[
    int | None,
    typer.Option(
        "--rows",
        min=1,
        metavar="N",
        help="The number of rows to draw. Default: the noisy row count of the release.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option("--output", metavar="URL", help="Directory for the table, JSON and plots."),
]
Public = Annotated[
    str | None,
    typer.Option(
        "--public", metavar="URL", help="Public items with embeddings: how many are used."
    ),
]
PublicEmbedding = Annotated[
    str | None,
    typer.Option("--public-embedding", metavar="C", help="Their column. Default: the only one."),
]
Pictures = Annotated[
    str | None,
    typer.Option(
        "--pictures", metavar="URL", help="Real pictures, for a page beside synthetic ones."
    ),
]
PictureColumn = Annotated[
    str | None,
    typer.Option("--picture-column", metavar="C", help="Their column. Default: the only one."),
]
Decoded = Annotated[
    str | None,
    typer.Option("--decoded", metavar="URL", help="Synthetic pictures: an output of dpgmm decode."),
]
Shape = Annotated[
    str | None,
    typer.Option("--shape", metavar="HxW[xC]", help="Size of these pictures."),
]
Epochs = Annotated[
    int,
    typer.Option("--epochs", min=1, metavar="N", help="Training epochs of the neural network."),
]
MaxRows = Annotated[
    int,
    typer.Option("--max-rows", min=1, metavar="N", help="Use at most N rows of each data set."),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, metavar="S", help="Seed of all random numbers.")
]


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(evaluate)


@guarded
def evaluate(
    release: ReleaseUrl,
    data: Data,
    training: Training = None,
    synthetic: Synthetic = None,
    rows: Rows = None,
    output: Output = None,
    public: Public = None,
    public_embedding: PublicEmbedding = None,
    pictures: Pictures = None,
    picture_column: PictureColumn = None,
    decoded: Decoded = None,
    shape: Shape = None,
    epochs: Epochs = 20,
    max_rows: MaxRows = 60_000,
    seed: Seed = 0,
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
