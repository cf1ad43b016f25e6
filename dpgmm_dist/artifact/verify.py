"""Check a release against itself: its files, its parameters and its privacy accounting.

The accounting is recomputed in exact fractions. The cost of each block follows from its
sensitivity and noise scale; the sum of all costs is compared with the budget that (epsilon, delta)
allows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, TypeVar

from dpgmm_dist.artifact.load import read_checked, read_manifest
from dpgmm_dist.artifact.manifest import Manifest
from dpgmm_dist.artifact.receipt import (
    CAPACITY_ROWS,
    MECHANISMS,
    NOT_PRIVATE,
    PRIVATE,
    Query,
    QueryBlock,
    Receipt,
    budget_rho,
    check_receipt,
    epsilon_of,
)
from dpgmm_dist.artifact.schema import (
    AXES,
    MIXTURE,
    RECEIPT,
    TRANSFORM,
    decode_mixture,
    decode_transform,
    parse_json,
)
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.model.affine import Transform
from dpgmm_dist.model.covariances import SharedCovariances
from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.storage.store import open_store

T = TypeVar("T")

SHOWN_ALONE = (
    "shown without the ledger: the files belong together, and the guarantee follows from the "
    "queries listed; not shown: that no others were asked (--ledger URL compares with the charge "
    "and the stored queries), nor that fresh noise was drawn for these rows"
)
"""What `dpgmm verify` shows from a release alone, and what it cannot show."""

# A listed cost may exceed the exact one by rounding, but not by more.
_ROUNDING = Fraction(1, 10**6)


@dataclass(frozen=True)
class VerifyResult:
    """The outcome of `verify_release`."""

    ok: bool
    """Whether the release is intact and its accounting is correct."""
    private: bool
    """Whether it states a guarantee, and the guarantee follows from its queries."""
    problems: tuple[str, ...]
    """One line for each problem."""
    summary: Mapping[str, Any]
    """Public facts to print, as far as they could be read."""

    @property
    def exit_code(self) -> int:
        """0: intact and private. 4: not intact. 6: intact but NOT PRIVATE."""
        if not self.ok:
            return 4
        return 0 if self.private else 6


def verify_release(url: str, storage_options: Mapping[str, Any] | None = None) -> VerifyResult:
    """Check digests, schema, parameters and accounting of the release at a URL.

    Problems of the release are in the result.

    Raises
    ------
    SpecError
        When the URL is not valid.
    DataError
        When the store cannot be opened.
    """
    store = open_store(str(url), storage_options)
    problems: list[str] = []
    manifest = _attempt(problems, lambda: read_manifest(store))
    if manifest is None:
        return VerifyResult(False, False, tuple(problems), {"url": store.url})
    files = {}
    for name, digest in manifest.files.items():
        data = _attempt(problems, partial(read_checked, store, name, digest))
        if data is not None:
            files[name] = data
    mixture = transform = receipt = None
    if MIXTURE in files:
        mixture = _attempt(problems, partial(_usable_mixture, files[MIXTURE], files.get(AXES)))
    if TRANSFORM in files:
        transform = _attempt(problems, lambda: decode_transform(files[TRANSFORM]))
    if RECEIPT in files:
        receipt = _attempt(problems, lambda: check_receipt(parse_json(RECEIPT, files[RECEIPT])))
    if receipt is not None:
        problems += _identity_problems(manifest, receipt)
        problems += _stored_problems(manifest, receipt)
        # The accountant refuses numbers outside its range: that too is a problem of the release.
        problems += _attempt(problems, partial(accounting_problems, receipt)) or []
    problems += _shape_problems(mixture, transform, receipt)
    private = manifest.privacy == PRIVATE and receipt is not None and receipt.privacy == PRIVATE
    summary = {"url": store.url, **_summary(manifest, receipt, mixture)}
    return VerifyResult(not problems, private and not problems, tuple(problems), summary)


def accounting_problems(receipt: Receipt) -> list[str]:
    """Problems in the accounting of a receipt; empty if the guarantee follows from its queries."""
    return [
        *_mechanism_problems(receipt),
        *(
            problem
            for query in receipt.queries
            for problem in _query_problems(query, rows_per_unit(receipt))
        ),
        *_total_problems(receipt),
    ]


def rows_per_unit(receipt: Receipt) -> int:
    """The most whole rows that one privacy unit contributes: 1, or ``privacy_unit.max_rows``.

    The weighted rows of a unit count as one row together. The mean of a unit is one row.
    """
    unit = receipt.specification.get("dataset", {}).get("privacy_unit") or {}
    whole = unit.get("aggregate", "rows") not in ("weight", "mean")
    return int(unit.get("max_rows", 1)) if whole else 1


def block_cost(block: QueryBlock, unit_rows: int = 1) -> Fraction:
    """The exact zCDP cost of one block for one privacy unit.

    With w = weight_unit and t = radius, the L2 sensitivity of a count, a sum and a second moment
    is w, w t and w t^2, and that of bins of c columns (its dimension) w sqrt(c). The noise on the
    upper triangle of a second moment has scale s_d on the diagonal and s_o off it. A difference D
    of second moments then costs sum_i D_ii^2 / (2 s_d^2) + sum_{i<j} D_ij^2 / (2 s_o^2), which is
    at most ||D||_F^2 max(1 / (2 s_d^2), 1 / (4 s_o^2)), because ||D||_F^2 counts off-diagonal
    entries twice. A unit of m rows has m times the sensitivity.

    Raises
    ------
    ValueError
        When a second moment of more than one dimension lacks its off-diagonal scale.
    """
    power = {"count": 0, "sum": 1, "second": 2, "square": 2, "bins": 0}[block.statistic]
    squared = Fraction(unit_rows * block.weight_unit * block.radius**power) ** 2
    if block.statistic == "bins":
        squared *= block.dimension
    price = 1 / (2 * Fraction(block.sigma) ** 2)
    if block.statistic == "second" and block.dimension > 1:
        if block.sigma_off is None:
            raise ValueError("a second moment needs sigma_off")
        price = max(price, 1 / (4 * Fraction(block.sigma_off) ** 2))
    return squared * price


def _attempt(problems: list[str], step: Callable[[], T]) -> T | None:
    try:
        return step()
    except (DataError, SpecError) as error:
        problems.append(str(error))
        return None


def _usable_mixture(data: bytes, axes: bytes | None) -> Mixture:
    """The mixture in mixture.parquet; DataError if it is not valid or has no density."""
    mixture, _ = decode_mixture(data, axes)
    if isinstance(mixture.form, SharedCovariances):
        try:
            mixture.form.log_determinant  # noqa: B018 - it refuses axes that have no inverse
        except ValueError as error:
            raise DataError(f"{AXES} does not hold valid axes: {error}") from None
    return mixture


def _identity_problems(manifest: Manifest, receipt: Receipt) -> Iterator[str]:
    """Differences between the manifest, the receipt and the specification in the receipt."""
    for name in ("release_id", "privacy", "specification_digest"):
        in_manifest, in_receipt = getattr(manifest, name), getattr(receipt, name)
        if in_manifest != in_receipt:
            yield f"the manifest says {name} {in_manifest!r}, the receipt says {in_receipt!r}"
    if specification_digest(receipt.specification) != receipt.specification_digest:
        yield "the specification in the receipt does not have the receipt's digest"
    privacy = receipt.specification.get("privacy", {})
    for name in ("epsilon", "delta"):
        if privacy.get(name) != getattr(receipt.budget, name):
            yield (
                f"the specification asks for {name} {privacy.get(name)!r}, but the budget in the "
                f"receipt has {getattr(receipt.budget, name)!r}"
            )


def _stored_problems(manifest: Manifest, receipt: Receipt) -> Iterator[str]:
    """The queries that the receipt lists are as many as the journal answered."""
    stored = manifest.stored
    if stored is not None and stored.queries != len(receipt.queries):
        yield (
            f"the receipt lists {len(receipt.queries)} queries, but the manifest says that "
            f"{stored.queries} were answered"
        )


def specification_digest(specification: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a specification without its output path, as `ReleaseSpec.digest` does."""
    identity = dict(specification)
    if isinstance(identity.get("output"), dict):
        identity["output"] = {k: v for k, v in identity["output"].items() if k != "path"}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _mechanism_problems(receipt: Receipt) -> Iterator[str]:
    if receipt.privacy == NOT_PRIVATE:
        return
    if receipt.accounting not in MECHANISMS.get(receipt.mechanism, ()):
        yield (
            f"mechanism {receipt.mechanism!r} with accounting {receipt.accounting!r} has no "
            "proved guarantee, but the receipt says private"
        )
    if receipt.capacity.get("rows") != CAPACITY_ROWS:
        yield f"the capacity is {receipt.capacity.get('rows')!r} rows, not {CAPACITY_ROWS}"


