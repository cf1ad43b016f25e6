"""A public basis for features of images: the principal axes of features of drawn shapes.

The basis depends on no data set: the pictures are striped ellipses and rectangles, drawn from a
fixed seed. The features of real images of objects vary most in the directions in which those of
drawn shapes vary most.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.encode.projection import Projection
from dpgmm_dist.encode.protocol import Shape
from dpgmm_dist.errors import SpecError

Floats = NDArray[np.float64]

PICTURES = 1500
_SEED = 1
_MOST_SHAPES = 5


def drawn_pictures(shape: Shape, count: int = PICTURES, seed: int = _SEED) -> NDArray[np.uint8]:
    """Pictures (n, h, w, c) of a few overlapping striped shapes on a black background."""
    height, width, channels = shape
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    y, x = (y + 0.5) / height - 0.5, (x + 0.5) / width - 0.5
    pictures = np.zeros((count, height, width, channels), np.uint8)
    for picture in pictures:
        image = np.zeros((height, width, channels))
        for _ in range(rng.integers(1, _MOST_SHAPES + 1)):
            cover, stripes = _striped_shape(rng, y, x)
            color = rng.uniform(0, 1, channels)
            image = image * (1 - cover[:, :, None]) + (cover * stripes)[:, :, None] * color
        picture[...] = np.rint(255 * np.clip(image, 0, 1))
    return pictures


def _striped_shape(rng: np.random.Generator, y: Floats, x: Floats) -> tuple[Floats, Floats]:
    """How much of each pixel a random shape covers, 0 to 1, and the brightness of its stripes."""
    center_y, center_x = rng.normal(0, 0.2, 2)
    angle = rng.uniform(0, np.pi)
    radius_u, radius_v = np.exp(rng.uniform(np.log(0.05), np.log(0.5), 2))
    u = np.cos(angle) * (y - center_y) + np.sin(angle) * (x - center_x)
    v = -np.sin(angle) * (y - center_y) + np.cos(angle) * (x - center_x)
    power = rng.choice([1, 2, 8])  # a diamond, an ellipse, nearly a rectangle
    distance = np.abs(u / radius_u) ** power + np.abs(v / radius_v) ** power
    cover = np.clip((1 - distance) * 4 + 0.5, 0, 1)
    depth, pitch, phase = rng.uniform(0, 0.5), rng.uniform(10, 60), rng.uniform(0, 6)
    return cover, 1 + depth * np.sin(pitch * u + phase)


def principal_axes(
    embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]], shape: Shape, axes: int
) -> Projection:
    """The mean and the first principal axes (d, ``axes``) of the features of drawn pictures.

    Parameters
    ----------
    embed
        Maps images (n, h, w, c), uint8, to features (n, d).
    shape
        (h, w, c) of the images.
    axes
        Number of axes.

    Raises
    ------
    SpecError
        When the rows are not images, or there are fewer features than axes.
    """
    if len(shape) != 3:
        raise SpecError("--project N is for images; for other rows give a file, --projection PATH")
    if not 1 <= axes <= PICTURES // 4:
        raise SpecError(f"--project must be from 1 to {PICTURES // 4}, got {axes}")
    features = embed(drawn_pictures(shape)).astype(np.float64)
    if axes > features.shape[1]:
        raise SpecError(
            f"--project is {axes}, but the encoder gives {features.shape[1]} features: use at most "
            f"{features.shape[1]}"
        )
    mean = features.mean(axis=0)
    centred = features - mean
    # From the Gram matrix of the pictures, which is smaller than the covariance of many features.
    values, vectors = np.linalg.eigh(centred @ centred.T)
    first, variances = vectors[:, ::-1][:, :axes], values[::-1][:axes]
    matrix = centred.T @ first / np.sqrt(np.maximum(variances, 1e-12))
    largest = matrix[np.abs(matrix).argmax(axis=0), np.arange(axes)]
    # Rounded, so that the last bits of the eigenvectors do not change the digest of the encoder.
    return Projection(np.round(matrix * np.sign(largest), 6), np.round(mean, 6))
