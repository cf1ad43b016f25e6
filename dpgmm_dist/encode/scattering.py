"""Wavelet scattering of images. The features have no weights, so they are not learnt from data.

Scattering of two orders with Morlet wavelets at two scales and eight angles (Mallat 2012; Bruna
and Mallat 2013). The features are local averages, over 4 x 4 pixels, of the image, of the moduli
of its wavelet transform, and of the moduli of the wavelet transform of those. Every image is
transformed alone, so its features depend on nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from dpgmm_dist.errors import SpecError

Floats = NDArray[np.float32]
Complex = NDArray[np.complex64]

SCALES = 2
ANGLES = 8
STEP = 2**SCALES
"""Pixels that an output position averages over, in each direction."""
CHANNELS = 1 + SCALES * ANGLES + ANGLES * ANGLES
_GROUP = 3
_VARIANCE_FLOOR = 1e-5
_SIGMA = 0.8
_FREQUENCY = 3 * np.pi / 4
_SLANT = 4.0 / ANGLES


@dataclass(frozen=True)
class Scattering:
    """Scattering features of grey images, normalised within groups of three channels.

    Parameters
    ----------
    height, width : size of the images, multiples of 4.
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < STEP or self.width < STEP or self.height % STEP or self.width % STEP:
            raise SpecError(
                f"scattering needs images whose sides are multiples of {STEP}, got "
                f"{self.height}x{self.width}: give another --shape"
            )

    @property
    def features(self) -> int:
        """Number of features of an image."""
        return int(CHANNELS * (self.height // STEP) * (self.width // STEP))

    @cached_property
    def _wavelets(self) -> Complex:
        """(scales, angles, h, w) Fourier transforms on the padded grid."""
        angles = [np.pi * (ANGLES - 1 - i) / ANGLES for i in range(ANGLES)]
        size = self._padded
        bank = [[_morlet(size, j, angle) for angle in angles] for j in range(SCALES)]
        return np.array(bank, dtype=np.complex64)

    @cached_property
    def _average(self) -> Floats:
        """(h, w) Fourier transform of the averaging window on the padded grid."""
        window = _gabor(self._padded, _SIGMA * 2 ** (SCALES - 1), 0.0, 0.0, 1.0).real
        return np.fft.fft2(window / window.sum()).real.astype(np.float32)

    @property
    def _padded(self) -> tuple[int, int]:
        return self.height + 2 * STEP, self.width + 2 * STEP

    def transform(self, image: Floats) -> Floats:
        """Features (f,) of one image (height, width) with values in [0, 1]."""
        mode = "reflect" if min(image.shape) > STEP else "symmetric"
        padded = np.pad(image.astype(np.float32), STEP, mode=mode)  # type: ignore[call-overload]
        spectrum = fft.fft2(padded)
        spectra = fft.fft2(_modulus(fft.ifft2(spectrum * self._wavelets)))
        # Wavelets of the second scale leave no frequencies above a quarter of the sampling rate,
        # so every second pixel is enough.
        folded = _fold(spectra[0][:, None] * self._wavelets[1], 2)
        second_scale = fft.fft2(_modulus(fft.ifft2(folded)))
        small = self._average_at_half
        averaged = [
            _fold(spectrum * self._average, STEP)[None],
            _fold(spectra * self._average, STEP).reshape(SCALES * ANGLES, *self._coarse),
            _fold(second_scale * small, STEP // 2).reshape(ANGLES * ANGLES, *self._coarse),
        ]
        maps = fft.ifft2(np.concatenate(averaged)).real[:, 1:-1, 1:-1]
        groups = maps.reshape(CHANNELS // _GROUP, -1)
        centred = groups - groups.mean(axis=1, keepdims=True)
        normal = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + _VARIANCE_FLOOR)
        return np.asarray(normal.reshape(-1))

    @property
    def _coarse(self) -> tuple[int, int]:
        return self._padded[0] // STEP, self._padded[1] // STEP

    @cached_property
    def _average_at_half(self) -> Floats:
        """Fourier transform of the averaging window on the grid of every second pixel."""
        h, w = self._padded
        rows, columns = _low_frequencies(h), _low_frequencies(w)
        return np.asarray(self._average[np.ix_(rows, columns)])


def _low_frequencies(size: int) -> NDArray[np.int64]:
    """Indices of the frequencies that a grid of half the size has too."""
    return np.asarray(np.rint(np.fft.fftfreq(size // 2) * (size // 2)).astype(np.int64) % size)


def _fold(spectra: Complex, factor: int) -> Complex:
    """Spectra (..., h, w) of the maps at every ``factor``-th position."""
    *lead, h, w = spectra.shape
    blocks = spectra.reshape(*lead, factor, h // factor, w)
    rows = sum(blocks[..., i, :, :] for i in range(factor))
    blocks = np.asarray(rows).reshape(*lead, h // factor, factor, w // factor)
    folded = sum(blocks[..., i, :] for i in range(factor))
    return np.asarray(folded * np.float32(1 / factor**2))


def _modulus(values: Complex) -> Floats:
    """Absolute values. np.abs also guards against overflow, at four times the cost."""
    return np.asarray(np.sqrt(values.real**2 + values.imag**2))


def _morlet(size: tuple[int, int], scale: int, angle: float) -> NDArray[np.complex128]:
    """Fourier transform of a Morlet wavelet: a wave in a Gaussian window, with mean zero."""
    sigma, frequency = _SIGMA * 2**scale, _FREQUENCY / 2**scale
    wave = _gabor(size, sigma, angle, frequency, _SLANT)
    window = _gabor(size, sigma, angle, 0.0, _SLANT)
    norm = 2 * np.pi * sigma**2 / _SLANT
    return np.asarray(np.fft.fft2((wave - wave.sum() / window.sum() * window) / norm))


def _gabor(
    size: tuple[int, int], sigma: float, angle: float, frequency: float, slant: float
) -> NDArray[np.complex128]:
    """A complex wave along ``angle`` in a Gaussian window, wrapped around the grid."""
    total = np.zeros(size, dtype=np.complex128)
    cosine, sine = np.cos(angle), np.sin(angle)
    for i in range(-2, 3):
        for j in range(-2, 3):
            x = np.arange(size[0])[:, None] + i * size[0]
            y = np.arange(size[1])[None, :] + j * size[1]
            along, across = cosine * x + sine * y, -sine * x + cosine * y
            window = np.exp(-(along**2 + (slant * across) ** 2) / (2 * sigma**2))
            total += window * np.exp(1j * frequency * along)
    return total
