"""The place of a release, and of its ledger and journal."""

from __future__ import annotations

import json

from dpgmm_dist.artifact.write import claim_output, release_exists
from dpgmm_dist.budget.budget import stored_input
from dpgmm_dist.budget.journal import Journal
from dpgmm_dist.data.source import SNAPSHOT
from dpgmm_dist.errors import SpecError
from dpgmm_dist.opaque import Opaque
from dpgmm_dist.spec.release_spec import ReleaseSpec


class Output(Opaque):
    """The output of one release, and the places of its ledger and journal."""

    def __init__(self, spec: ReleaseSpec, url: str | None) -> None:
        if url is None:
            raise SpecError("output.path is missing: set it or give --output URL")
        self.url = url
        self.options = {
            "output_options": spec.output.storage_options,
            "ledger_options": spec.privacy.storage_options,
        }
        self._spec = spec

    def holds_release(self) -> bool:
        """Whether a finished release is there."""
        return release_exists(self.url, self._spec.output.storage_options) is not None

    def claim(self, release_id: str) -> None:
        """Claim the output for this release; refuse one that holds another release or id."""
        claim_output(
            self.url,
            release_id=release_id,
            specification_digest=self._spec.digest(),
            storage_options=self._spec.output.storage_options,
        )

    def finish_begun(self, release_id: str) -> None:
        """Finish the journal of a driver that was killed after it wrote the manifest."""
        self._journal(release_id).finish_begun({"output": self.url})

    def snapshot_of(self, release_id: str) -> int | None:
        """The snapshot of the table that the stored answers of a release are about, if known."""
        identifiers = stored_input(self._journal(release_id))
        known = None if identifiers is None else json.loads(identifiers).get(SNAPSHOT)
        return None if known is None else int(known)

    def _journal(self, release_id: str) -> Journal:
        return Journal.locate(release_id, self.url, self._spec.privacy.ledger, **self.options)
