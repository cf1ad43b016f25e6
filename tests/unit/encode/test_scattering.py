from __future__ import annotations

import numpy as np
import pytest

from dpgmm_dist.encode.scattering import CHANNELS, STEP, Scattering
from dpgmm_dist.errors import SpecError


def grating(pitch: float, angle: float, shift: float = 0.0, size: int = 32) -> np.ndarray:
    y, x = np.mgrid[0:size, 0:size]
    return 0.5 + 0.5 * np.sin(pitch * (np.cos(angle) * y + np.sin(angle) * x) + shift)


def test_wavelets_have_no_mean_and_the_window_has_mean_one() -> None:
    s = Scattering(32, 32)
    assert np.abs(s._wavelets[:, :, 0, 0]).max() < 1e-6
    assert s._average[0, 0] == pytest.approx(1, abs=1e-6)


def test_an_image_gives_81_channels_at_every_fourth_pixel() -> None:
    s = Scattering(28, 32)
    features = s.transform(np.random.default_rng(0).random((28, 32)))
    assert features.shape == (s.features,) == (CHANNELS * 7 * 8,)
    assert np.isfinite(features).all()
    assert np.isfinite(s.transform(np.zeros((28, 32)))).all()


def test_a_small_shift_changes_little_and_an_angle_much() -> None:
    """Scattering is stable under small shifts, unlike pixels, and distinguishes angles."""
    s = Scattering(32, 32)

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.linalg.norm(a - b) / np.linalg.norm(a))

    image, shifted, turned = (
        grating(1.5, 0.3),
        grating(1.5, 0.3, shift=1.5),
        grating(1.5, 0.3 + np.pi / 2),
    )
    by_shift = distance(s.transform(image), s.transform(shifted))
    assert by_shift < 0.5 * distance(image - 0.5, shifted - 0.5)
    assert distance(s.transform(image), s.transform(turned)) > 2 * by_shift


def test_the_wavelet_along_the_grating_has_the_largest_response() -> None:
    s = Scattering(32, 32)
    spectrum = np.fft.fft2(np.pad(grating(3 * np.pi / 4, 0.0) - 0.5, STEP))
    energy = (np.abs(spectrum * s._wavelets[0]) ** 2).sum(axis=(1, 2))
    # Angles run from 7 pi / 8 down to 0, and the last one is along the rows.
    assert int(np.argmax(energy)) == 7


@pytest.mark.parametrize("size", [(30, 28), (2, 4)])
def test_sizes_that_are_not_multiples_of_four_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(SpecError, match="multiples of 4"):
        Scattering(*size)