def _query_problems(query: Query, unit_rows: int) -> Iterator[str]:
    for block in query.blocks:
        name = f"query {query.step}, {block.statistic}"
        try:
            exact = block_cost(block, unit_rows)
        except ValueError as error:
            yield f"{name}: {error}"
            continue
        if Fraction(block.rho) < exact:
            yield f"{name}: it costs rho {float(exact):.6g}, but {block.rho:.6g} is listed"
        elif Fraction(block.rho) > exact * (1 + _ROUNDING):
            yield f"{name}: rho {block.rho:.6g} is listed, but it costs only {float(exact):.6g}"
    listed = sum((Fraction(block.rho) for block in query.blocks), Fraction(0))
    if Fraction(query.rho) < listed:
        yield (
            f"query {query.step}: its blocks add up to rho {float(listed):.6g}, but "
            f"{query.rho:.6g} is listed"
        )


def _total_problems(receipt: Receipt) -> Iterator[str]:
    spent = sum((Fraction(query.rho) for query in receipt.queries), Fraction(0))
    budget, totals = receipt.budget, receipt.totals
    allowed = budget_rho(budget.epsilon, budget.delta, receipt.accounting)
    if spent > Fraction(allowed):
        yield (
            f"the queries cost rho {float(spent):.9g}, but epsilon {budget.epsilon:g} and delta "
            f"{budget.delta:g} allow {allowed:.9g}"
        )
    if Fraction(budget.rho) > Fraction(allowed) * (1 + _ROUNDING):
        yield f"the budget's rho is {budget.rho:.9g}, but (epsilon, delta) allow {allowed:.9g}"
    if Fraction(totals.rho) < spent:
        yield f"the total rho is {totals.rho:.9g}, but the queries add up to {float(spent):.9g}"
    steps = [query.step for query in receipt.queries]
    if len(set(steps)) != len(steps):
        yield "a step is listed twice"
    needed = epsilon_of(float(totals.rho), totals.delta, receipt.accounting)
    if totals.epsilon < needed * (1 - float(_ROUNDING)):
        yield f"the total epsilon is {totals.epsilon:.6g}, but the total rho gives {needed:.6g}"
    if receipt.accounting == "gdp" and (
        totals.mu is None or Fraction(totals.mu) ** 2 < 2 * Fraction(totals.rho)
    ):
        yield f"the total mu is {totals.mu!r}, less than the square root of twice the total rho"


