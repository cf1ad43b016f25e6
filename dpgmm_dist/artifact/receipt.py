"""The privacy receipt: the queries, the noise in their answers, and the guarantee that follows.

Readers accept keys that they do not know: keys are added, never renamed.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from importlib import metadata
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dpgmm_dist.errors import DataError
from dpgmm_dist.version import __version__

PRIVATE = "private"
NOT_PRIVATE = "NOT PRIVATE"
Accounting = Literal["zcdp", "gdp"]

MECHANISMS: Mapping[str, frozenset[str]] = {
    "discrete_gaussian": frozenset({"zcdp"}),
    "gaussian": frozenset({"zcdp", "gdp"}),
    "rounded_gaussian": frozenset({"zcdp", "gdp"}),
}
"""The private mechanisms, each with the accounting methods that are proved for it."""

_KEYSTREAM = (
    "a ChaCha20 keystream under fresh keys of the operating system: the guarantee is "
    "computational, against whoever cannot tell that keystream from random bits"
)
RANDOMNESS: Mapping[str, str] = {
    "discrete_gaussian": (
        "the operating system's generator, by way of OpenDP: the guarantee is computational, "
        "against whoever cannot tell that generator's bits from random ones"
    ),
    "gaussian": _KEYSTREAM,
    "rounded_gaussian": _KEYSTREAM,
}
"""Where the random bits of each mechanism come from, and what this means for the guarantee."""

NEIGHBOURS = "data sets that differ by adding or removing one privacy unit"
CAPACITY_ROWS = 1 << 40

_LIBRARIES = ("cryptography", "dask", "distributed", "numpy", "opendp", "pyarrow", "scipy")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, strict=True)


class Column(_Part):
    """One column of the input: its name and the Arrow name of its (element) type."""

    name: str
    type: str
    values: tuple[int | str | bool, ...] | None = None
    """The public values of a column of categories; numbers of a release name them from 0."""


class EncoderNote(_Part):
    """The encoder that made the input, as recorded by ``dpgmm encode`` (see `provenance`)."""

    name: str
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    batch: int = Field(ge=1)
    rows_are_independent: bool
    guarantee: str
    """Whether the guarantee holds for the raw rows, or only for their embeddings."""


class InputSchema(_Part):
    """The columns of the input, under "input": sampled rows are written with the same columns."""

    kind: Literal["list", "columns"]
    """One list column with ``width`` numbers a row, or a table of numeric columns."""
    columns: tuple[Column, ...] = Field(min_length=1)
    """The list column with the type of its elements, or all columns in feature order."""
    width: int = Field(ge=1)
    label: Column | None = None
    encoder: EncoderNote | None = None


class QueryBlock(_Part):
    """One statistic of a query and the noise it was measured with, in integer lattice units."""

    statistic: Literal["count", "sum", "second", "square", "bins"]
    groups: int = Field(ge=1)
    dimension: int = Field(ge=1)
    radius: int = Field(ge=1)
    weight_unit: int = Field(ge=1)
    """Weight of one whole row: 1, or 2^b with soft responsibilities or with weights. If the rows
    of a unit are weighted, this is the weight of all of them together."""
    unit_rows: int = Field(default=1, ge=1)
    """The most whole rows of one privacy unit. ``rho`` includes this factor."""
    sigma: float = Field(gt=0)
    """Standard deviation of the noise on each entry; of a second moment, on the diagonal."""
    sigma_off: float | None = Field(default=None, gt=0)
    """Standard deviation of the noise on the off-diagonal entries of a second moment."""
    bins: tuple[int, ...] | None = None
    """Number of bins of each column; a row is in one bin of each, so ``dimension`` columns cost
    the square root of their number in sensitivity."""
    rho: float = Field(ge=0)
    """zCDP cost: at least D^2 / (2 sigma^2), where D is the L2 sensitivity."""


class Query(_Part):
    """One step of the release: the blocks that were answered in one pass."""

    step: str
    blocks: tuple[QueryBlock, ...]
    rho: float = Field(ge=0)


class Budget(_Part):
    """The budget: (epsilon, delta), and the rho (and mu) that it converts to."""

    epsilon: float = Field(gt=0)
    delta: float = Field(gt=0, lt=1)
    rho: float = Field(gt=0)
    mu: float | None = Field(default=None, gt=0)


class Totals(_Part):
    """The guarantee of all queries together."""

    rho: float = Field(ge=0)
    mu: float | None = Field(default=None, ge=0)
    epsilon: float = Field(ge=0)
    delta: float = Field(gt=0, lt=1)


class Neighbours(_Part):
    """The neighbouring relation of the guarantee, and the guarantee for replacing a unit."""

    relation: str
    unit: str
    replacing_one_unit: dict[str, float | str]


class Receipt(_Part):
    """The contents of receipt.json."""

    schema_version: Literal[1]
    release_id: str = Field(min_length=1)
    privacy: Literal["private", "NOT PRIVATE"]
    privacy_reason: str | None = None
    specification: dict[str, Any]
    specification_digest: str = Field(pattern="^[0-9a-f]{64}$")
    neighbours: Neighbours
    mechanism: str
    accounting: Accounting
    budget: Budget
    queries: tuple[Query, ...]
    totals: Totals
    capacity: dict[str, int]
    error_bars: str
    ledger: dict[str, Any] | None = None
    libraries: dict[str, str]
    input: InputSchema


def check_receipt(document: Mapping[str, Any]) -> Receipt:
    """Validate the contents of receipt.json.

    Raises
    ------
    DataError
        When the receipt is not valid. The message names the first three problems.
    """
    from dpgmm_dist.artifact.schema import canonical_json

    try:
        # Through JSON, so that the check is on what a reader gets.
        return Receipt.model_validate_json(canonical_json(document))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)[:3]
        )
        raise DataError(f"the receipt is not valid: {problems}") from None
    except (TypeError, ValueError) as error:
        raise DataError(f"the receipt cannot be written as JSON: {error}") from None


def build_receipt(
    *,
    release_id: str,
    specification: Mapping[str, Any],
    specification_digest: str,
    epsilon: float,
    delta: float,
    mechanism: str,
    accounting: Accounting,
    queries: Sequence[Mapping[str, Any]],
    private: bool,
    privacy_reason: str | None = None,
    unit: str = "one row",
    ledger: Mapping[str, Any] | None = None,
    error_bars: str | None = None,
    further_keys: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Build a receipt. `write_release` adds the schema of the input and checks it.

    Parameters
    ----------
    release_id : id under which the release is charged
    specification, specification_digest : without storage options
    epsilon, delta : the budget of the release
    mechanism, accounting : a name in `MECHANISMS` (any name if the release is not private), and
        "zcdp" or "gdp"
    queries : dicts in the form of `Query`, in the order in which they were answered
    private, privacy_reason : for a release with insecure test noise False, and why
    unit : what one privacy unit is
    ledger : reference to the charge, without paths; None if no ledger was used
    error_bars : what the standard errors include and what they leave out
    more : further public keys, such as the realised plan

    Returns
    -------
    dict : JSON values only
    """
    total = round_up(sum((Fraction(query["rho"]) for query in queries), Fraction(0)))
    document: dict[str, Any] = {
        "schema_version": 1,
        "release_id": release_id,
        "privacy": PRIVATE if private else NOT_PRIVATE,
        "privacy_reason": privacy_reason,
        "specification": dict(specification),
        "specification_digest": specification_digest,
        "mechanism": mechanism,
        "accounting": accounting,
        "randomness": RANDOMNESS.get(mechanism),
        "budget": _budget(epsilon, delta, accounting),
        "queries": [dict(query) for query in queries],
        "totals": _totals(total, delta, accounting),
        "neighbours": _neighbours(unit, total, delta, accounting),
        "capacity": {"rows": CAPACITY_ROWS},
        "error_bars": error_bars or _ERROR_BARS,
        "ledger": None if ledger is None else dict(ledger),
        "libraries": library_versions(),
    }
    return {**(further_keys or {}), **document}


