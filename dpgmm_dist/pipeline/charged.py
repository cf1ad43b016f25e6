"""A release compared with its ledger: evidence that a release alone does not have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dpgmm_dist.artifact.load import load_release
from dpgmm_dist.artifact.manifest import Manifest
from dpgmm_dist.budget.journal import Journal
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.errors import DataError, LedgerRefused
from dpgmm_dist.pipeline.session import receipt_query
from dpgmm_dist.privacy.query import PassQuery

Options = Mapping[str, Any] | None

SHOWN_WITH_LEDGER = (
    "shown with the ledger: the queries listed are those stored beside the charge, and their cost "
    "is within it; not shown: that fresh noise was drawn, that these rows were read, nor that "
    "nothing was charged to another ledger"
)
"""What `dpgmm verify --ledger` shows, and what it cannot show."""


def ledger_problems(
    release_url: str,
    ledger_url: str,
    release_options: Options = None,
    ledger_options: Options = None,
) -> list[str]:
    """Differences between a release, its charge in the ledger, and its journal; empty if none.

    Raises
    ------
    SpecError
        A URL is not valid.
    """
    try:
        release = load_release(release_url, release_options)
        charge = Ledger.open(ledger_url, ledger_options).find(release.release_id)
        if charge is None:
            return [f"the ledger has no charge for the release {release.release_id!r}"]
        journal = Journal.locate(
            release.release_id,
            release_url,
            ledger_url,
            output_options=release_options,
            ledger_options=ledger_options,
        )
        budget = release.receipt["budget"]
        compared = {
            "specification": (release.manifest.specification_digest, charge.charge.spec_digest),
            "epsilon": (budget["epsilon"], charge.charge.epsilon),
            "delta": (budget["delta"], charge.charge.delta),
        }
        return [
            *(
                f"the {name} of the release is {released!r}, that of the charge {charged!r}"
                for name, (released, charged) in compared.items()
                if released != charged
            ),
            *_journal_problems(release.manifest, release.receipt["queries"], journal),
        ]
    except (DataError, LedgerRefused) as error:
        return [str(error)]


def _journal_problems(
    manifest: Manifest, listed: list[dict[str, Any]], journal: Journal
) -> Iterator[str]:
    """The stored queries are those that the receipt lists, and those of the manifest."""
    stored = [journal.query(step) for step in journal.steps()]
    asked = [receipt_query(PassQuery.from_bytes(data)) for data in stored if data is not None]
    if len(asked) != len(listed):
        yield f"the receipt lists {len(listed)} queries, the journal holds {len(asked)}"
    for position, (stored_query, query) in enumerate(zip(asked, listed, strict=False)):
        if stored_query != query:
            yield (
                f"query {position} of the receipt ({query.get('step')!r}) is not the one that the "
                f"journal holds ({stored_query['step']!r})"
            )
    digest = journal.stored()
    for place, recorded in (
        ("manifest", None if manifest.stored is None else vars(manifest.stored)),
        ("record of the finished journal", journal.finished_stored()),
    ):
        if recorded is not None and recorded != digest:
            yield f"the digest of the stored queries and answers is not that of the {place}"
