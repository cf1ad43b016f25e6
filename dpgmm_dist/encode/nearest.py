"""The decoder ``nearest:``: each synthetic embedding becomes the nearest public item."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.encode.neighbours import Search, assign
from dpgmm_dist.encode.public_items import PublicItems
from dpgmm_dist.errors import SpecError

Indices = NDArray[np.int64]


class NearestItems:
    """Chooses public items for synthetic rows, of equal labels if the items have labels."""

    def __init__(self, items: PublicItems) -> None:
        self.items = items
        self._searches: dict[str | None, tuple[Indices, Search]] = {}

    def choose(
        self, rows: NDArray[np.floating], labels: list[str], repeat: int | None = None
    ) -> Indices:
        """The index (n,) of the nearest item for each of rows (n, d) with labels.

        Parameters
        ----------
        rows
            Embeddings (n, d).
        labels
            Their labels (n,) as text.
        repeat
            The most rows that get the same item; None for any number. Rows choose in their order.

        Raises
        ------
        SpecError
            When rows have another width than the items, a label has no item, or there are too few
            items for so many rows.
        """
        width = self.items.embeddings.shape[1]
        if rows.shape[1] != width:
            raise SpecError(
                f"the public embeddings have {width} numbers, but the rows have {rows.shape[1]}: "
                "encode the public items as the rows of the release were encoded"
            )
        chosen = np.full(len(rows), -1, np.int64)
        groups = np.array([self._group(label) for label in labels], object)
        for group in dict.fromkeys(groups.tolist()):
            members = np.flatnonzero(groups == group)
            positions, search = self._search(group)
            if repeat is None:
                near = search.nearest(rows[members])[:, 0]
            else:
                _check_enough(len(members), len(positions), repeat, group)
                near = assign(search.items, rows[members], repeat)
            chosen[members] = positions[near]
        return chosen

    def _group(self, label: str) -> str | None:
        return None if self.items.labels is None else label

    def _search(self, group: str | None) -> tuple[Indices, Search]:
        """The positions of the items with a label, and the search among them."""
        if group not in self._searches:
            labels = self.items.labels
            all_items = np.ones(len(self.items), bool)
            positions = np.flatnonzero(all_items if labels is None else labels == group)
            if not len(positions):
                raise SpecError(
                    f"no public item has the label {group!r}: add some, or leave --public-label out"
                )
            self._searches[group] = positions, Search(self.items.embeddings[positions])
        return self._searches[group]


def _check_enough(rows: int, items: int, repeat: int, group: str | None) -> None:
    if rows > items * repeat:
        of_label = "" if group is None else f" of label {group!r}"
        raise SpecError(
            f"{rows} rows{of_label} need more than the {items} public items, each used at most "
            f"{repeat} times: raise --repeat to {-(-rows // items)} or more, or sample fewer rows"
        )
