"""What may be asked of sampled rows beside their number: post-processing, so free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.errors import SpecError
from dpgmm_dist.model.mixture import LabelValue

Bounds = Literal["none", "reject", "clip"]
_LARGEST_TEMPERATURE = 10.0
_MOST_ROWS_OF_A_PART = 10**9
"""Above, numpy does not draw how labels mix in a partition."""


@dataclass(frozen=True)
class LabelRows:
    """How many rows of each label, over all partitions."""

    rows: tuple[int, ...]

    def part(self, partition: int, partitions: int) -> NDArray[np.int64]:
        """Each label's rows in one partition. Odd rows of different labels go to different ones."""
        counts, extra = [], 0
        for total in self.rows:
            share, odd = divmod(total, partitions)
            counts.append(share + ((partition - extra) % partitions < odd))
            extra += odd
        part = np.array(counts, dtype=np.int64)
        if part.sum() >= _MOST_ROWS_OF_A_PART:
            raise SpecError(
                f"a partition would have {int(part.sum())} rows; with rows per label it may have "
                f"less than {_MOST_ROWS_OF_A_PART}: use more partitions"
            )
        return part


@dataclass(frozen=True)
class SampleOptions:
    """Options of `write_samples`.

    Attributes
    ----------
    label : rows of this label only.
    label_rows : exactly so many rows of each named label, none of the others; says the total.
    balanced : as many rows of every label (the first get one more if it does not divide).
    temperature : factor on standard deviations; below 1 rows are closer to the means.
    bounds : "reject" draws rows outside the public bounds again (at most 100 times, then they are
        moved there), "clip" moves them at once, "none" leaves them.
    residual : whether directions that a projection left out vary as the release says they do;
        without, rows lie in the modelled subspace: smoother pictures, too little spread.
    """

    label: LabelValue | None = None
    label_rows: Mapping[LabelValue, int] | None = None
    balanced: bool = False
    temperature: float = 1.0
    bounds: Bounds = "none"
    residual: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.temperature <= _LARGEST_TEMPERATURE:
            raise SpecError(
                f"temperature must be above 0 and at most {_LARGEST_TEMPERATURE:g}, "
                f"got {self.temperature}"
            )
        if self.bounds not in ("none", "reject", "clip"):
            raise SpecError(f"bounds must be none, reject or clip, got {self.bounds!r}")
        if (self.label is not None) + (self.label_rows is not None) + self.balanced > 1:
            raise SpecError("give at most one of label, label_rows and balanced")
        for label, rows in (self.label_rows or {}).items():
            if rows < 0:
                raise SpecError(f"rows of label {label!r} must be at least 0, got {rows}")

    def total(self, rows: int | None) -> int:
        """The number of rows altogether (SpecError when nothing says it, or two things do)."""
        if self.label_rows is None:
            if rows is None:
                raise SpecError("say how many rows: --rows N, or --label-rows LABEL=N")
            return rows
        total = sum(self.label_rows.values())
        if rows not in (None, total):
            raise SpecError(f"rows is {rows} but label_rows add up to {total}: give one of them")
        return total

    def balanced_over(self, labels: tuple[LabelValue, ...], rows: int) -> SampleOptions:
        """The same options with ``balanced`` spelled out as rows per label."""
        if not self.balanced:
            return self
        if not labels:
            raise SpecError("the release has no labels, so rows cannot be balanced over them")
        share, odd = divmod(rows, len(labels))
        spelled = {label: share + (i < odd) for i, label in enumerate(labels)}
        return replace(self, balanced=False, label_rows=spelled)

    def counts(self, labels: tuple[LabelValue, ...]) -> LabelRows | None:
        """Rows of each of the release's labels, in their order; None when not prescribed."""
        if self.label_rows is None:
            return None
        wanted: dict[LabelValue, int] = {}
        for name, rows in self.label_rows.items():
            label = find_label(labels, name)
            if label in wanted:
                raise SpecError(f"label {label!r} is named twice in label_rows")
            wanted[label] = rows
        return LabelRows(tuple(wanted.get(label, 0) for label in labels))


def parse_label_rows(arguments: Iterable[str]) -> dict[LabelValue, int] | None:
    """Rows per label from ``LABEL=N`` texts; None when there are none."""
    found: dict[LabelValue, int] = {}
    for argument in arguments:
        label, equals, number = argument.rpartition("=")
        if not equals or not number.strip().isdecimal():
            raise SpecError(f"--label-rows {argument}: write LABEL=N, such as 3=500")
        if label in found:
            raise SpecError(f"--label-rows names label {label!r} twice")
        found[label] = int(number)
    return found or None


def find_label(labels: tuple[LabelValue, ...], label: LabelValue) -> LabelValue:
    """The release's label that is meant; a command line has only text for integers."""
    if not labels:
        raise SpecError(f"the release has no labels, so label {label!r} cannot be asked for")
    for known in labels:
        if known == label or str(known) == str(label):
            return known
    shown = ", ".join(repr(known) for known in labels[:20]) + (", ..." if len(labels) > 20 else "")
    raise SpecError(f"label {label!r} is not one of the release's labels: {shown}")