_ERROR_BARS = (
    "standard errors of the privacy noise alone, to first order; they leave out sampling error, "
    "clipping bias and the choice of local optimum"
)


def budget_rho(epsilon: float, delta: float, accounting: Accounting) -> float:
    """The rho that (epsilon, delta) allows, rounded down; under Gaussian DP this is mu^2 / 2."""
    from dpgmm_dist.privacy import accounting as accountant

    if accounting == "zcdp":
        return accountant.rho_from_epsilon_delta(epsilon, delta)
    return -round_up(-(Fraction(accountant.mu_from_epsilon_delta(epsilon, delta)) ** 2) / 2)


def epsilon_of(rho: float, delta: float, accounting: Accounting) -> float:
    """The epsilon that queries of total cost rho guarantee at delta, rounded up."""
    from dpgmm_dist.privacy import accounting as accountant

    if rho == 0:
        return 0.0
    if accounting == "zcdp":
        return accountant.epsilon_from_rho(rho, delta)
    return accountant.epsilon_from_mu(mu_of(rho), delta)


def mu_of(rho: float) -> float:
    """The Gaussian-DP parameter of Gaussian answers of total cost rho: mu^2 = 2 rho, rounded up."""
    import math

    mu = math.sqrt(2 * rho)
    while Fraction(mu) ** 2 < 2 * Fraction(rho):
        mu = math.nextafter(mu, math.inf)
    return mu


def round_up(value: Fraction) -> float:
    """The least float that is at least ``value``."""
    import math

    result = float(value)
    return result if Fraction(result) >= value else math.nextafter(result, math.inf)


def library_versions() -> dict[str, str]:
    """Versions of Python, of this library and of the libraries that it computes with."""
    versions = {"python": platform.python_version(), "dpgmm-dist": __version__}
    found = {name: _installed_version(name) for name in _LIBRARIES}
    return versions | {name: version for name, version in found.items() if version is not None}


@cache
def _installed_version(name: str) -> str | None:
    """The version of an installed distribution, whose metadata are parsed once in a process."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _budget(epsilon: float, delta: float, accounting: Accounting) -> dict[str, float | None]:
    """The budget, as :class:`Budget` has it."""
    from dpgmm_dist.privacy.accounting import mu_from_epsilon_delta

    return {
        "epsilon": epsilon,
        "delta": delta,
        "rho": budget_rho(epsilon, delta, accounting),
        "mu": mu_from_epsilon_delta(epsilon, delta) if accounting == "gdp" else None,
    }


def _totals(rho: float, delta: float, accounting: Accounting) -> dict[str, float | None]:
    """The guarantee of queries of total cost rho, as :class:`Totals` has it."""
    return {
        "rho": rho,
        "mu": mu_of(rho) if accounting == "gdp" else None,
        "epsilon": epsilon_of(rho, delta, accounting),
        "delta": delta,
    }


def _neighbours(unit: str, rho: float, delta: float, accounting: Accounting) -> dict[str, Any]:
    """The neighbouring relation, as :class:`Neighbours` has it.

    Replacing a unit is twice the distance, so it costs four times rho (twice mu).
    """
    return {
        "relation": NEIGHBOURS,
        "unit": unit,
        "replacing_one_unit": {
            "rho": 4 * rho,
            "epsilon": epsilon_of(4 * rho, delta, accounting),
            "delta": delta,
            "because": "replacing one unit is removing it and adding another: the distance "
            "doubles, so rho is four times (mu twice) as large",
        },
    }
