"""Options of sampled rows. Sampling is post-processing, so no option has a privacy cost."""

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
"""Upper limit of numpy's multivariate hypergeometric distribution, which mixes labels."""


@dataclass(frozen=True)
class LabelRows:
    """The number of rows of each label, over all partitions."""

    rows: tuple[int, ...]

    def part(self, partition: int, partitions: int) -> NDArray[np.int64]:
        """The number of rows (labels,) of each label in one partition.

        Remainders of different labels go to different partitions, so that sizes differ by at most
        one row.
        """
        counts, offset = [], 0
        for total in self.rows:
            share, remainder = divmod(total, partitions)
            counts.append(share + ((partition - offset) % partitions < remainder))
            offset += remainder
        part = np.array(counts, dtype=np.int64)
        if part.sum() >= _MOST_ROWS_OF_A_PART:
            raise SpecError(
                f"a partition would have {int(part.sum())} rows; with rows per label it may have "
                f"at most {_MOST_ROWS_OF_A_PART - 1}: use more partitions"
            )
        return part


@dataclass(frozen=True)
class SampleOptions:
    """Options of `write_samples`.

    Attributes
    ----------
    label : draw rows of this label only.
    label_rows : exact number of rows of each named label, and none of the others. It also gives
        the total.
    balanced : draw the same number of rows of every label. If the total is not a multiple, the
        first labels get one row more.
    temperature : factor on the standard deviations; below 1, rows are closer to the means.
    bounds : "reject" draws rows outside the public bounds again, at most 100 times, and then moves
        them inside. "clip" moves them at once. "none" leaves them. By default it is "clip" for a
        table, so that what cannot be negative is not, and "none" for embeddings.
    residual : whether rows vary in the directions outside the projection, with the released
        variance. Without it, rows lie in the modelled subspace: pictures look smoother, and the
        spread is too small.
    """

    label: LabelValue | None = None
    label_rows: Mapping[LabelValue, int] | None = None
    balanced: bool = False
    temperature: float = 1.0
    bounds: Bounds | None = None
    residual: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.temperature <= _LARGEST_TEMPERATURE:
            raise SpecError(
                f"temperature must be above 0 and at most {_LARGEST_TEMPERATURE:g}, "
                f"got {self.temperature}"
            )
        if self.bounds not in (None, "none", "reject", "clip"):
            raise SpecError(f"bounds must be none, reject or clip, got {self.bounds!r}")
        if (self.label is not None) + (self.label_rows is not None) + self.balanced > 1:
            raise SpecError("give at most one of label, label_rows and balanced")
        for label, rows in (self.label_rows or {}).items():
            if rows < 0:
                raise SpecError(f"rows of label {label!r} must be at least 0, got {rows}")

    def total(self, rows: int | None) -> int:
        """The number of rows altogether; SpecError if nothing gives it, or two options disagree."""
        if self.label_rows is None:
            if rows is None:
                raise SpecError("say how many rows to draw: --rows N, or --label-rows LABEL=N")
            return rows
        total = sum(self.label_rows.values())
        if rows not in (None, total):
            raise SpecError(f"rows is {rows}, but label_rows add up to {total}: give one of them")
        return total

    def balanced_over(self, labels: tuple[LabelValue, ...], rows: int) -> SampleOptions:
        """The same options, with ``balanced`` expressed as rows per label."""
        if not self.balanced:
            return self
        if not labels:
            raise SpecError("the release has no labels, so rows cannot be balanced over them")
        share, remainder = divmod(rows, len(labels))
        label_rows = {label: share + (i < remainder) for i, label in enumerate(labels)}
        return replace(self, balanced=False, label_rows=label_rows)

    def counts(self, labels: tuple[LabelValue, ...]) -> LabelRows | None:
        """Rows of each label of the release, in its order; None for the released proportions."""
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
    """Rows per label from texts ``LABEL=N``; None if there are none."""
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
    """The label of the release that is meant: on a command line, integers and booleans are text."""
    if not labels:
        raise SpecError(f"the release has no labels, so it cannot give rows of label {label!r}")
    meant = {"false": "0", "true": "1"}.get(str(label).lower(), str(label))
    for text in (str(label), meant):
        for known in labels:
            if known == label or str(known) == text:
                return known
    shown = ", ".join(repr(known) for known in labels[:20]) + (", ..." if len(labels) > 20 else "")
    raise SpecError(f"label {label!r} is not one of the release's labels: {shown}")
