"""``--storage-options FILE``: options of a store for the commands that read no specification.

A file and not a value, because every user of a machine sees the arguments of a command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

StorageOptions = Annotated[
    Path | None,
    typer.Option(
        "--storage-options",
        metavar="FILE",
        help="YAML file of fsspec options (credentials, endpoint) of the store. Never shown.",
    ),
]
OutputOptions = Annotated[
    Path | None,
    typer.Option(
        "--output-options",
        metavar="FILE",
        help="The same for the output, if its store is not the release's.",
    ),
]


def read_options(path: Path | None) -> dict[str, Any]:
    """Return the options in a YAML file; none without a file.

    Raises
    ------
    SpecError
        The file cannot be read or is no mapping; the message quotes nothing of it.
    """
    if path is None:
        return {}
    from dpgmm_dist.errors import SpecError
    from dpgmm_dist.spec import fields, yaml_file

    try:
        return fields.storage_options(yaml_file.parse(yaml_file.read_file(path), str(path)))
    except ValueError as problem:
        raise SpecError(f"{path}: {problem}") from None
