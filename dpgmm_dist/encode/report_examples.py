"""Examples for the report of a release: a few sampled rows of each label, decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.artifact.load import Release
from dpgmm_dist.artifact.report.examples import Examples
from dpgmm_dist.encode.contact_sheets import SIDE, contact_sheet, png
from dpgmm_dist.encode.decoder_recipe import DecodeOptions, decode_rows, prepared
from dpgmm_dist.encode.protocol import parse_shape

_MOST_LABELS = 24
_MOST_TEXT = 300
"""Characters of a text that are shown."""
_TEXTS = 5
"""Texts of a label that are shown."""


def report_examples(
    release: Release, decoder: str, shape: str | None = None, seed: int = 0
) -> Examples:
    """Ten decoded rows of each of the first labels, or of all rows without labels.

    Parameters
    ----------
    release : an embedding of pictures or texts, or pixels.
    decoder, shape : as for `dpgmm_dist.encode.decode_job.write_images`.
    seed : of the sampled rows.

    Raises
    ------
    SpecError
        When there is no such decoder, or it does not fit the rows.
    """
    recipe, name = prepared(decoder, parse_shape(shape), DecodeOptions())
    values = release.mixture.label_values[:_MOST_LABELS] or (None,)
    rows: dict[str, list[str] | bytes] = {}
    for value, label_seed in zip(
        values, np.random.SeedSequence(seed).spawn(len(values)), strict=True
    ):
        text = "all" if value is None else str(value)
        sampled, _ = release.sample(SIDE, label_seed, label=value)
        decoded, _ = decode_rows(recipe, _as_input(release, sampled), [text] * SIDE)
        title = "All rows" if value is None else f"label {value}"
        if isinstance(decoded, list):
            rows[title] = [
                " ".join(decoded_text.split())[:_MOST_TEXT] for decoded_text in decoded[:_TEXTS]
            ]
        else:
            rows[title] = png(contact_sheet([list(decoded)]))
    return Examples(name, rows)


def _as_input(release: Release, rows: NDArray[np.float64]) -> NDArray[Any]:
    """Rows as `dpgmm sample` would write them: whole numbers where the input has integers."""
    kinds = {column["type"] for column in release.receipt["input"]["columns"]}
    whole = all(kind.startswith(("int", "uint")) for kind in kinds)
    return np.rint(rows).astype(np.int64) if whole else rows
