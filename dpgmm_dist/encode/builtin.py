"""Encoders that need no trained weights: pixels, wavelet scattering, public linear projections."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.encode.projection import Projection
from dpgmm_dist.encode.protocol import Batch, Shape, base_name, file_bytes, sha256_of
from dpgmm_dist.encode.scattering import Scattering
from dpgmm_dist.errors import SpecError


class Pixels:
    """The pixels of an image divided by 255, in the order (row, column, channel).

    Vectors are kept as they are.
    """

    name = "pixels"

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.digest = sha256_of("dpgmm pixels 1", repr(shape))

    def __call__(self, batch: Batch) -> NDArray[np.float64]:
        """Values (n, h w c) in [0, 1] of images (n, h, w, c), or vectors (n, d) as float64."""
        rows = np.asarray(batch)
        if rows.dtype == np.uint8:
            return rows.reshape(len(rows), -1) / 255.0
        return _vectors(rows, self.name)


class ScatteringEncoder:
    """Wavelet scattering of grey images; the channels of colour images are averaged."""

    name = "scattering"

    def __init__(self, shape: Shape) -> None:
        if len(shape) != 3:
            raise SpecError("the encoder scattering needs images: give their shape, --shape HxW")
        self.scattering = Scattering(*shape[:2])
        self.digest = sha256_of("dpgmm scattering 1", repr(shape))

    def __call__(self, batch: Batch) -> NDArray[np.float64]:
        """Features (n, 81 h w / 16) of images (n, h, w, c)."""
        images = np.asarray(batch)
        return np.stack([self._features(image) for image in images])

    def _features(self, image: NDArray[Any]) -> NDArray[np.float64]:
        grey = image.mean(axis=2) / 255.0
        return self.scattering.transform(grey).astype(np.float64)


class ProjectionEncoder:
    """A public linear map of vectors or pixels.

    It is read from an ``.npz`` file with ``matrix`` (d, p) and, optionally, ``mean`` (d,). Both are
    public: they do not depend on the rows that are to be released.
    """

    def __init__(self, path: str) -> None:
        data = file_bytes(path)
        self.projection = Projection.from_bytes(data, path)
        self.name = f"projection:{base_name(path)}"
        self.digest = sha256_of("dpgmm projection 1", data)

    def __call__(self, batch: Batch) -> NDArray[np.float64]:
        """Coordinates (n, p) of vectors (n, d) or images of d values."""
        rows = np.asarray(batch)
        flat = rows.reshape(len(rows), -1) / 255.0 if rows.dtype == np.uint8 else rows
        return self.projection.forward(_vectors(flat, self.name))


def _vectors(rows: NDArray[Any], name: str) -> NDArray[np.float64]:
    if rows.ndim != 2 or rows.dtype.kind not in "fiu":
        raise SpecError(f"the encoder {name} takes images or lists of numbers, not text")
    return np.asarray(rows, dtype=np.float64)
