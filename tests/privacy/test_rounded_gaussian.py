"""The sampler is the right function of its random digits, on every path.

Digits are injected through the private test hook. So each draw can be compared with the exact value
of ``round(sigma Q^{-1}(U))`` that mpmath computes from the same digits.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from dpgmm_dist.errors import SpecError
from dpgmm_dist.privacy import gaussian_cell, keystream, rounded_gaussian
from dpgmm_dist.privacy.gaussian_cell import TailCell
from dpgmm_dist.privacy.keystream import Keystream
from dpgmm_dist.privacy.normal_quantile import DEGREE, OCTAVES, TAIL_BITS, quantile_table
from dpgmm_dist.privacy.normal_tail import tail_bounds
from dpgmm_dist.privacy.rounded_gaussian import RoundedGaussian

SIGN = -(1 << 63)


class FixedWords:
    """A stream of given words that fails when none are left."""

    def __init__(self, values: Sequence[int]) -> None:
        self.unread = [((v + (1 << 63)) % (1 << 64)) - (1 << 63) for v in values]

    def words(self, count: int) -> np.ndarray:
        taken, self.unread = self.unread[:count], self.unread[count:]
        assert len(taken) == count, "the sampler read more digits than expected"
        return np.array(taken, dtype=np.int64)


class Repeated:
    """A stream of given words, all at once, then of one word again and again."""

    def __init__(self, first: Sequence[int], then: int) -> None:
        self.first, self.then = list(first), then

    def words(self, count: int) -> np.ndarray:
        taken, self.first = self.first or [self.then] * count, []
        return np.array(taken, dtype=np.int64)


def draw(sigma: float, words: Sequence[int], samples: int = 1) -> list[int]:
    """Draw with the given digits, and check that all of them are used."""
    stream = FixedWords(words)
    out = RoundedGaussian(_bits=lambda: stream).draw(sigma, samples)
    assert not stream.unread, "the sampler read fewer digits than expected"
    return [int(n) for n in out]


def exact(sigma: float, digits: int, bits: int) -> set[int]:
    """All ``round(sigma Q^{-1}(U))`` for U in the cell [digits, digits + 1) / 2^bits."""
    with mpmath.workprec(bits + 300):
        values = []
        for end in (digits, digits + 1):
            p = mpmath.ldexp(mpmath.mpf(end), -bits)
            z = mpmath.sqrt(-2 * mpmath.log(2 * p))
            for _ in range(400):
                gap = mpmath.log(mpmath.erfc(z / mpmath.sqrt(2)) / 2) - mpmath.log(p)
                density = mpmath.exp(-z * z / 2) / mpmath.sqrt(2 * mpmath.pi)
                step = gap * (mpmath.erfc(z / mpmath.sqrt(2)) / 2) / density
                z += step
                if abs(step) < mpmath.ldexp(1, -bits - 100):
                    break
            values.append(int(mpmath.floor(sigma * z + mpmath.mpf(1) / 2)))
        return set(range(values[1], values[0] + 1))


def boundary(sigma: float, k: int, bits: int) -> int:
    """Digits of the cell of 2^-bits that holds Q((k + 1/2) / sigma)."""
    num, den = sigma.as_integer_ratio()
    low, high = tail_bounds((2 * k + 1) * den, 2 * num, bits + 16)
    assert low >> 16 == high >> 16
    return low >> 16


@pytest.mark.parametrize("log2_sigma", [-20, -1, 0, 3.3, 10, 20, 30, 40, 47.7, 52, 55])
def test_draws_are_the_exact_function_of_their_digits(log2_sigma: float) -> None:
    """Random digits, magnitudes of U down to 2^-60, both signs: the same integers as mpmath."""
    rng = np.random.default_rng(int(10 * log2_sigma) + 1000)
    sigma = 2.0**log2_sigma
    for shift in (0, 0, 0, 1, 2, 5, 9, 14, 18, 19, 20, 30, 45):
        word = int(rng.integers(0, 1 << TAIL_BITS)) >> shift
        sign = int(rng.integers(0, 2))
        further = [int(rng.integers(0, 1 << 63)) * 2 + 1 for _ in range(6)]
        stream = FixedWords([word + sign * SIGN, *further])
        (got,) = RoundedGaussian(_bits=lambda s=stream: s).draw(sigma, 1)
        digits, bits = word, TAIL_BITS + 1
        for extra in further[: 6 - len(stream.unread)]:
            digits, bits = (digits << 64) | extra, bits + 64
        assert exact(sigma, digits, bits) == {-got if sign else got}


def test_a_product_is_the_exact_sum_of_two_floats() -> None:
    rng = np.random.default_rng(2)
    b = rng.uniform(0.1, 6.0, 50)
    for a in (*rng.uniform(1.0, 2.0, 20).tolist(), 2.0**55, 2.0**-32, (2.0 - 2.0**-52) * 2.0**54):
        product, error = rounded_gaussian._exact_product(a, b)
        for factor, high, low in zip(b.tolist(), product.tolist(), error.tolist(), strict=True):
            assert high == a * factor
            assert Fraction(high) + Fraction(low) == Fraction(a) * Fraction(factor)


@pytest.mark.parametrize("sigma", [2.0**-32, 1.7, math.pi * 2.0**25, 2.0**40 * 1.3, 2.0**55])
def test_the_scaled_table_is_the_table_times_sigma(sigma: float) -> None:
    table, scaled = quantile_table(), rounded_gaussian._scale(sigma)
    for piece in (0, 45, 320, 607):
        z = Fraction(float(table.anchor[piece])) + Fraction(float(table.anchor_low[piece]))
        whole, rest = int(scaled.whole[piece + 1]), float(scaled.rest[piece + 1])
        slack = Fraction(sigma) * Fraction(float(table.slack[piece]))
        assert abs(rest) <= 0.5
        error = whole + Fraction(rest) - Fraction(sigma) * z
        assert abs(error) < slack / 2**20 + Fraction(2) ** -50
        width = int(table.width_log2[piece])
        for n, power in enumerate(scaled.powers, start=1):
            assert power[piece + 1] == math.ldexp(
                sigma * table.coefficients[n - 1, piece], -n * width
            )
        added = Fraction(1, 2) - Fraction(float(scaled.limit[piece + 1])) - slack
        least = Fraction(2) ** -45 - Fraction(2) ** -53  # less the rounding of the limit itself
        assert least <= added <= slack / 2**19 + Fraction(2) ** -44
    assert len(scaled.powers) == DEGREE
    not_covered = (scaled.centre, scaled.whole, scaled.rest, *scaled.powers)
    assert scaled.limit[0] == -1.0 and not any(entries[0] for entries in not_covered)


def test_every_term_of_a_polynomial_is_evaluated() -> None:
    scaled = rounded_gaussian._scale(1.0)
    ones = np.ones_like(scaled.rest)
    powers = tuple(n * ones for n in range(1, DEGREE + 1))
    plain = replace(scaled, powers=powers, rest=0.25 * ones)
    piece, value = rounded_gaussian._evaluate(scaled.centre[1:] - 3, plain)
    assert np.array_equal(piece, np.arange(1, len(ones)))
    assert set(value.tolist()) == {0.25 + sum(n * (-3.0) ** n for n in range(1, DEGREE + 1))}


@pytest.mark.parametrize("guess", [0.0, 0.5, 0.99, 1.0, 1.01, 2.0, 9.0])
def test_a_search_ends_at_the_same_value_wherever_it_starts(monkeypatch, guess: float) -> None:
    true = gaussian_cell._estimate_quantile
    for sigma in (0.05, 0.3, 7.0, 2.0**20, 2.0**45):
        for tail in (3 << 55, 12345, 1):
            found = TailCell(tail, TAIL_BITS + 1, sigma, Repeated([], 7 << 50)).search()
            with monkeypatch.context() as patched:
                patched.setattr(
                    gaussian_cell, "_estimate_quantile", lambda log_p: guess * true(log_p)
                )
                again = TailCell(tail, TAIL_BITS + 1, sigma, Repeated([], 7 << 50)).search()
            assert again == found


@pytest.mark.parametrize("sigma", [0.3, 5.0, 2.0**20 * 1.1, 2.0**52])
def test_the_fast_path_says_what_the_slow_one_says(sigma: float) -> None:
    rng = np.random.default_rng(8)
    tails = [
        int(rng.integers(1 << 61, 1 << 62)) >> int(shift) for shift in (*range(25), 0, 0, 1, 1)
    ]
    words = [w + int(rng.integers(0, 2)) * SIGN for w in tails]
    rest = 0x5A17 << 40
    got = RoundedGaussian(_bits=lambda: Repeated(words, rest)).draw(sigma, len(words))
    for tail, word, n in zip(tails, words, got.tolist(), strict=True):
        slow = TailCell(tail, TAIL_BITS + 1, sigma, Repeated([], rest)).search()
        assert n == (-slow if word < 0 else slow)


def test_error_bound_of_the_fast_path_holds() -> None:
    """The float value is within 1/2 - limit of sigma z, for cells of every piece."""
    rng = np.random.default_rng(7)
    table = quantile_table()
    half = np.int64(1) << (table.width_log2 - 1)
    tail = table.centre + rng.integers(-half, half)
    worst = 0.0
    for sigma in (1.7, 2.0**20 * 1.1, 2.0**40 * 1.3, 2.0**55):
        scaled = rounded_gaussian._scale(sigma)
        piece, value = rounded_gaussian._evaluate(tail, scaled)
        assert np.array_equal(piece, np.arange(1, table.centre.size + 1))
        for i in range(0, table.centre.size, 37):
            with mpmath.workprec(200):
                p = mpmath.ldexp(mpmath.mpf(int(tail[i])), -TAIL_BITS - 1)
                z = mpmath.mpf(float(table.anchor[i]))
                for _ in range(8):
                    gap = mpmath.erfc(z / mpmath.sqrt(2)) / 2 - p
                    z += gap * mpmath.sqrt(2 * mpmath.pi) * mpmath.exp(z * z / 2)
                error = abs(sigma * z - int(scaled.whole[i + 1]) - mpmath.mpf(float(value[i])))
                worst = max(worst, float(error / (0.5 - mpmath.mpf(scaled.limit[i + 1]))))
    assert 0.01 < worst <= 1.0


@pytest.mark.parametrize("sigma", [0.7, 3.0, 1000.5, 2.0**31 * 1.01, 2.0**50 * 1.7])
@pytest.mark.parametrize("z", [0.001, 0.4, 1.9, 4.4])
@pytest.mark.parametrize("levels", [1, 2, 4])
def test_ambiguous_cells_are_refined(sigma: float, z: float, levels: int) -> None:
    """Cells that hold a rounding boundary, one or several times, and then either side of it."""
    k = int(sigma * z)
    bits = TAIL_BITS + 1 + 64 * levels
    at = boundary(sigma, k, bits)
    words = [at >> (64 * levels)]
    words += [(at >> (64 * i)) & ((1 << 64) - 1) for i in range(levels - 1, 0, -1)]
    last = at & ((1 << 64) - 1)
    assert 0 < last < (1 << 64) - 1, "unlucky boundary: choose another sigma"
    for final, magnitude in ((last - 1, k + 1), (last + 1, k)):
        assert draw(sigma, [*words, final]) == [magnitude]
        assert draw(sigma, [words[0] + SIGN, *words[1:], final]) == [-magnitude]
        # The cell that holds the boundary stays ambiguous, and one more word decides.
    assert draw(sigma, [*words, last, 0]) == [k + 1]
    assert draw(sigma, [*words, last, (1 << 64) - 1]) == [k]


def test_refined_digits_come_after_the_chunk_in_order() -> None:
    """Of two ambiguous samples in one chunk each takes the next word."""
    sigma = 12.0
    first, second = boundary(sigma, 3, 63), boundary(sigma, 20, 63)
    plain = [5 << 58, 9 << 58]
    fills = [0, (1 << 64) - 1]  # low digits: larger z; high digits: smaller z
    alone = draw(sigma, plain, 2)
    words = [plain[0], first, second + SIGN, plain[1], *fills]
    assert draw(sigma, words, 4) == [alone[0], 4, -20, alone[1]]


@pytest.mark.parametrize("sigma", [0.9, 2.0**12, 2.0**54])
@pytest.mark.parametrize("zeros", [0, 1, 5])
def test_tail_has_no_cap(sigma: float, zeros: int) -> None:
    """U of 2^-60 to 2^-380: |z| up to 22, limited by the random digits alone."""
    words = [6] if zeros == 0 else [0] * zeros + [3 << 59]
    words.append(0x123456789ABCDEF1)
    stream = FixedWords(words)
    (got,) = RoundedGaussian(_bits=lambda: stream).draw(sigma, 1)
    used = words[: len(words) - len(stream.unread)]
    digits, bits = 0, TAIL_BITS + 1 - 64
    for word in used:
        digits, bits = (digits << 64) | word, bits + 64
    assert exact(sigma, digits, bits) == {got}
    assert got > 6 * sigma


def test_pieces_with_errors_above_a_half_are_searched() -> None:
    """At sigma = 2^55 the far pieces do not even bound N to two integers; the result is exact."""
    rng = np.random.default_rng(11)
    limits = rounded_gaussian._scale(2.0**55).limit
    assert np.sum(limits[1:] < 0.0) > 100
    for octave in (43, 45, 48, 50):
        word = (1 << octave) + int(rng.integers(0, 1 << octave))
        stream = FixedWords([word, 77 << 57, 1, 1])
        (got,) = RoundedGaussian(_bits=lambda s=stream: s).draw(2.0**55, 1)
        digits, bits = word, TAIL_BITS + 1
        for extra in [77 << 57, 1, 1][: 3 - len(stream.unread)]:
            digits, bits = (digits << 64) | extra, bits + 64
        assert exact(2.0**55, digits, bits) == {got}


def test_edges_of_the_covered_range() -> None:
    """The smallest covered w, the largest w that is not covered, and the median."""
    for word in ((1 << TAIL_BITS - OCTAVES) - 1, 1 << (TAIL_BITS - OCTAVES), (1 << TAIL_BITS) - 1):
        for sigma in (1.0, 2.0**20):
            (expected,) = exact(sigma, word, TAIL_BITS + 1)
            assert draw(sigma, [word]) == [expected]
    # Bit 62 is not used: the same sample with it and without.
    assert draw(5.0, [(1 << 60) + (1 << 62)]) == draw(5.0, [1 << 60])


def test_chunks_join() -> None:
    """A draw longer than a chunk is the function of each of its words, in order."""
    rng = np.random.default_rng(3)
    words = [int(w) for w in rng.integers(-(1 << 63), 1 << 63, 3 * 8192 + 5)]
    together = draw(50.0, words, len(words))
    for i in (0, 8191, 8192, 8193, 16384, len(words) - 1):
        assert draw(50.0, [words[i]]) == [together[i]]
    assert together[8192] != together[0]


def test_interface_and_ranges() -> None:
    source = RoundedGaussian()
    assert (source.name, source.accounting, source.private) == ("gaussian", "gdp", True)
    assert source.draw(3.0, 0).shape == (0,)
    assert source.draw(np.float64(3.0), 4).dtype == np.int64
    for sigma in (0.0, -1.0, math.nan, math.inf, 2.0**56, 2.0**-33, 1):
        with pytest.raises(SpecError, match=f"sigma must be .* got sigma={re.escape(str(sigma))}"):
            source.draw(sigma, 1)
    with pytest.raises(SpecError, match="size must not be negative, got size=-1"):
        source.draw(1.0, -1)


def test_injected_digits_are_never_private() -> None:
    assert RoundedGaussian(_bits=lambda: FixedWords([])).private is False


def test_each_draw_takes_a_fresh_key_from_the_operating_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    urandom = os.urandom

    def counting(size: int) -> bytes:
        sizes.append(size)
        return urandom(size)

    monkeypatch.setattr(keystream.os, "urandom", counting)
    source = RoundedGaussian()
    draws = [source.draw(2.0**50, 3) for _ in range(3)]
    assert sizes == [32, 32, 32]
    assert len({int(n) for d in draws for n in d}) == 9


def test_a_stream_takes_a_new_key_before_the_counter_comes_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys: list[int] = []
    urandom = os.urandom
    monkeypatch.setattr(keystream.os, "urandom", lambda size: keys.append(size) or urandom(size))
    monkeypatch.setattr(keystream, "_BYTES_PER_KEY", 64)
    stream = Keystream()
    words = [*stream.words(8)]
    assert keys == [32]
    words += [*stream.words(1), *stream.words(7)]
    assert keys == [32, 32]
    words += [*stream.words(1)]
    assert keys == [32, 32, 32]
    assert len(set(words)) == 17


def _child_words(stream: Keystream, answers: multiprocessing.SimpleQueue[str]) -> None:
    try:
        stream.words(1)
    except RuntimeError as error:
        answers.put(str(error))
    else:
        answers.put("no error")


def test_a_stream_refuses_to_cross_a_fork() -> None:
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_child_words, args=(Keystream(), answers))
    child.start()
    assert "crossed a fork" in answers.get()
    child.join()


def test_a_stream_cannot_be_copied_or_pickled() -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Keystream())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_draw_distinct_noise(method: str) -> None:
    """Children of one parent, and the parent: 64 samples at 2^50, no two alike."""
    source = RoundedGaussian()
    source.draw(2.0**50, 1)
    with multiprocessing.get_context(method).Pool(3) as pool:
        tasks = [pool.apply_async(source.draw, (2.0**50, 16)) for _ in range(3)]
        samples = [int(n) for task in tasks for n in task.get(300)]
    samples += [int(n) for n in source.draw(2.0**50, 16)]
    assert len(set(samples)) == 64
