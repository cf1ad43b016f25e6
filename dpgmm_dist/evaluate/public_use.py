"""How many public items the synthetic rows use, and how near they come. NOT PRIVATE.

The decoder ``nearest:`` shows each synthetic row as a public item. Few items that are shown again
and again, or items much farther away than from real rows, say that the public items do not cover
the rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.encode.neighbours import Search
from dpgmm_dist.encode.public_items import PublicColumns, public_embeddings
from dpgmm_dist.errors import SpecError

Floats = NDArray[np.float64]
_MOST_ROWS = 20_000


def public_use(
    url: str, embedding: str | None, synthetic: Floats, held_out: Floats
) -> dict[str, Any]:
    """The share of public items that are the nearest of a synthetic row, and distances to them.

    Parameters
    ----------
    url
        Parquet with the embeddings of public items.
    embedding
        Their column; None for the only one.
    synthetic, held_out
        Rows (n, d) and (m, d) in the units of the embeddings.

    Raises
    ------
    SpecError
        When the embeddings have another width than the rows.
    DataError
        When the items cannot be read.
    """
    items = public_embeddings(url, PublicColumns(embedding=embedding))
    if items.shape[1] != synthetic.shape[1]:
        raise SpecError(
            f"{url}: the public embeddings have {items.shape[1]} numbers, but the rows have "
            f"{synthetic.shape[1]}: encode the public items as the rows of the release"
        )
    search = Search(items)

    def nearest(rows: Floats) -> tuple[NDArray[np.int64], float]:
        rows = rows[:_MOST_ROWS]
        index = search.nearest(rows)[:, 0]
        return index, float(np.median(np.linalg.norm(rows - items[index], axis=1)))

    used, distance = nearest(synthetic)
    counts = np.bincount(used, minlength=len(items))
    real_used, real_distance = nearest(held_out)
    return {
        "items": len(items),
        "rows": len(used),
        "share_used": float((counts > 0).mean()),
        "share_used_by_as_many_held_out_rows": _expected_share(real_used, len(used), len(items)),
        "most_rows_of_an_item": int(counts.max()),
        "median_distance": distance,
        "median_distance_of_held_out": real_distance,
    }


def _expected_share(index: NDArray[np.int64], rows: int, items: int) -> float | None:
    """The share of items that are nearest to ``rows`` of some rows; None if there are fewer."""
    if len(index) < rows:
        return None
    return len(np.unique(index[:rows])) / items
