"""Differentially private Gaussian mixtures of partitioned data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dpgmm_dist.version import __version__

if TYPE_CHECKING:
    from dpgmm_dist.artifact.load import Release, load_release
    from dpgmm_dist.estimator import DPGaussianMixture
    from dpgmm_dist.pipeline.release import release
    from dpgmm_dist.spec.release_spec import ReleaseSpec

# Imported on first use: whoever reads a release needs neither dask nor opendp, and
# ``dpgmm --help`` loads nothing heavy.
_MODULES = {
    "DPGaussianMixture": "dpgmm_dist.estimator",
    "Release": "dpgmm_dist.artifact.load",
    "ReleaseSpec": "dpgmm_dist.spec.release_spec",
    "load_release": "dpgmm_dist.artifact.load",
    "release": "dpgmm_dist.pipeline.release",
}

__all__ = ["DPGaussianMixture", "Release", "ReleaseSpec", "__version__", "load_release", "release"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'dpgmm_dist' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
