"""The description of a release, as plain values for printing or JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dpgmm_dist.artifact.load import Release, load_release, tables_of
from dpgmm_dist.artifact.receipt import Query, Receipt, check_receipt
from dpgmm_dist.model.covariances import SharedCovariances
from dpgmm_dist.storage.urls import safe_url


def describe_release(url: str, storage_options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Describe the release at a URL. Its digests are checked first.

    Returns
    -------
    dict
        JSON values only, under "release", "guarantee", "input", "model", "components" and
        "queries"; the last two are lists. "columns" has what was measured of single columns, where
        they were. Infinite errors are None.

    Raises
    ------
    DataError
        When there is no release, or it is not intact.
    """
    release = load_release(url, storage_options)
    return {"release": {"url": safe_url(str(url))} | _identity(release)} | describe(release)


def describe(release: Release) -> dict[str, Any]:
    """The parts of `describe_release` that do not depend on where the release is."""
    receipt = check_receipt(release.receipt)
    return {
        "guarantee": _guarantee(receipt),
        "input": _input(receipt),
        **_found(release),
        **_columns(release, receipt),
        "model": _model(release),
        "components": _components(release),
        "queries": [_query(query, receipt.totals.rho) for query in receipt.queries],
    }


def _identity(release: Release) -> dict[str, Any]:
    manifest = release.manifest
    return {
        "release_id": manifest.release_id,
        "specification_digest": manifest.specification_digest,
        "privacy": manifest.privacy,
        "reason": release.receipt.get("privacy_reason"),
        "library_version": manifest.library_version,
        "files": {name: digest.size for name, digest in sorted(manifest.files.items())},
    }


def _guarantee(receipt: Receipt) -> dict[str, Any]:
    return {
        "privacy": receipt.privacy,
        "epsilon": receipt.budget.epsilon,
        "delta": receipt.budget.delta,
        "spent_epsilon": receipt.totals.epsilon,
        "spent_rho": receipt.totals.rho,
        "budget_rho": receipt.budget.rho,
        "neighbours": receipt.neighbours.relation,
        "unit": receipt.neighbours.unit,
        "replacing_one_unit": dict(receipt.neighbours.replacing_one_unit),
        "mechanism": receipt.mechanism,
        "accounting": receipt.accounting,
        "ledger": receipt.ledger,
        "error_bars": receipt.error_bars,
    }


def _input(receipt: Receipt) -> dict[str, Any]:
    """The columns of the input, with the public values of those that hold categories."""
    shown = receipt.input.model_dump(mode="json")
    for column in (*shown["columns"], shown["label"] or {}):
        if column.get("values") is None:
            column.pop("values", None)
    return shown


def _found(release: Release) -> dict[str, Any]:
    """The bounds that were found privately; nothing where all were given."""
    found = release.receipt.get("bounds_found")
    return {"bounds_found": found} if found else {}


def _columns(release: Release, receipt: Receipt) -> dict[str, Any]:
    """The measured distribution of each column of a table; nothing where columns were not measured.

    Of categories also their shares in the mixture, among the rows that have a value.
    """
    measured = release.receipt.get("marginals")
    if not measured:
        return {}
    facts = {name: dict(of_column) for name, of_column in measured.items()}
    weights = release.mixture.weights
    for name, table in tables_of(receipt.input, release.mixture, release.transform).items():
        values = next(c.values for c in receipt.input.columns if c.name == name) or ()
        shares = (weights @ table).tolist()
        facts[name]["shares"] = {str(v): s for v, s in zip(values, shares, strict=True)}
    return {"columns": facts}


def _model(release: Release) -> dict[str, Any]:
    mixture, transform = release.mixture, release.transform
    shown = {
        "components": mixture.n_components,
        "labels": list(mixture.label_values),
        "input_columns": transform.input_dimension,
        "latent_dimension": transform.latent_dimension,
        "residual_variance": transform.residual_variance,
    }
    if isinstance(mixture.form, SharedCovariances):
        shown["own_axes"] = mixture.form.own_axes
    return shown


def _components(release: Release) -> list[dict[str, Any]]:
    """Each component's weight, spread and standard errors, in latent units.

    Each entry also says which errors are approximate, and with which weight the covariance kept
    its own measurement.
    """
    mixture, errors, marks = release.mixture, release.standard_errors, release.error_marks
    # Root mean square of the standard deviations of the latent coordinates.
    spread = np.sqrt(mixture.form.traces() / mixture.dimension)
    mean_error = np.sqrt((errors.means**2).mean(axis=1))
    entries = []
    for k in range(mixture.n_components):
        label = mixture.label_values[mixture.label_index[k]] if mixture.label_values else None
        entries.append(
            {
                "label": label,
                "component": int(mixture.component_number[k]),
                "weight": float(mixture.weights[k]),
                "weight_error": _finite(errors.weights[k]),
                "spread": float(spread[k]),
                "mean_error": _finite(mean_error[k]),
                "mean_error_is": marks.means[k] if marks else None,
                "covariance_error_is": marks.covariances[k] if marks else None,
                "covariance_kept": marks.kept[k] if marks else None,
            }
        )
    return entries


def _query(query: Query, total: float) -> dict[str, Any]:
    return {
        "step": query.step,
        "rho": query.rho,
        "share": query.rho / total if total else 0.0,
        "blocks": [block.model_dump(mode="json") for block in query.blocks],
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
