"""Where embeddings come from: what ``encode`` records and a release repeats in its receipt.

The record is stored in the metadata of the Parquet files, which is public like the rest of their
schema. Metadata that is not exactly of the recorded form is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dpgmm_dist import json_bytes

METADATA_KEY = "dpgmm.encoder"
_DIGEST = re.compile("[0-9a-f]{64}")
_MOST_NAME = 200

FOR_RAW_ROWS = (
    "for the raw rows that were encoded: on the encoding machines each embedding is a function of "
    "its own row, as far as tests show"
)
BY_CONSTRUCTION = (
    "for the raw rows that were encoded: each was encoded in a batch of its own, so an embedding "
    "is a function of its own row"
)
FOR_EMBEDDINGS = (
    "for the embeddings alone: the encoder's last bits depend on which rows are encoded together"
)


@dataclass(frozen=True)
class Provenance:
    """The encoder of a column of embeddings."""

    name: str
    digest: str
    """SHA-256 of the model file or code, with all settings."""
    batch: int
    """Rows of every batch."""
    rows_are_independent: bool
    """Whether each embedding is a function of its own row: tested to the bit on public rows."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    def guarantee(self) -> str:
        """Say for which rows a release of the embeddings gives its guarantee."""
        if not self.rows_are_independent:
            return FOR_EMBEDDINGS
        return BY_CONSTRUCTION if self.batch == 1 else FOR_RAW_ROWS


def from_metadata(metadata: Mapping[bytes, bytes] | None) -> Provenance | None:
    """Return what ``encode`` wrote; None where the metadata are missing or of another form."""
    data = (metadata or {}).get(METADATA_KEY.encode())
    if data is None:
        return None
    try:
        value = json_bytes.parse(data)
        found = Provenance(**{key: value[key] for key in Provenance.__dataclass_fields__})
    except (ValueError, KeyError, TypeError):
        return None
    good = (
        isinstance(found.name, str)
        and found.name.isprintable()
        and 0 < len(found.name) <= _MOST_NAME
        and isinstance(found.digest, str)
        and _DIGEST.fullmatch(found.digest)
        and type(found.batch) is int
        and type(found.rows_are_independent) is bool
    )
    return found if good else None
