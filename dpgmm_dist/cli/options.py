"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dpgmm_dist.cli.log import LogFormat

ReleaseUrl = Annotated[
    str, typer.Argument(metavar="RELEASE", help="Directory or URL of a release.")
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, metavar="N", help="Worker processes on this machine."),
]
ElasticWorkers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="N",
        help="Worker processes on this machine; auto: as many as the work needs, up to the cores.",
    ),
]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", metavar="ADDRESS", help="A running Dask scheduler.")
]
SchedulerFile = Annotated[
    str | None,
    typer.Option("--scheduler-file", metavar="F", help="The scheduler file of a Dask cluster."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
Date = Annotated[
    str | None,
    typer.Option(
        "--date",
        metavar="DATE",
        help="The date for {date:%Y-%m} in ids, paths and windows, such as 2026-11-25.",
    ),
]
Log = Annotated[
    LogFormat,
    typer.Option(
        "--log-format",
        envvar="DPGMM_LOG_FORMAT",
        help="Format of stderr: text lines, or a JSON object per line.",
    ),
]
MetricsFile = Annotated[
    Path | None,
    typer.Option(
        "--metrics-file",
        metavar="FILE",
        help="Write progress to FILE in the Prometheus text format, such as .../dpgmm.prom.",
    ),
]
