"""Read a release. The reader needs neither dask, nor opendp, nor the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpgmm_dist.artifact.error_marks import ErrorMarks
from dpgmm_dist.artifact.manifest import FileDigest, Manifest
from dpgmm_dist.artifact.receipt import InputSchema, check_receipt
from dpgmm_dist.artifact.schema import (
    AXES,
    MANIFEST,
    MIXTURE,
    RECEIPT,
    TRANSFORM,
    decode_marks,
    decode_mixture,
    decode_transform,
    parse_json,
)
from dpgmm_dist.errors import DataError
from dpgmm_dist.model.affine import Transform
from dpgmm_dist.model.mixture import LabelValue, Mixture, Seed, StandardErrors
from dpgmm_dist.storage.store import Store, open_store, read_or_none

Floats = NDArray[np.float64]

_SCORE_ROWS = 1 << 15


@dataclass(frozen=True, eq=False)
class Release:
    """A published mixture to sample from and to score rows with.

    ``sample`` and ``score_samples`` use the units of the input. ``mixture`` is in latent units.
    """

    mixture: Mixture
    standard_errors: StandardErrors
    transform: Transform
    receipt: Mapping[str, Any]
    """Contents of receipt.json: specification, queries, guarantee, input columns."""
    manifest: Manifest
    error_marks: ErrorMarks | None = None
    """Which standard errors are approximate; None where the release does not say."""

    def __repr__(self) -> str:
        return (
            f"Release({self.release_id!r}, {self.mixture.n_components} components, "
            f"{self.transform.input_dimension} columns, {self.manifest.privacy})"
        )

    @property
    def release_id(self) -> str:
        """The id under which the release was charged."""
        return self.manifest.release_id

    @property
    def private(self) -> bool:
        """False when the release was made with insecure test noise."""
        return self.manifest.privacy == "private"

    @property
    def label_values(self) -> tuple[LabelValue, ...]:
        """The public labels; () if the release has none."""
        return self.mixture.label_values

    def sample(
        self, n: int, seed: Seed = None, label: LabelValue | None = None
    ) -> tuple[Floats, NDArray[Any]]:
        """Draw synthetic rows in input units.

        Parameters
        ----------
        n
            Number of rows, at least 0.
        seed
            An int or SeedSequence. The same seed gives the same rows on every machine. None takes
            entropy of the operating system.
        label
            Draw rows of this label only; None draws labels in the released proportions.

        Returns
        -------
        (X, y)
            X (n, d) float64. y (n,) holds labels, or component indices if there are no labels.
            In X a value that is missing is NaN, and a category is the number of its value, from 0,
            in the specification; ``dpgmm sample`` writes names and empty cells.

        Raises
        ------
        ValueError
            When n is negative, or the label is not one of ``label_values``.
        """
        mixture = self.mixture if label is None else self.mixture.for_label(label)
        rows, index = sample_rows(
            mixture, self.transform, np.random.Generator(np.random.Philox(seed)), n
        )
        if not mixture.label_values:
            return rows, index
        return rows, np.array(mixture.label_values)[mixture.label_index[index]]

    def score_samples(self, rows: ArrayLike) -> Floats:
        """Natural log density (n,) at rows (n, d) in input units, marginal over labels.

        Where the columns of a table have their own maps, an atom (a whole number, or a value that
        many rows have) counts with its probability instead of a density. So do a category and a
        missing value (NaN). Rows have the form of those of `sample`.

        If the release has a projection, the density is Gaussian with the residual variance in the
        directions outside it.

        Raises
        ------
        ValueError
            When the rows do not have d columns, or are not finite.
        """
        checked = np.asarray(rows)
        if checked.ndim != 2:
            raise ValueError(f"rows must be a matrix (n, d), got shape {checked.shape}")
        out = np.empty(checked.shape[0])
        for block in _blocks(checked.shape[0]):
            part = checked[block]
            out[block] = self.transform.log_prob(self.mixture, part)
        return out if self.transform.columns else out + self.transform.log_jacobian

    def responsibilities(self, rows: ArrayLike) -> Floats:
        """Posterior probability (n, C) of each component, given rows (n, d) in input units.

        Raises
        ------
        ValueError
            When the rows do not have d columns, or are not finite.
        """
        return self.mixture.responsibilities(self.transform.to_latent(rows))

    def label_probabilities(self, rows: ArrayLike) -> Floats:
        """Probability (n, G) of each of ``label_values``, given rows (n, d) in input units.

        By regularised discriminant analysis: each covariance is moved to the average and keeps a
        share of its difference from it. The receipt has the share (``plan.discriminant_share``); it
        is 1 if it has none.

        Raises
        ------
        ValueError
            When the rows do not have d columns, or are not finite.
        DataError
            When the receipt names no such share.
        """
        return self._discriminant.label_probabilities(self.transform.to_latent(rows))

    @cached_property
    def _discriminant(self) -> Mixture:
        plan = self.receipt.get("plan")
        share = plan.get("discriminant_share", 1.0) if isinstance(plan, Mapping) else 1.0
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            raise DataError(
                f"plan.discriminant_share of {RECEIPT} must be a number from 0 to 1, got "
                f"{share!r:.40}: the release is not intact"
            )
        return self.mixture if share == 1 else self.mixture.regularised(share)

    def category_tables(self) -> dict[str, Floats]:
        """The probability of each value of each column of categories, in each component.

        Returns
        -------
        dict
            By the name of the column, (C, B) for C components and the B public values in their
            order; each row adds up to 1. Missing values are left out. Empty without categories.
        """
        return tables_of(check_receipt(self.receipt).input, self.mixture, self.transform)

    def to_sklearn(self, space: Literal["input", "latent"] = "input") -> Any:
        """The mixture as a fitted ``sklearn.mixture.GaussianMixture``, marginal over labels.

        Parameters
        ----------
        space
            "input": in the units of the input, with covariances (d, d); ``score_samples`` agrees
            with that of the release. "latent": in the coordinates of ``mixture``.

        Raises
        ------
        SpecError
            When scikit-learn is not installed.
        """
        from dpgmm_dist.artifact.sklearn_mixture import to_sklearn

        return to_sklearn(self.mixture, self.transform if space == "input" else None)


def tables_of(schema: InputSchema, mixture: Mixture, transform: Transform) -> dict[str, Floats]:
    """The probabilities (C, B) of the values of each column of categories in each component."""
    tables: dict[str, Floats] = {}
    if not transform.columns:
        return tables
    means = mixture.means + (0.0 if transform.offset is None else transform.offset)
    spreads = np.sqrt(np.diagonal(mixture.covariances, axis1=1, axis2=2))
    for j, column in enumerate(schema.columns):
        if column.values is None:
            continue
        shares = transform.columns[j].shares(means[:, j], spreads[:, j])
        rank = transform.columns[j].rank
        tables[column.name] = shares if rank is None else shares[:, rank]
    return tables


def sample_rows(
    mixture: Mixture,
    transform: Transform,
    generator: np.random.Generator,
    n: int,
    residual: bool = True,
) -> tuple[Floats, NDArray[np.int64]]:
    """Rows (n, d) in input units and the component (n,) of each.

    With ``residual``, rows also vary in the directions outside the projection.
    """
    latent, index = mixture.sample_with(generator, n)
    noise = None
    if residual and transform.residual_dimension > 0:
        noise = generator.standard_normal((n, transform.input_dimension))
    return transform.to_input(latent, noise), index


def load_release(url: str, storage_options: Mapping[str, Any] | None = None) -> Release:
    """Read the release in a directory or at a fsspec URL.

    Every file is checked against the manifest.

    Raises
    ------
    DataError
        When there is no release, or a file is missing, changed or invalid.
    SpecError
        When the URL is not valid.
    """
    store = open_store(str(url), storage_options)
    manifest = read_manifest(store)
    files = {name: read_checked(store, name, digest) for name, digest in manifest.files.items()}
    return decode_release(manifest, files)


def decode_release(manifest: Manifest, files: Mapping[str, bytes]) -> Release:
    """A release from the bytes of its files; DataError if they do not hold one."""
    mixture, errors = decode_mixture(files[MIXTURE], files.get(AXES))
    transform = decode_transform(files[TRANSFORM])
    if transform.latent_dimension != mixture.dimension:
        raise DataError(
            f"{TRANSFORM} has {transform.latent_dimension} latent dimensions and {MIXTURE} "
            f"{mixture.dimension}: the release is not intact"
        )
    receipt, marks = parse_json(RECEIPT, files[RECEIPT]), decode_marks(files[MIXTURE])
    return Release(mixture, errors, transform, receipt, manifest, marks)


def read_manifest(store: Store) -> Manifest:
    """The manifest of the release in a store; DataError if there is none."""
    data = read_or_none(store, MANIFEST)
    if data is None:
        raise DataError(
            f"there is no release at {store.url}: {MANIFEST} is missing. Check the path; if a "
            "release was interrupted there, run it again with the same --release-id"
        )
    return Manifest.from_bytes(data)


def read_checked(store: Store, name: str, digest: FileDigest) -> bytes:
    """One file of a release; DataError if it is missing or differs from the manifest."""
    data = read_or_none(store, name)
    if data is None:
        raise DataError(f"{store.url}/{name} is missing: the release is not intact")
    if FileDigest.of(data) != digest:
        raise DataError(
            f"{store.url}/{name} is not the file that the manifest describes (its SHA-256 or size "
            "differs): it was changed or damaged. Restore the release from its source"
        )
    return data


def _blocks(rows: int) -> Iterator[slice]:
    for start in range(0, rows, _SCORE_ROWS):
        yield slice(start, min(start + _SCORE_ROWS, rows))
