"""Conversions between (epsilon, delta), zCDP (rho) and Gaussian differential privacy (mu).

A release budget is given as (epsilon, delta) and spent as rho (rho adds up, any mechanism) or as
mu^2 (adds up, exact Gaussians only). Every function of this module rounds to the safe side: budgets
down, costs up. This is ensured as follows:

* zCDP: any order alpha gives a valid conversion. A good alpha is searched in floating point, and
  the bound at that alpha is moved to the safe side by more than its evaluation error.
* Gaussian: a candidate is searched in floating point. It is returned only after
  `delta <= requested` has been proved for it in integer arithmetic (`normal_tail`). A candidate
  that cannot be proved is moved to the safe side and tried again.

Sources: Canonne, Kamath and Steinke 2020 (arXiv 2004.00010), Corollary 13; Balle and Wang 2018
(arXiv 1805.06530), Theorem 8; Dong, Roth and Su 2019 (arXiv 1905.02383), Corollaries 1 and 3.
docs/noise.md has the proofs.
"""

from __future__ import annotations

from collections.abc import Callable
from math import erfc, exp, inf, isfinite, log, log1p, nextafter, pi, sqrt

from dpgmm_dist.errors import SpecError
from dpgmm_dist.privacy.normal_tail import exp_bounds, tail_bounds

EPSILON_RANGE = (1e-4, 1000.0)
"""Epsilons that can be asked for, far wider than what is useful or private."""

DELTA_RANGE = (1e-300, 1.0)
"""Deltas that can be asked for, ends excluded."""

_MARGIN = 2.0**-47
"""Relative error allowed for sums of a few libm terms: 64 ulps, where 12 are enough."""


def rho_from_epsilon_delta(epsilon: float, delta: float) -> float:
    """Return the largest zCDP rho that implies (epsilon, delta), rounded down.

    Parameters
    ----------
    epsilon : float
        Pure budget, in `EPSILON_RANGE`.
    delta : float
        Failure probability, inside `DELTA_RANGE`.

    Raises
    ------
    SpecError
        If a value is outside its range.

    Notes
    -----
    With a = alpha - 1, rho-zCDP implies (epsilon, delta) if for some a > 0

        a (a+1) rho - a epsilon - H(a) <= log(delta),   H(a) = a log(1 + 1/a) + log(1 + a),

    so rho = max over a of (log(delta) + a epsilon + H(a)) / (a (a+1)). The condition is convex,
    so the maximand is quasiconcave and a golden-section search finds its maximum. Any a is safe.
    """
    _check_epsilon(epsilon)
    _check_delta(delta)

    def bound(log_a: float) -> float:
        a = exp(log_a)
        terms = (log(delta), a * epsilon, _entropy(a))
        return _down(sum(terms), terms) / (a * (1.0 + a)) * (1.0 - _MARGIN)

    return max(0.0, -_least(lambda log_a: -bound(log_a)))


def epsilon_from_rho(rho: float, delta: float) -> float:
    """Return an epsilon such that rho-zCDP implies (epsilon, delta), rounded up.

    Raises SpecError if rho is not finite and non-negative, or delta is out of range.
    """
    _check_cost("rho", rho)
    _check_delta(delta)
    if rho == 0.0:
        return 0.0
    # Costs below 1e-30 are counted as 1e-30, so that the search range for the order is finite.
    rho = max(rho, 1e-30)

    def bound(log_a: float) -> float:
        a = exp(log_a)
        terms = (a * (1.0 + a) * rho, -log(delta), -_entropy(a))
        return -_down(-sum(terms), terms) / a

    least = _least(bound)
    return max(0.0, least + abs(least) * _MARGIN)


def delta_from_rho(rho: float, epsilon: float) -> float:
    """Return a delta such that rho-zCDP implies (epsilon, delta), rounded up.

    Raises SpecError if rho is not finite and non-negative, or epsilon is out of range.
    """
    _check_cost("rho", rho)
    _check_epsilon(epsilon, zero=True)
    if rho == 0.0:
        return 0.0
    rho = max(rho, 1e-30)

    def bound(log_a: float) -> float:
        a = exp(log_a)
        terms = (a * (1.0 + a) * rho, -a * epsilon, -_entropy(a))
        return -_down(-sum(terms), terms)

    least = _least(bound)
    if least >= 0.0:
        return 1.0
    if least < -746.0:  # exp(-746) is below the smallest positive float
        return 5e-324
    return min(1.0, nextafter(exp(least) * (1.0 + _MARGIN), inf))


