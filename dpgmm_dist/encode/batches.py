"""Batches of a fixed shape, and a test whether an embedding depends on the other rows of a batch.

The last bits of a floating-point encoder may depend on the shape of the batch, on the position of
a row in it, and on the other rows, because sums are taken in another order or by another kernel.
The guarantee covers the raw rows only if each embedding is a function of its own row. Batches of a
fixed, padded shape remove the first dependence. The other two are tested, to the bit, on public
probe rows.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.encode.projection import Projection
from dpgmm_dist.encode.protocol import Batch, Encoder, Shape
from dpgmm_dist.errors import SpecError

_PROBES = 12
_ROUNDS = 3
_SAME_WORDS = 4
_WORDS = ("the", "parcel", "arrives", "on", "Monday", "free", "offer", "reply", "now", "green")


class Pipeline:
    """An encoder, an optional projection and optional scaling to unit length.

    The encoder is always called with ``batch`` rows of the shape ``shape``.
    """

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
        """Embeddings (n, d) of n rows, n at least 0; values that are not finite are kept.

        An encoder that pads rows to a common length has a method ``groups``, which gives the
        length (n,) of each. Then only rows of the same length share a batch.
        """
        if not len(rows):
            return np.empty((0, self.width), np.float32)
        groups = getattr(self.encoder, "groups", None)
        if groups is None:
            return self._embed_in_order(rows)
        lengths = groups(rows)
        embeddings = np.empty((len(rows), self.width), np.float32)
        for length in np.unique(lengths):
            members = np.flatnonzero(lengths == length)
            embeddings[members] = self._embed_in_order(_take(rows, members.tolist()))
        return embeddings

    def _embed_in_order(self, rows: Batch) -> NDArray[np.float32]:
        starts = range(0, len(rows), self.batch)
        return np.concatenate(
            [self._embed_batch(rows[start : start + self.batch]) for start in starts]
        )

    @property
    def width(self) -> int:
        """The number d of values in an embedding, found by encoding a blank row once."""
        if self._width is None:
            self._width = int(self._embed_batch(blank(self.shape, 1)).shape[1])
        return self._width

    def _embed_batch(self, rows: Batch) -> NDArray[np.float32]:
        """Embeddings of at most one batch of rows, padded with blank rows to the fixed size."""
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
                    f"of {self.batch} rows, but it gave {out.dtype} of shape {out.shape}"
                )
            out = out[:count].astype(np.float64)
            if self.projection is not None:
                out = self.projection.forward(out)
            if self.unit_norm:
                out = _unit_rows(out)
            return out.astype(np.float32)


def _unit_rows(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rows scaled to length 1; a row of zeros is kept."""
    # One row at a time, so that each result is a function of its row.
    lengths = np.array([np.sqrt(np.dot(row, row)) for row in rows])
    return np.asarray(rows / np.where(lengths > 0, lengths, 1.0)[:, None])


def rows_are_independent(pipeline: Pipeline) -> bool:
    """Whether the embedding of a probe row is the same, to the bit, in every batch tried.

    With batches of one row this holds by construction. Otherwise each public probe row is encoded
    alone, and then together with others in random order. This is a test, not a proof.
    """
    if pipeline.batch == 1:
        return True
    rng = np.random.default_rng(0)
    probes = probe_rows(pipeline.shape, _PROBES, rng)
    one_by_one = np.concatenate([pipeline.embed(_take(probes, [i])) for i in range(_PROBES)])
    for _ in range(_ROUNDS):
        order = rng.integers(0, _PROBES, pipeline.batch + _PROBES // 2)
        together = pipeline.embed(_take(probes, order.tolist()))
        if together.tobytes() != one_by_one[order].tobytes():
            return False
    return True


def probe_rows(shape: Shape, count: int, rng: np.random.Generator) -> Batch:
    """Public rows to test an encoder with: random pixels or numbers, or texts of random words.

    Four texts at a time have the same words in other orders, and so the same number of tokens:
    encoders that pad texts put only such texts into one batch.
    """
    if len(shape) == 3:
        return rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    if len(shape) == 1:
        return rng.normal(size=(count, *shape))
    counts = itertools.cycle((4, 9, 21))
    words = [rng.choice(_WORDS, next(counts)) for _ in range(0, count, _SAME_WORDS)]
    return [" ".join(rng.permutation(words[i // _SAME_WORDS])) for i in range(count)]


def blank(shape: Shape, count: int) -> Batch:
    """``count`` rows of zeros, or empty texts."""
    if not shape:
        return [""] * count
    return np.zeros((count, *shape), np.uint8 if len(shape) == 3 else np.float64)


def _take(rows: Batch, order: list[int]) -> Any:
    return [rows[i] for i in order] if isinstance(rows, list) else rows[order]
