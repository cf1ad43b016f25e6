from __future__ import annotations

import numpy as np
import pytest

from dpgmm_dist.encode.embedding_map import Panel, draw, map_axes


def rows_of_labels(width: int, labels: int) -> tuple[np.ndarray, list[str]]:
    """Rows whose labels differ in directions of little variance."""
    rng = np.random.default_rng(0)
    index = np.arange(300) % labels
    means = np.zeros((labels, width))
    means[:, 0], means[:, 1] = np.cos(2 * np.arange(labels)), np.sin(2 * np.arange(labels))
    rows = rng.normal(size=(300, width)) * np.where(np.arange(width) < 2, 0.1, 2.0) + means[index]
    return rows, [str(i) for i in index]


@pytest.mark.parametrize("width", [2, 12])
def test_discriminant_axes_tell_labels_apart_where_principal_ones_do_not(width: int) -> None:
    rows, labels = rows_of_labels(width, 3)
    axes = map_axes(rows, labels)
    points = axes(rows)
    assert axes.name == "discriminant" and points.shape == (300, 2)
    means = np.array([points[np.array(labels) == label].mean(axis=0) for label in "012"])
    nearest = ((points[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == np.array(labels, int)).mean() > 0.98


@pytest.mark.parametrize(("width", "count"), [(1, 300), (5, 300), (500, 40), (3, 1)])
def test_two_labels_or_none_have_principal_axes(width: int, count: int) -> None:
    rows = np.random.default_rng(0).normal(size=(count, width))
    rows[:, -1] *= 30
    for labels in (None, ["a", "b"] * (count // 2) or ["a"]):
        axes = map_axes(rows, labels)
        assert axes.name == "principal" and axes(rows).shape == (count, 2)
        if count > 1:
            assert abs(np.corrcoef(axes(rows)[:, 0], rows[:, -1])[0, 1]) > 0.99


def test_wide_rows_and_a_drawing_that_says_what_it_is() -> None:
    rows, labels = rows_of_labels(700, 4)
    points = map_axes(rows, labels)(rows)
    assert points.shape == (300, 2) and np.isfinite(points).all()
    image = draw([Panel("all", points, labels), Panel("again", points, None)], "NOT PRIVATE")
    assert image.startswith(b"\x89PNG") and b"NOT PRIVATE" in image
