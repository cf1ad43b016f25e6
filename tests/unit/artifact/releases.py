"""Small releases for the tests of `dpgmm_dist.artifact`."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from dpgmm_dist.artifact.manifest import Manifest
from dpgmm_dist.artifact.receipt import build_receipt
from dpgmm_dist.artifact.write import write_release
from dpgmm_dist.model.affine import Transform
from dpgmm_dist.model.covariances import SharedCovariances
from dpgmm_dist.model.mixture import Mixture, StandardErrors

DIMENSION = 3
LIST_INPUT = {
    "kind": "list",
    "columns": [{"name": "embedding", "type": "float32"}],
    "width": DIMENSION,
    "label": {"name": "kind", "type": "int16"},
}
TABLE_INPUT = {
    "kind": "columns",
    "columns": [
        {"name": "age", "type": "int32"},
        {"name": "income", "type": "float64"},
        {"name": "byte", "type": "uint8"},
    ],
    "width": DIMENSION,
    "label": None,
}


def mixture_of(label_values: tuple[Any, ...] = (7, 3), p: int = DIMENSION) -> Mixture:
    """Two components per label, four without labels. Their order differs from that of the file."""
    rng = np.random.default_rng(p)
    groups = len(label_values) or 1
    labels = np.tile(np.arange(groups), 4 // groups)
    factors = rng.normal(size=(labels.size, p, p)) / 3
    return Mixture(
        weights=rng.dirichlet(np.full(labels.size, 5.0)),
        means=rng.normal(size=(labels.size, p)),
        covariances=factors @ factors.transpose(0, 2, 1) + 0.05 * np.eye(p),
        labels=labels,
        label_values=label_values,
    )


def shared_of(label_values: tuple[Any, ...] = (7, 3), p: int = DIMENSION, q: int = 2) -> Mixture:
    """The mixture of `mixture_of` with covariances that share their axes."""
    rng = np.random.default_rng(p + q)
    full = mixture_of(label_values, p)
    half = rng.normal(size=(full.n_components, q, q))
    axes = rng.normal(size=(p, p)) / 3 + 0.3 * np.eye(p)
    form = SharedCovariances(axes, half @ half.transpose(0, 2, 1) + 0.2 * np.eye(q))
    return Mixture(full.weights, full.means, form, full.labels, label_values)


def full_of(mixture: Mixture) -> Mixture:
    """The same mixture with a matrix for each component."""
    return Mixture(
        mixture.weights,
        mixture.means,
        mixture.covariances,
        mixture.labels,
        mixture.label_values,
        mixture.component,
    )


def errors_of(mixture: Mixture) -> StandardErrors:
    if isinstance(mixture.form, SharedCovariances):
        return StandardErrors.without_covariances(
            np.full(mixture.weights.shape, 0.01), np.full(mixture.means.shape, 0.02)
        )
    return StandardErrors(
        np.full(mixture.weights.shape, 0.01),
        np.full(mixture.means.shape, 0.02),
        np.full(mixture.covariances.shape, np.inf),
    )


def projection(d: int = DIMENSION, p: int = 2) -> Transform:
    rng = np.random.default_rng(d)
    return Transform(
        center=rng.normal(size=d),
        half_width=np.full(d, 2.0),
        basis=np.linalg.qr(rng.normal(size=(d, p)))[0],
        offset=rng.normal(size=d),
        residual_variance=0.04,
    )


def specification(**privacy: Any) -> dict[str, Any]:
    return {
        "dataset": {"path": "rows/", "features": "embedding", "label": "kind", "labels": [7, 3]},
        "bounds": {"norm": 1.0},
        "privacy": {"epsilon": 1.0, "delta": 1e-6, "ledger": None, "noise": "auto", **privacy},
        "model": {"components": 2},
        "output": {"path": "out/"},
    }


def digest(spec: dict[str, Any]) -> str:
    identity = {**spec, "output": {k: v for k, v in spec["output"].items() if k != "path"}}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def queries() -> list[dict[str, Any]]:
    """A pass with soft responsibilities; the listed costs are slightly above the exact ones."""
    unit, radius = 1 << 10, 1 << 12
    scale = 60.0
    blocks = [
        {"statistic": "count", "sigma": scale * unit, "sigma_off": None},
        {"statistic": "sum", "sigma": scale * unit * radius, "sigma_off": None},
        {
            "statistic": "second",
            "sigma": scale * unit * radius**2,
            "sigma_off": scale * unit * radius**2,
        },
    ]
    cost = 1 / (2 * scale**2)
    for block in blocks:
        block |= {"groups": 4, "dimension": DIMENSION, "radius": radius, "weight_unit": unit}
        block["rho"] = cost * (1 + 1e-12)
    return [{"step": "components.1", "blocks": blocks, "rho": 3 * cost * (1 + 1e-11)}]


def receipt_of(release_id: str = "r-1", **changes: Any) -> dict[str, Any]:
    spec = specification()
    arguments: dict[str, Any] = {
        "release_id": release_id,
        "specification": spec,
        "specification_digest": digest(spec),
        "epsilon": 1.0,
        "delta": 1e-6,
        "mechanism": "discrete_gaussian",
        "accounting": "zcdp",
        "queries": queries(),
        "private": True,
    }
    return build_receipt(**(arguments | changes))


def write(url: Any, **changes: Any) -> Manifest:
    mixture = changes.pop("mixture", None) or mixture_of()
    arguments: dict[str, Any] = {
        "mixture": mixture,
        "standard_errors": errors_of(mixture),
        "transform": Transform.identity(DIMENSION),
        "receipt": receipt_of(),
        "input_schema": LIST_INPUT,
    }
    return write_release(str(url), **(arguments | changes))
