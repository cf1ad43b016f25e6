"""Directed rounding: exact fractions to floats, rounded once and on the safe side."""

from __future__ import annotations

import math
from fractions import Fraction


def round_up(value: Fraction) -> float:
    """Return the least float that is not below ``value``."""
    nearest = float(value)
    return nearest if Fraction(nearest) >= value else math.nextafter(nearest, math.inf)


def round_down(value: Fraction) -> float:
    """Return the greatest float that is not above ``value``."""
    nearest = float(value)
    return nearest if Fraction(nearest) <= value else math.nextafter(nearest, -math.inf)


def sqrt_up(value: Fraction) -> float:
    """Return the least float that is not below the square root of ``value``."""
    root = math.nextafter(math.sqrt(round_down(value)), 0.0)
    while Fraction(root) ** 2 < value:
        root = math.nextafter(root, math.inf)
    return root


def sqrt_down(value: Fraction) -> float:
    """Return the greatest float that is not above the square root of ``value``."""
    root = math.nextafter(math.sqrt(round_up(value)), math.inf)
    while Fraction(root) ** 2 > value:
        root = math.nextafter(root, 0.0)
    return root
