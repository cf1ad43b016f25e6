"""The exact value of one sample: the integer to which a cell of random digits rounds.

Slow and certain: it uses integer arithmetic only, and reads as many further random digits as it
needs. It decides the few samples that the fast path of `rounded_gaussian` leaves undecided.
"""

from __future__ import annotations

from math import log, pi, sqrt

from dpgmm_dist.privacy.keystream import BitSource
from dpgmm_dist.privacy.normal_tail import tail_bounds

_WORD = 64
_GUARD = 8
"""Additional bits to which the tail is known, compared with the cell."""


class TailCell:
    """The tail probabilities U in ``[value, value + 1) / 2^bits`` of one undecided sample.

    Parameters
    ----------
    value, bits : int
        The digits read so far, U in (0, 1/2).
    sigma : float
        Exact standard deviation.
    stream : BitSource
        Where further digits of this sample come from: digits are only ever appended, so U stays
        uniform given the digits read.
    """

    def __init__(self, value: int, bits: int, sigma: float, stream: BitSource) -> None:
        self._value = value
        self._bits = bits
        self._stream = stream
        self._num, self._den = sigma.as_integer_ratio()

    def settle(self, low: int, high: int) -> int:
        """Return ``round(sigma Q^{-1}(U))``, known to lie between ``low`` and ``high``."""
        while low < high:
            middle = (low + high) // 2
            if self.exceeds(middle):
                low = middle + 1
            else:
                high = middle
        return low

    def search(self) -> int:
        """Return ``round(sigma Q^{-1}(U))`` without known bounds: bracket it, then bisect."""
        while self._value == 0:
            self._extend()
        sigma = self._num / self._den
        guess = int(sigma * _estimate_quantile(log(self._value) - self._bits * log(2.0)))
        step = 1 + int(sigma * 2.0**-40)
        low = high = max(guess, 0)
        while self.exceeds(high):
            low, high, step = high + 1, high + step, 2 * step
        while low > 0 and not self.exceeds(low - 1):
            low, high, step = max(low - step, 0), low - 1, 2 * step
        return self.settle(low, high)

    def exceeds(self, k: int) -> bool:
        """Whether ``sigma Q^{-1}(U) > k + 1/2``, so that the rounded value exceeds k.

        That is U < Q(x) at x = (2k + 1) / (2 sigma). It is decided when the whole cell is on one
        side of certified bounds on Q(x). Until then more digits are read. (U = Q(x) has probability
        zero.)
        """
        while True:
            precision = self._bits + _GUARD
            low, high = tail_bounds((2 * k + 1) * self._den, 2 * self._num, precision)
            if (self._value + 1) << _GUARD <= low:
                return True
            if self._value << _GUARD >= high:
                return False
            self._extend()

    def _extend(self) -> None:
        word = int(self._stream.words(1)[0]) % (1 << _WORD)
        self._value = (self._value << _WORD) | word
        self._bits += _WORD


def _estimate_quantile(log_p: float) -> float:
    """Estimate Q^{-1}(p) for p below 2^-10; only the start of a search, no proof rests on it."""
    z = sqrt(-2.0 * log_p)
    for _ in range(8):
        y = z
        for k in range(40, 0, -1):
            y = z + k / y
        # Newton's step on log Q(z), whose derivative is -1 / Mills ratio = -y.
        z += (-z * z / 2.0 - log(2.0 * pi) / 2.0 - log(y) - log_p) / y
    return z
