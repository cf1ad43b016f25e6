"""The spectrum of a second moment behind noise, where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from dpgmm_dist.model import spectrum
from dpgmm_dist.model.spectrum import clean

from ...variants import variant

Floats = np.ndarray
MANY = 1e12
"""Rows whose own sampling is nothing beside the noise."""


def noisy(truth: Floats, scale: float, seed: int) -> Floats:
    """A matrix (p, p) of these variances with symmetric noise, turned at random."""
    rng = np.random.default_rng(seed)
    p = len(truth)
    basis, _ = np.linalg.qr(rng.standard_normal((p, p)))
    half = np.triu(rng.standard_normal((p, p)) * scale / np.sqrt(2), 1)
    noise = half + half.T + np.diag(rng.standard_normal(p) * scale)
    return (basis * truth) @ basis.T + basis @ noise @ basis.T


def likelihood(axes: Floats, variances: Floats, covariance: Floats) -> float:
    """Expected log likelihood of a row, but for a constant."""
    along = np.einsum("ij,ik,kj->j", axes, covariance, axes)
    return -0.5 * float((np.log(variances) + along / variances).sum())


def clean_spectrum(truth: Floats, scale: float, seed: int) -> tuple[float, Floats]:
    """What a row's true log likelihood gains by it over the sphere (nats); its variances."""
    p = len(truth)
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((p, p)))
    covariance = (basis * truth) @ basis.T
    found = clean(noisy(truth, scale, seed), scale, float(truth.sum()), MANY)
    sphere = np.full(p, truth.mean())
    gain = likelihood(found.axes, found.variances, covariance) - likelihood(
        np.eye(p), sphere, covariance
    )
    return gain, found.variances


def over_the_sphere(truth: Floats, scale: float, seed: int) -> float:
    """What a row's true log likelihood gains by the cleaned spectrum over the sphere (nats)."""
    return clean_spectrum(truth, scale, seed)[0]


SPECTRA = {
    "one": np.ones(1),
    "two": np.array([0.2, 1.0]),
    "equal": np.ones(7),
    "steep": np.geomspace(0.01, 1, 12),
    "spiked": np.r_[np.ones(29), 6.0],
    "flat and many": np.ones(40),
}


@pytest.mark.parametrize("scale", [0.0, 1e-9, 0.05, 0.5, 50.0])
@pytest.mark.parametrize("name", SPECTRA)
def test_the_trace_is_kept_and_the_spectrum_is_valid(name: str, scale: float) -> None:
    truth = SPECTRA[name]
    trace = 1.3 * float(truth.sum())  # what is known by itself need not be what is seen
    found = clean(noisy(truth, scale, 3), scale, trace, 1000.0)
    assert found.variances.sum() == pytest.approx(trace)
    assert found.variances.min() > 0
    assert (np.diff(found.variances) >= -1e-12 * trace).all()
    assert np.allclose(found.axes.T @ found.axes, np.eye(len(truth)))
    assert np.isfinite([found.gain, found.error]).all()


@pytest.mark.parametrize("name", SPECTRA)
def test_without_noise_it_is_the_truth(name: str) -> None:
    truth = SPECTRA[name]
    found = clean(noisy(truth, 0.0, 1), 0.0, float(truth.sum()), MANY)
    assert np.allclose(found.variances, np.sort(truth), rtol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 0.1])
def test_matrices_without_any_spread(scale: float) -> None:
    for p in (1, 2, 9):
        for matrix in (np.zeros((p, p)), np.eye(p), -np.eye(p)):
            found = clean(matrix, scale, 1.0, 20.0)
            assert np.allclose(found.variances, 1 / p)


@pytest.mark.parametrize(
    ("name", "scale"), [("steep", 20.0), variant("spiked", 60.0), ("two", 100.0)]
)
def test_it_is_mostly_the_sphere_where_noise_drowns(name: str, scale: float) -> None:
    cleaned = [clean_spectrum(SPECTRA[name], scale, seed) for seed in range(40)]
    spheres = sum(np.ptp(variances) == 0 for _, variances in cleaned)
    # Candidates compete by their standard errors as they are; the full error counts for a tenth
    # only, so that one in four may depart from the sphere. What that costs is bounded here.
    assert spheres >= 28
    assert np.mean([gain for gain, _ in cleaned]) > -1.5


@pytest.mark.parametrize("scale", [variant(0.1), 0.3, variant(1.0), 5.0])
@pytest.mark.parametrize("name", ["spiked", "flat and many"])
def test_it_is_never_far_below_the_sphere(name: str, scale: float) -> None:
    gains = [over_the_sphere(SPECTRA[name], scale, seed) for seed in range(12)]
    # A single drowned one may lose nats: a gain of a tenth of its full error is enough for it.
    # On average over the noise it loses little.
    assert min(gains) > (-1.0 if scale < 1 else -8.0)
    assert np.mean(gains) > (-0.1 if scale < 1 else -1.5)


@pytest.mark.parametrize("name", ["two", "equal", "steep"])
@pytest.mark.parametrize("scale", [variant(0.1), 0.6])
def test_few_directions_lose_little_on_average(name: str, scale: float) -> None:
    """A single one may lose nats: among few eigenvalues chance can look like a spectrum."""
    gains = [over_the_sphere(SPECTRA[name], scale, seed) for seed in range(40)]
    assert np.mean(gains) > -0.25


def test_it_gains_what_there_is_to_gain() -> None:
    assert np.mean([over_the_sphere(SPECTRA["steep"], 0.02, seed) for seed in range(8)]) > 4
    assert np.mean([over_the_sphere(SPECTRA["spiked"], 0.3, seed) for seed in range(8)]) > 0.4


@pytest.mark.parametrize(
    ("name", "scale"), [("equal", 0.3), ("steep", 0.05), variant("spiked", 0.25)]
)
def test_the_gain_of_a_candidate_is_unbiased(name: str, scale: float) -> None:
    """Over the noise: the mean of what is estimated is the mean of what is so, for each of them."""
    truth, found = SPECTRA[name], []
    p, trace = len(truth), float(truth.sum())
    for seed in range(60):
        basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((p, p)))
        y, axes = np.linalg.eigh(noisy(truth, scale, seed))
        edge = scale * np.sqrt(p / 2)
        # Those of the least floors have 1 / variance with tails that no mean of sixty tames.
        picked = np.array([0, 12, 15, 18, 33, 36, 57, 78])
        [everything] = spectrum._candidates(y[None], edge, trace)
        gain, _, _ = spectrum._gains(y, everything, edge, trace, scale, MANY)
        covariance = (basis * truth) @ basis.T
        true = np.array(
            [likelihood(axes, variances, covariance) for variances in everything[picked]]
        )
        found.append((gain[picked] - gain[0]) - (true - true[0]))
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(mean) <= 4 * error + 2e-3).all()
    # The test has power: without what the noise adds to the fit it would fail.
    assert error[1:].max() < 0.2


def test_the_gain_counts_what_sampling_the_rows_costs() -> None:
    """The second moment of few rows, without noise: their own spectrum must not be believed."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((30, 20))
    found = clean(x.T @ x / 30, 0.01, 20.0, 30.0)
    plain = clean(x.T @ x / 30, 0.01, 20.0, MANY)
    assert found.gain < plain.gain
