"""Two-dimensional views of a mixture: their directions, and the components in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.artifact.load import Release
from dpgmm_dist.model.covariances import SharedCovariances
from dpgmm_dist.model.mixture import Mixture, StandardErrors

Floats = NDArray[np.float64]

MOST_DIMENSIONS = 512
"""Most dimensions in which eigenvectors of covariances are computed: above, it takes too long."""


@dataclass(frozen=True, eq=False)
class View:
    """The components of a mixture in a plane."""

    title: str
    caption: str
    means: Floats
    """(C, 2)"""
    covariances: Floats
    """(C, 2, 2)"""
    mean_errors: Floats
    """(C, 2) standard errors along the two directions; infinite where unknown."""
    variance_errors: Floats
    """(C, 2) standard errors of the two variances; infinite where unknown."""


def views_of(release: Release) -> list[View]:
    """The most informative views: directions of variance, and directions between components."""
    mixture, p = release.mixture, release.mixture.dimension
    if p == 1:
        return []
    things = "labels" if mixture.label_values else "components"
    within = mean_covariance(mixture) if p <= MOST_DIMENSIONS else None
    apart = _weighted_deviations(mixture)
    found = []
    if within is not None:
        total = within + apart.T @ apart
        found.append(
            _view(
                release,
                leading_axes(total)[:, :2].T,
                "Where the rows vary most",
                "The two latent directions of largest variance.",
            )
        )
    if mixture.n_components > 1 and p > 2:
        found.append(
            _view(
                release,
                _between(apart, within).T,
                f"Where {things} lie farthest apart",
                f"The two latent directions that tell {things} apart best, in units of the spread "
                "within them."
                if within is not None
                else f"The two latent directions along which {things} lie farthest apart.",
            )
        )
    return found


def mean_covariance(mixture: Mixture) -> Floats:
    """(p, p), the covariances of the components, weighted."""
    form = mixture.form
    if isinstance(form, SharedCovariances):
        block = np.einsum("c,cij->ij", mixture.weights, form.blocks)
        return np.asarray(SharedCovariances(form.axes, block[None]).full()[0])
    return np.asarray(np.einsum("c,cij->ij", mixture.weights, form.matrices))


def leading_axes(matrix: Floats) -> Floats:
    """(p, p) eigenvectors as columns, the largest eigenvalue first, with signs fixed."""
    axes = np.linalg.eigh(matrix)[1][:, ::-1]
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    return np.asarray(axes * np.where(largest < 0, -1.0, 1.0))


def variance_errors(errors: StandardErrors, directions: Floats) -> Floats:
    """(C, q) standard error of the variance of each component along directions (p, q)."""
    if not errors.knows_covariances:
        return np.full((len(errors.weights), directions.shape[1]), np.inf)
    known = np.isfinite(errors.covariances)
    squares = np.where(known, errors.covariances, 0.0) ** 2
    u = directions**2
    # An entry off the diagonal counts twice in v' S v, and is one number with one error.
    found = np.sqrt(2 * _quadratic(squares, u) - np.einsum("cii->ci", squares) @ u**2)
    if known.all():
        return np.asarray(found)
    unknown = _quadratic(np.where(known, 0.0, 1.0), (u > 0).astype(float)) > 0
    return np.where(unknown, np.inf, found)


def _quadratic(matrices: Floats, u: Floats) -> Floats:
    """(C, q) u' S u of each matrix (C, p, p) and each column of u (p, q)."""
    return np.stack([((matrix @ u) * u).sum(axis=0) for matrix in matrices])


def _view(release: Release, axes: Floats, title: str, caption: str) -> View:
    """The mixture in the plane of two directions (2, p)."""
    mixture, errors = release.mixture, release.standard_errors
    form = mixture.form
    if isinstance(form, SharedCovariances):
        covariances = form.mapped(axes).full()
    else:
        covariances = axes @ form.matrices @ axes.T
    return View(
        title,
        caption,
        mixture.means @ axes.T,
        np.asarray(covariances),
        np.sqrt(_finite_squares(errors.means) @ (axes**2).T),
        variance_errors(errors, axes.T),
    )


def _finite_squares(values: Floats) -> Floats:
    """Squares, infinity as a number so large that products with zero stay zero."""
    return np.asarray(np.minimum(values, 1e100) ** 2)


def _weighted_deviations(mixture: Mixture) -> Floats:
    """(C, p) deviations of the means from their mean, times the roots of the weights."""
    centre = mixture.weights @ mixture.means
    return np.asarray(np.sqrt(mixture.weights)[:, None] * (mixture.means - centre))


def _between(apart: Floats, within: Floats | None) -> Floats:
    """(p, 2) directions along which the means vary most against the spread within components."""
    p = apart.shape[1]
    if within is None:
        whiten = np.eye(p)
    else:
        values, axes = np.linalg.eigh(within)
        whiten = (axes / np.sqrt(np.maximum(values, values[-1] * 1e-12)))[:, ::-1]
    _, sizes, rows = np.linalg.svd(apart @ whiten, full_matrices=False)
    first, second = rows[0], rows[1]
    if sizes[1] <= 1e-6 * sizes[0]:
        # The means are on a line: beside it, the direction of largest variance.
        second = np.eye(p)[0 if abs(first[0]) < 0.9 else 1]
        second = second - (second @ first) * first
        second /= np.linalg.norm(second)
    plane = np.stack([first, second], axis=1)
    largest = plane[np.abs(plane).argmax(axis=0), [0, 1]]
    return np.asarray(whiten @ (plane * np.where(largest < 0, -1.0, 1.0)))
