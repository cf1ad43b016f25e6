"""``--storage-options FILE``: options of a store, for commands that read no specification.

The options are in a file because every user of a machine can see the arguments of a command.
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
        help="YAML file with fsspec options of the store (credentials, endpoint). Never shown.",
    ),
]
OutputOptions = Annotated[
    Path | None,
    typer.Option(
        "--output-options",
        metavar="FILE",
        help="The same for the output. Default: --storage-options.",
    ),
]

LedgerOptions = Annotated[
    Path | None,
    typer.Option("--ledger-options", metavar="FILE", help="The same for the ledger."),
]


def read_options(path: Path | None) -> dict[str, Any]:
    """Return the options of a YAML file, or an empty mapping if there is no file.

    Raises
    ------
    SpecError
        The file cannot be read, or is not a mapping. The message does not quote it.
    """
    if path is None:
        return {}
    from dpgmm_dist.errors import SpecError
    from dpgmm_dist.spec import fields, yaml_file

    try:
        return fields.storage_options(yaml_file.parse(yaml_file.read_file(path), str(path)))
    except ValueError as problem:
        raise SpecError(f"{path}: {problem}") from None
