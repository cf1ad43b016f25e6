"""Uniform random bits for privacy noise: ChaCha20 under a key drawn from the operating system.

A keystream replaces uniform bits by bits that no feasible computation can distinguish from uniform.
So a guarantee that rests on it is computational. Linux makes its own random numbers with ChaCha20,
so there this adds no assumption. Reading every bit from the operating system takes 15 times longer.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_KEY_BYTES = 32
_BYTES_PER_KEY = 1 << 34
"""A new key is taken well before the block counter (2^32 blocks of 64 bytes) wraps."""


class BitSource(Protocol):
    """An endless stream of independent uniform 64-bit words."""

    def words(self, count: int) -> NDArray[np.int64]:
        """Return the next ``count`` words of the stream as int64."""
        ...


class Keystream:
    """Secure uniform words. There is no seed, no state to copy, and no way to repeat a stream.

    A stream belongs to the process that opened it. It cannot be pickled, and it refuses to be used
    in a forked child, which would repeat the bits of its parent.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._open()

    def words(self, count: int) -> NDArray[np.int64]:
        """Return the next ``count`` words as int64 (any of the 2^64 values, equally likely)."""
        if os.getpid() != self._pid:
            raise RuntimeError("a noise keystream crossed a fork; open a new one in each process")
        size = 8 * count
        if self._unused < size:
            self._open()
        self._unused -= size
        return np.frombuffer(self._encryptor.update(bytes(size)), dtype=np.int64)

    def _open(self) -> None:
        # Imported late, because reading a release does not need it.
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

        key = algorithms.ChaCha20(os.urandom(_KEY_BYTES), nonce=bytes(16))
        self._encryptor = Cipher(key, mode=None).encryptor()
        self._unused = _BYTES_PER_KEY

    def __reduce__(self) -> Any:
        raise TypeError("a noise keystream cannot be pickled or copied")

    def __repr__(self) -> str:
        return "Keystream()"
