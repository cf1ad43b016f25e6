"""The sampler's distribution against exact probabilities, with the power to detect small errors.

The bits are a keystream under a constant key, injected through the private test hook, so these
tests are repeatable. At a level of 1e-6 it is unlikely that this key fails by chance.
"""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from scipy import special

from dpgmm_dist.privacy.noise import DiscreteGaussian
from dpgmm_dist.privacy.rounded_gaussian import RoundedGaussian

LEVEL = 1e-6
SAMPLES = 4_000_000
pytestmark = pytest.mark.statistical


class ConstantKey:
    """NOT PRIVATE: the words of ChaCha20 under a constant key."""

    def __init__(self, key: int) -> None:
        cipher = algorithms.ChaCha20(key.to_bytes(32, "little"), bytes(16))
        self.encryptor = Cipher(cipher, mode=None).encryptor()

    def words(self, count: int) -> np.ndarray:
        return np.frombuffer(self.encryptor.update(bytes(8 * count)), dtype=np.int64)


def repeatable(sigma: float, size: int = SAMPLES, key: int = 1) -> np.ndarray:
    return RoundedGaussian(_bits=lambda: ConstantKey(key)).draw(sigma, size)


def edges(sigma: float) -> list[int]:
    """Upper ends of the bins: whole numbers in steps of about sigma/8, out to 4.5 sigma."""
    reach = max(2, int(4.5 * sigma))
    step = max(1, int(sigma / 8))
    return list(range(-reach, reach, step))


def probabilities(sigma: float, ends: list[int]) -> np.ndarray:
    """Exact probabilities of round(sigma Z) in the bins (-inf, e0], (e0, e1], ..., (en, inf)."""
    with mpmath.workdps(50):
        below = [mpmath.ncdf((e + mpmath.mpf("0.5")) / mpmath.mpf(sigma)) for e in ends]
        shares = np.diff(np.array([mpmath.mpf(0), *below, mpmath.mpf(1)]))
        return np.array([float(s) for s in shares])


def p_value(samples: np.ndarray, sigma: float) -> float:
    """Least of the p-values (doubled) of chi-square over the bins and of the count in the tails."""
    ends = edges(sigma)
    expected = probabilities(sigma, ends) * samples.size
    counts = np.bincount(np.searchsorted(ends, samples, side="left"), minlength=len(ends) + 1)
    # The chi-square law needs counts that are not small, so thin bins are joined.
    thick = expected >= 20.0
    joined = np.append(counts[thick], counts[~thick].sum())
    wanted = np.append(expected[thick], expected[~thick].sum())
    chi2 = float(np.sum((joined - wanted) ** 2 / np.maximum(wanted, 1.0)))
    shape = special.gammaincc((joined.size - 1) / 2, chi2 / 2)
    tails, mean = int(counts[0] + counts[-1]), float(expected[0] + expected[-1])
    few, many = special.pdtr(tails, mean), 1.0 - special.pdtr(tails - 1, mean)
    return 2.0 * min(float(shape), 2.0 * float(few), 2.0 * float(many))


@pytest.mark.parametrize("sigma", [0.6, 1.0, 10.0, 777.25, 2.0**20 * 1.3, 2.0**40 * 1.1, 2.0**50])
def test_exact_probabilities_are_met(sigma: float) -> None:
    size = SAMPLES if sigma < 2**45 else 400_000
    assert p_value(repeatable(sigma, size), sigma) > LEVEL


@pytest.mark.parametrize("factor", [0.7, 0.995, 1.005, 1.3])
@pytest.mark.parametrize("sigma", [1.0, 10.0, 2.0**40 * 1.1])
def test_a_wrong_scale_is_rejected(sigma: float, factor: float) -> None:
    """Half a percent is detected, and so are 30 percent."""
    assert p_value(repeatable(sigma * factor), sigma) < LEVEL


def test_a_half_integer_shift_is_rejected() -> None:
    """floor(sigma Z) in place of round(sigma Z)."""
    floored = repeatable(10.0 * 2.0**20) >> 20
    assert p_value(floored, 10.0) < LEVEL
    assert p_value((repeatable(10.0 * 2.0**20) + (1 << 19)) >> 20, 10.0) > LEVEL


def test_a_truncated_tail_is_rejected() -> None:
    """Noise that never passes 4.5 sigma, as if redrawn there (7 samples in a million)."""
    samples = repeatable(10.0)
    assert np.abs(samples).max() > 50
    assert p_value(samples[np.abs(samples) < 45], 10.0) < LEVEL


def test_samples_are_uncorrelated_and_balanced() -> None:
    samples = repeatable(100.0)[: 1 << 21].astype(np.float64) / 100.0
    bound = 5.5 / np.sqrt(samples.size)  # two-sided chance 4e-8 each
    assert abs(samples.mean()) < bound
    for lag in (1, 2, 8, 8192):
        assert abs(np.mean(samples[:-lag] * samples[lag:])) < bound
        assert abs(np.mean(np.abs(samples[:-lag]) * np.abs(samples[lag:])) - 2 / np.pi) < bound


def test_agreement_with_the_discrete_gaussian_at_large_scale() -> None:
    """OpenDP's exact sampler and this one, both on system randomness, at one scale."""
    size, sigma = 20_000, 5000.0

    def two_sample(a: np.ndarray, b: np.ndarray) -> float:
        cuts = np.arange(-3.0, 3.01, 0.25) * sigma
        x = np.bincount(np.searchsorted(cuts, a), minlength=cuts.size + 1)
        y = np.bincount(np.searchsorted(cuts, b), minlength=cuts.size + 1)
        chi2 = float(np.sum((x - y) ** 2 / np.maximum(x + y, 1)))
        return float(special.gammaincc(cuts.size / 2, chi2 / 2))

    discrete = DiscreteGaussian().draw(sigma, size)
    assert two_sample(discrete, RoundedGaussian().draw(sigma, size)) > LEVEL
    for factor in (0.7, 1.3):
        assert two_sample(discrete, RoundedGaussian().draw(factor * sigma, size)) < LEVEL


def test_means_over_draws_are_independent_of_the_size_of_a_draw() -> None:
    """Small draws under fresh keys have the distribution of one large draw."""
    source = RoundedGaussian()
    samples = np.concatenate([source.draw(10.0, 7) for _ in range(3000)])
    assert p_value(samples, 10.0) > LEVEL
