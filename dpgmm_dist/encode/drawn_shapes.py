"""A public basis for features of images: their principal axes over drawn shapes.

Nothing in it comes from any data set: the pictures are ellipses and rectangles with stripes, drawn
from a fixed seed. Features of real images of things vary most where those of drawn shapes do.
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
    """Pictures (n, h, w, c) of a few overlapping striped shapes on black."""
    height, width, channels = shape
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    y, x = (y + 0.5) / height - 0.5, (x + 0.5) / width - 0.5
    out = np.zeros((count, height, width, channels), np.uint8)
    for picture in out:
        image = np.zeros((height, width, channels))
        for _ in range(rng.integers(1, _MOST_SHAPES + 1)):
            cover, stripes = _one_shape(rng, y, x)
            color = rng.uniform(0, 1, channels)
            image = image * (1 - cover[:, :, None]) + (cover * stripes)[:, :, None] * color
        picture[...] = np.rint(255 * np.clip(image, 0, 1))
    return out


def _one_shape(rng: np.random.Generator, y: Floats, x: Floats) -> tuple[Floats, Floats]:
    """How far a shape covers each pixel, 0 to 1, and the brightness of its stripes there."""
    center_y, center_x = rng.normal(0, 0.2, 2)
    angle = rng.uniform(0, np.pi)
    tall, wide = np.exp(rng.uniform(np.log(0.05), np.log(0.5), 2))
    u = np.cos(angle) * (y - center_y) + np.sin(angle) * (x - center_x)
    v = -np.sin(angle) * (y - center_y) + np.cos(angle) * (x - center_x)
    power = rng.choice([1, 2, 8])  # a diamond, an ellipse, nearly a rectangle
    distance = np.abs(u / tall) ** power + np.abs(v / wide) ** power
    cover = np.clip((1 - distance) * 4 + 0.5, 0, 1)
    depth, pitch, phase = rng.uniform(0, 0.5), rng.uniform(10, 60), rng.uniform(0, 6)
    return cover, 1 + depth * np.sin(pitch * u + phase)


def principal_axes(
    embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]], shape: Shape, axes: int
) -> Projection:
    """The first principal axes (d, ``axes``) of features of drawn pictures, about their mean."""
    if len(shape) != 3:
        raise SpecError("--project N is for images; give a --projection file for other rows")
    if not 1 <= axes <= PICTURES // 4:
        raise SpecError(f"--project must be from 1 to {PICTURES // 4}, got {axes}")
    features = embed(drawn_pictures(shape)).astype(np.float64)
    if axes > features.shape[1]:
        raise SpecError(
            f"--project is {axes} but the encoder gives {features.shape[1]} features: use at most "
            "as many"
        )
    mean = features.mean(axis=0)
    centred = features - mean
    # By the smaller of the two Gram matrices.
    values, left = np.linalg.eigh(centred @ centred.T)
    matrix = centred.T @ left[:, ::-1][:, :axes] / np.sqrt(np.maximum(values[::-1][:axes], 1e-12))
    largest = matrix[np.abs(matrix).argmax(axis=0), np.arange(axes)]
    # Rounded, so that the last bits of the eigenvectors do not make another encoder of it.
    return Projection(np.round(matrix * np.sign(largest), 6), np.round(mean, 6))