def mu_from_epsilon_delta(epsilon: float, delta: float) -> float:
    """Return the largest mu whose Gaussian mechanism is (epsilon, delta)-DP, rounded down.

    Parameters
    ----------
    epsilon : float
        Pure budget, in `EPSILON_RANGE`.
    delta : float
        Failure probability, inside `DELTA_RANGE`.

    Raises
    ------
    SpecError
        If a value is outside its range.

    Notes
    -----
    mu is L2 sensitivity over sigma; independent answers compose to ``sqrt(sum mu_j^2)`` exactly.
    The returned value is proved: ``delta_from_mu(mu, epsilon) <= delta`` in exact arithmetic.
    """
    _check_epsilon(epsilon)
    _check_delta(delta)
    target = _log_of_delta(delta)
    low, high = log(1e-9), log(1e3)
    while high - low > 1e-15 * max(1.0, abs(low)):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        if _log_delta(exp(middle), epsilon) <= target:
            low = middle
        else:
            high = middle
    return _settle(exp(low), -1.0, lambda mu: _is_proved(mu, epsilon, delta))


def epsilon_from_mu(mu: float, delta: float) -> float:
    """Return the least epsilon for which mu-Gaussian DP implies (epsilon, delta), rounded up.

    Above the largest epsilon of `EPSILON_RANGE`, the larger bound of zCDP is returned instead.
    Raises SpecError if mu is not finite and non-negative, or delta is out of range.
    """
    _check_cost("mu", mu)
    _check_delta(delta)
    if mu == 0.0:
        return 0.0
    mu = max(mu, 1e-7)  # count tiny costs as 1e-7: their differences of tails would cancel
    target = _log_of_delta(delta)
    ceiling = EPSILON_RANGE[1]
    if mu > 80.0 or _log_delta(mu, ceiling) > target:
        return epsilon_from_rho(nextafter(mu * mu / 2.0, inf), delta)
    if _is_proved(mu, 0.0, delta):
        return 0.0
    low, high = 0.0, ceiling
    while high - low > 1e-15 * high:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        if _log_delta(mu, middle) <= target:
            high = middle
        else:
            low = middle
    return _settle(high, 1.0, lambda epsilon: _is_proved(mu, epsilon, delta))


def delta_from_mu(mu: float, epsilon: float) -> float:
    """Return the delta for which mu-Gaussian DP is (epsilon, delta)-DP, rounded up.

    Raises SpecError if mu is not finite and non-negative, or epsilon is out of range.
    """
    _check_cost("mu", mu)
    _check_epsilon(epsilon, zero=True)
    if mu == 0.0:
        return 0.0
    if mu > 80.0:
        return 1.0
    mu = max(mu, 1e-7)
    # The estimate only chooses the precision. Below the least delta an upper bound is enough.
    estimate = max(_log_delta(mu, epsilon), log(DELTA_RANGE[0]))
    bits = 72 + int(-estimate * 1.45)
    return min(1.0, nextafter(_delta_upper(mu, epsilon, bits) / (1 << bits), inf))


def _is_proved(mu: float, epsilon: float, delta: float) -> bool:
    """Whether (epsilon, delta) of the Gaussian mechanism is proved in integer arithmetic."""
    num, den = delta.as_integer_ratio()
    bits = 104 + den.bit_length() - num.bit_length()
    return _delta_upper(mu, epsilon, bits) * den <= num << bits


