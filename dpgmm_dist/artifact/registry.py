"""A release as a record for a public registry of deployments of differential privacy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpgmm_dist.artifact.load import load_release


def registry_record(url: str, storage_options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The answers to a registry's questions, from the receipt of a release; public values only.

    Parameters
    ----------
    url : of the release.

    Raises
    ------
    SpecError
        The URL is not valid.
    DataError
        There is no release, or it is not intact.
    """
    release = load_release(url, storage_options)
    receipt = release.receipt
    ledger, totals = receipt.get("ledger") or {}, receipt["totals"]
    window = receipt["specification"].get("dataset", {}).get("window")
    return {
        "name": release.release_id,
        "product": "Gaussian mixture model for synthetic data",
        "software": f"dpgmm-dist {release.manifest.library_version}",
        "private": release.private,
        "model": "central: one trusted curator adds the noise",
        "definition": {"gdp": "Gaussian DP", "zcdp": "zero-concentrated DP"}[receipt["accounting"]],
        "mechanism": receipt["mechanism"],
        "privacy_unit": receipt["neighbours"]["unit"],
        "neighbours": receipt["neighbours"]["relation"],
        "epsilon": totals["epsilon"],
        "delta": totals["delta"],
        "rho": totals["rho"],
        "mu": totals.get("mu"),
        "queries": len(receipt["queries"]),
        "rows": "all" if window is None else window,
        "budget_over_time": {
            "period": ledger.get("period"),
            "bound": ledger.get("bound", "none: this release was charged to no ledger"),
        },
        "manifest_sha256_of_receipt": release.manifest.files["receipt.json"].sha256,
    }
