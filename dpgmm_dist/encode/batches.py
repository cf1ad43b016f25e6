"""Batches of one fixed shape, and whether a row's embedding depends on its neighbours in one.

A float encoder's low bits may depend on the shape of its batch, on a row's place in it, and on the
other rows (sums in another order, other kernels). The guarantee is for the rows that were given to
``encode`` only if each embedding is a function of its own row. A fixed, padded shape removes the
first; the rest is tested to the bit on public probes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.encode.projection import Projection
from dpgmm_dist.encode.protocol import Batch, Encoder, Shape
from dpgmm_dist.errors import SpecError

_PROBES = 12
_ROUNDS = 3
_WORDS = ("the", "parcel", "arrives", "on", "Monday", "free", "offer", "reply", "now", "green")


class Pipeline:
    """An encoder, perhaps a projection, perhaps scaling to unit length; in batches of one size."""

    def __init__(
        self,
        encoder: Encoder,
        shape: Shape,
        batch: int,
        projection: Projection | None = None,
        unit_norm: bool = False,
    ) -> None:
        self.encoder, self.shape, self.batch = encoder, shape, batch
        self.projection, self.unit_norm = projection, unit_norm
        self._width: int | None = None

    def embed(self, rows: Batch) -> NDArray[np.float32]:
        """Embeddings (n, d) of any number of rows; rows that come out not finite stay so."""
        if not len(rows):
            return np.empty((0, self.width), np.float32)
        parts = [
            self._one(rows[start : start + self.batch]) for start in range(0, len(rows), self.batch)
        ]
        return np.concatenate(parts)

    @property
    def width(self) -> int:
        """d, found by encoding a blank row once."""
        if self._width is None:
            self._width = int(self._one(blank(self.shape, 1)).shape[1])
        return self._width

    def _one(self, rows: Batch) -> NDArray[np.float32]:
        """At most one batch, padded with blank rows to the fixed size."""
        count = len(rows)
        missing = self.batch - count
        padded: Batch
        if isinstance(rows, list):
            padded = rows + [""] * missing
        else:
            padded = np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])
        with np.errstate(all="ignore"):
            out = np.asarray(self.encoder(padded))
            if out.ndim != 2 or len(out) != self.batch or out.dtype.kind != "f":
                raise SpecError(
                    f"{self.encoder.name} must give floats of shape ({self.batch}, d) for a batch "
                    f"of {self.batch} rows, it gave {out.dtype} of shape {out.shape}"
                )
            out = out[:count].astype(np.float64)
            if self.projection is not None:
                out = self.projection.forward(out)
            if self.unit_norm:
                out = _unit(out)
            return out.astype(np.float32)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of length 1 (zero rows stay zero), each from itself alone."""
    lengths = np.array([np.sqrt(np.dot(row, row)) for row in rows])
    return np.asarray(rows / np.where(lengths > 0, lengths, 1.0)[:, None])


def rows_are_independent(pipeline: Pipeline) -> bool:
    """Whether public probe rows keep every bit of their embeddings in any company and place.

    With batches of one row they do by construction. Otherwise each probe is encoded alone, and
    then among others in random orders: a test, not a proof.
    """
    if pipeline.batch == 1:
        return True
    rng = np.random.default_rng(0)
    probes = probe_rows(pipeline.shape, _PROBES, rng)
    alone = np.concatenate([pipeline.embed(_take(probes, [i])) for i in range(_PROBES)])
    for _ in range(_ROUNDS):
        order = rng.integers(0, _PROBES, pipeline.batch + _PROBES // 2)
        among = pipeline.embed(_take(probes, order.tolist()))
        if among.tobytes() != alone[order].tobytes():
            return False
    return True


def probe_rows(shape: Shape, count: int, rng: np.random.Generator) -> Batch:
    """Public rows to try an encoder on: noise, or texts of some words."""
    if len(shape) == 3:
        return rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    if len(shape) == 1:
        return rng.normal(size=(count, *shape))
    return [" ".join(rng.choice(_WORDS, 1 + 5 * i % 23)) for i in range(count)]


def blank(shape: Shape, count: int) -> Batch:
    """Rows of zeros, or empty texts."""
    if not shape:
        return [""] * count
    return np.zeros((count, *shape), np.uint8 if len(shape) == 3 else np.float64)


def _take(rows: Batch, order: list[int]) -> Any:
    return [rows[i] for i in order] if isinstance(rows, list) else rows[order]