def _delta_upper(mu: float, epsilon: float, bits: int) -> int:
    """Upper bound, with ``bits`` fractional bits, on the delta of the Gaussian mechanism.

    ``delta = Q(t) - e^epsilon Q(t + mu)`` with ``t = epsilon/mu - mu/2`` (Balle and Wang), where t
    is an exact ratio of the two floats.
    """
    m, n = mu.as_integer_ratio()
    e, f = epsilon.as_integer_ratio()
    # t = e n / (f m) - m / (2 n); t + mu has plus in place of minus.
    ratio, half_mu, den = 2 * e * n * n, f * m * m, 2 * f * m * n
    extra = int(1.45 * epsilon) + 8
    first = tail_bounds(ratio - half_mu, den, bits)[1]
    second = tail_bounds(ratio + half_mu, den, bits + extra)[0]
    growth = exp_bounds(e, f, bits)[0]
    return first - (second * growth >> (bits + extra)) + 1


def _settle(start: float, direction: float, proved: Callable[[float], bool]) -> float:
    """Move from ``start`` to the safe side, in doubling relative steps, until proved."""
    step = 1e-14
    value = start
    while not proved(value):
        value = start * (1.0 + direction * step)
        step *= 4.0
        if step > 1e-2:
            raise ArithmeticError("no value near the numerical solution could be proved safe")
    return value


def _log_of_delta(delta: float) -> float:
    """log(delta), accurate near 1 too."""
    return log(delta) if delta < 0.5 else log1p(-(1.0 - delta))


def _log_delta(mu: float, epsilon: float) -> float:
    """Estimate log(delta) of the Gaussian mechanism; it only guides the search."""
    t = epsilon / mu - mu / 2.0
    if t > 1e150:
        return -inf
    if t < 0.0:
        lost = 0.5 * erfc(-t / sqrt(2.0)) + exp(-t * t / 2.0) * _mills(t + mu) / sqrt(2.0 * pi)
        return log1p(-min(lost, 1.0 - 1e-16))
    gap = _mills(t) - _mills(t + mu)
    return -t * t / 2.0 - log(2.0 * pi) / 2.0 + (log(gap) if gap > 0.0 else -inf)


def _mills(x: float) -> float:
    """Estimate Q(x) / phi(x) for x >= 0 (Laplace's continued fraction from 4 on)."""
    if x < 4.0:
        return sqrt(pi / 2.0) * exp(x * x / 2.0) * erfc(x / sqrt(2.0))
    y = x
    for k in range(50, 0, -1):
        y = x + k / y
    return 1.0 / y


def _entropy(a: float) -> float:
    """H(a) = a log(1 + 1/a) + log(1 + a), both terms positive: no cancellation."""
    return a * log1p(1.0 / a) + log1p(a)


def _down(total: float, terms: tuple[float, ...]) -> float:
    """``total`` less a bound on the evaluation error of the terms and their sum."""
    return total - _MARGIN * sum(abs(term) for term in terms)


def _least(objective: Callable[[float], float]) -> float:
    """Least value of a quasiconvex function of log(a), by golden-section search on a wide range."""
    ratio = (sqrt(5.0) - 1.0) / 2.0
    low, high = -60.0, 60.0
    x, y = high - ratio * (high - low), low + ratio * (high - low)
    fx, fy = objective(x), objective(y)
    best = min(fx, fy)
    for _ in range(80):
        if fx <= fy:
            high, y, fy = y, x, fx
            x = high - ratio * (high - low)
            fx = objective(x)
            best = min(best, fx)
        else:
            low, x, fx = x, y, fy
            y = low + ratio * (high - low)
            fy = objective(y)
            best = min(best, fy)
    return best


def _check_epsilon(epsilon: float, zero: bool = False) -> None:
    low, high = EPSILON_RANGE
    if (zero and epsilon == 0.0) or (isfinite(epsilon) and low <= epsilon <= high):
        return
    raise SpecError(
        f"epsilon must be between {low:g} and {high:g}, got epsilon={epsilon!r}; "
        "values from 0.1 to 10 are usual"
    )


def _check_delta(delta: float) -> None:
    low, high = DELTA_RANGE
    if isfinite(delta) and low < delta < high:
        return
    raise SpecError(
        f"delta must be between {low:g} and {high:g}, ends excluded, got delta={delta!r}; "
        "choose it well below one over the number of rows, for example 1e-6"
    )


def _check_cost(name: str, value: float) -> None:
    if isfinite(value) and value >= 0.0:
        return
    raise SpecError(f"{name} must be finite and not negative, got {name}={value!r}")