def _shape_problems(
    mixture: Mixture | None, transform: Transform | None, receipt: Receipt | None
) -> Iterator[str]:
    if mixture and transform and transform.latent_dimension != mixture.dimension:
        yield (
            f"the transform has {transform.latent_dimension} latent dimensions, but the mixture "
            f"has {mixture.dimension}"
        )
    if transform and receipt and transform.input_dimension != receipt.input.width:
        yield (
            f"the transform has {transform.input_dimension} input columns, but the input in the "
            f"receipt has {receipt.input.width}"
        )
    if mixture and receipt:
        stated = tuple(receipt.specification.get("dataset", {}).get("labels") or ())
        if stated != mixture.label_values:
            yield (
                f"the labels of the mixture are {list(mixture.label_values)}, but those of the "
                f"specification are {list(stated)}"
            )


def _summary(
    manifest: Manifest, receipt: Receipt | None, mixture: Mixture | None
) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "release_id": manifest.release_id,
        "privacy": manifest.privacy,
        "files": len(manifest.files),
    }
    if mixture is not None:
        summary |= {
            "components": mixture.n_components,
            "dimension": mixture.dimension,
            "labels": len(mixture.label_values),
        }
    if receipt is not None:
        summary |= {
            "epsilon": receipt.budget.epsilon,
            "delta": receipt.budget.delta,
            "rho_budget": receipt.budget.rho,
            "rho_spent": receipt.totals.rho,
            "epsilon_spent": receipt.totals.epsilon,
            "accounting": receipt.accounting,
            "mechanism": receipt.mechanism,
            "queries": len(receipt.queries),
            "reason": receipt.privacy_reason,
        }
    return summary
