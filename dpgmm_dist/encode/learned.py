"""The decoder ``fit:``: from embeddings to pixels, learned from public pairs and kept as a file.

``ridge`` is a linear map. ``network`` is a small convolutional net and needs torch. Neither sees
a private row, so a decoder costs no privacy.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.encode.protocol import Shape
from dpgmm_dist.encode.public_items import PublicItems
from dpgmm_dist.errors import SpecError

Floats = NDArray[np.float64]
METHODS = ("ridge", "network")
_FORMAT = "dpgmm decoder 1"
_BLOCK = 2048
_HELD_OUT = 10
"""One pair in this many is held out to choose the penalty."""
_PENALTIES = 10.0 ** np.arange(-6, 2.5, 0.5)
"""Candidates, in units of the mean variance of an embedding's numbers."""


@dataclass(eq=False)
class LearnedDecoder:
    """A map from embeddings to pictures of one shape."""

    method: str
    shape: Shape
    arrays: dict[str, NDArray[Any]]
    """Of a ridge: ``mean`` (d,), ``matrix`` (d, h w c) and ``offset`` (h w c,), in [0, 1]."""
    name: str = "fit"

    def __call__(self, rows: Floats) -> NDArray[Any]:
        """Pixels (n, h w c), about 0 to 1, of embeddings (n, d)."""
        width = len(self.arrays["mean"])
        if rows.shape[1] != width:
            raise SpecError(
                f"the decoder was learned from embeddings of {width} numbers, but the rows have "
                f"{rows.shape[1]}"
            )
        centred = rows - self.arrays["mean"]
        if self.method == "ridge":
            return np.asarray(centred @ self.arrays["matrix"] + self.arrays["offset"])
        from dpgmm_dist.encode.picture_network import decoded

        return decoded(self.arrays, self.shape, centred)

    def to_bytes(self) -> bytes:
        """The bytes of an ``.npz`` file that `from_bytes` reads."""
        file = io.BytesIO()
        about = {"format": _FORMAT, "method": self.method, "shape": self.shape}
        stored = {name: np.asarray(value) for name, value in about.items()} | self.arrays
        np.savez(file, allow_pickle=False, **stored)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> LearnedDecoder:
        """Read a decoder that was kept; no pickles are read.

        Raises
        ------
        SpecError
            When the bytes are no such file. The message names it as ``where``.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            if str(arrays.pop("format")) != _FORMAT or "mean" not in arrays:
                raise ValueError
            method = str(arrays.pop("method"))
            height, width, channels = (int(size) for size in arrays.pop("shape"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise SpecError(
                f"{where} is not a decoder: --save-decoder writes one, with --decoder fit:PUBLIC"
            ) from None
        return cls(method, (height, width, channels), arrays, where)


def learn(pairs: PublicItems, method: str = "ridge", seed: int = 0) -> LearnedDecoder:
    """Learn a decoder from public pictures and their embeddings.

    Parameters
    ----------
    pairs : public pictures with embeddings.
    method : "ridge" or "network".
    seed : of the initial weights and the batches of a network.

    Raises
    ------
    SpecError
        When the items are texts, there are fewer than 20, or torch is missing.
    """
    if method not in METHODS:
        raise SpecError(f"--fit must be ridge or network, got {method!r}")
    if len(pairs.shape) != 3:
        raise SpecError("fit: learns pictures, but the public items are texts: use nearest:")
    if len(pairs) < 2 * _HELD_OUT:
        raise SpecError(f"fit: needs at least {2 * _HELD_OUT} public pairs, got {len(pairs)}")
    if method == "ridge":
        return LearnedDecoder("ridge", pairs.shape, _ridge(pairs))
    from dpgmm_dist.encode.picture_network import learned_arrays

    return LearnedDecoder("network", pairs.shape, learned_arrays(pairs, seed))


def _ridge(pairs: PublicItems) -> dict[str, NDArray[Any]]:
    """Ridge regression of pixels on embeddings, with the penalty that held-out pairs prefer."""
    order = np.random.default_rng(0).permutation(len(pairs))
    held_out = order[: min(len(order) // _HELD_OUT, _BLOCK)]
    learned = _Moments(pairs, np.sort(order[len(held_out) :]))
    X = pairs.embeddings[held_out].astype(np.float64)
    Y = _pixels(pairs, held_out)
    errors = [float(((learned.predict(X, penalty) - Y) ** 2).mean()) for penalty in _PENALTIES]
    moments_of_all = _Moments(pairs, np.arange(len(pairs)))
    matrix = moments_of_all.matrix(float(_PENALTIES[int(np.argmin(errors))]))
    return {"mean": moments_of_all.mean, "matrix": matrix, "offset": moments_of_all.offset}


class _Moments:
    """Means and products of embeddings and pixels of some pairs, added up in blocks."""

    def __init__(self, pairs: PublicItems, index: NDArray[np.int64]) -> None:
        self.mean = pairs.embeddings[index].mean(axis=0, dtype=np.float64)
        width, size = len(self.mean), int(np.prod(pairs.shape))
        second, product, total = np.zeros((width, width)), np.zeros((width, size)), np.zeros(size)
        for start in range(0, len(index), _BLOCK):
            block = index[start : start + _BLOCK]
            X, Y = pairs.embeddings[block] - self.mean, _pixels(pairs, block)
            second += X.T @ X
            product += X.T @ Y
            total += Y.sum(axis=0)
        self.offset = total / len(index)
        self.product = product / len(index)
        self.values, self.vectors = np.linalg.eigh(second / len(index))

    def matrix(self, penalty: float) -> Floats:
        """The map (d, h w c) for a penalty in units of the mean variance."""
        damped = self.values + penalty * max(float(self.values.mean()), 1e-300)
        return np.asarray((self.vectors / damped) @ (self.vectors.T @ self.product))

    def predict(self, rows: Floats, penalty: float) -> Floats:
        return np.asarray((rows - self.mean) @ self.matrix(penalty) + self.offset)


def _pixels(pairs: PublicItems, index: NDArray[np.int64]) -> Floats:
    pictures = pairs.pictures(index)
    return pictures.reshape(len(pictures), -1) / 255.0
