"""ReleaseSpec: everything public that defines a release, validated and frozen.

It has the sections and keys of a job's YAML file. A mistake is a :class:`SpecError` with one line
per problem: the key, the value, what to do. The ``storage_options`` of the dataset, the ledger and
the output are secret: they are in no repr, error, public dictionary or digest.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from dpgmm_dist.errors import SpecError
from dpgmm_dist.spec import consistency, fields, windows
from dpgmm_dist.spec.cluster import ClusterSpec
from dpgmm_dist.spec.dates import RunDate
from dpgmm_dist.spec.messages import Problems, explain
from dpgmm_dist.spec.section import Section
from dpgmm_dist.spec.sections import (
    BoundsSpec,
    DatasetSpec,
    ModelSpec,
    OutputSpec,
    PrivacySpec,
)

_UNPUBLISHED: dict[str, Any] = {
    "dataset": {"storage_options"},
    "privacy": {"storage_options"},
    "output": {"storage_options"},
    "cluster": True,  # where a release runs is not part of what is released
}


class ReleaseSpec(Section):
    """Everything public that defines a release.

    Every way to build one (``ReleaseSpec(...)``, :meth:`from_dict`, :meth:`from_yaml`,
    ``model_validate``) raises :class:`SpecError` for a mistake.
    """

    dataset: DatasetSpec
    bounds: BoundsSpec
    privacy: PrivacySpec
    model: ModelSpec = ModelSpec()
    output: OutputSpec = OutputSpec()
    cluster: ClusterSpec = ClusterSpec()

    def __init__(self, /, **sections: Any) -> None:
        try:
            super().__init__(**sections)
        except ValidationError as error:
            # "from None": a chained pydantic error would keep the inputs, credentials included.
            raise SpecError("\n".join(explain(error, type(self), {}))) from None

    @classmethod
    def from_dict(
        cls, document: Mapping[str, Any], date: str | RunDate | None = None
    ) -> ReleaseSpec:
        """Return the specification that nested plain mappings describe.

        ``date`` is what ``{date:%Y-%m}`` in it stands for.

        Raises
        ------
        SpecError
            With one line for each problem.
        """
        if date is None or not isinstance(document, Mapping):
            return cls._build(document, {})
        dated = copy.deepcopy(dict(document))
        _fill_dates(dated, date)
        return cls._build(dated, {})

    @classmethod
    def from_yaml(
        cls,
        path_or_text: str | Path,
        overrides: Iterable[str] = (),
        environ: Mapping[str, str] | None = None,
        date: str | RunDate | None = None,
    ) -> ReleaseSpec:
        """Return the specification in a YAML file, changed by the environment and by ``overrides``.

        Parameters
        ----------
        path_or_text : path of a YAML file, or YAML itself (anything with a line break or
            ``key: value``).
        overrides : ``section.key=value`` with the value in YAML, as given to ``--set``.
        environ : variables ``DPGMM_SECTION__KEY``, values in YAML; the process's by default.
        date : what ``{date:%Y-%m}`` in paths, window and release id stands for, such as
            "2026-11-25".

        Raises
        ------
        SpecError
            The file cannot be read or something in it is wrong; one line for each problem.
        """
        from dpgmm_dist.spec import yaml_file  # loads PyYAML

        document = yaml_file.read_document(path_or_text)
        environ = os.environ if environ is None else environ
        assignments = yaml_file.from_environment(environ, cls.model_fields)
        assignments += yaml_file.from_assignments(overrides)
        sources = {}
        for path, value, source in assignments:
            yaml_file.assign(document, path, value, source)
            sources[path] = source
        _fill_dates(document, date)
        return cls._build(document, sources)

    @classmethod
    def _build(
        cls, document: Mapping[str, Any], sources: Mapping[tuple[str, ...], str]
    ) -> ReleaseSpec:
        if not isinstance(document, Mapping) or not all(isinstance(key, str) for key in document):
            raise SpecError(
                f"specification: got {fields.show(document)}; must be a mapping with keys of "
                + ", ".join(cls.model_fields)
            )
        # "output:" with nothing below it is an empty section, not a wrong one.
        sections = {
            key: {} if value is None and key in cls.model_fields else value
            for key, value in document.items()
        }
        try:
            # What BaseModel.__init__ does; the __init__ above does not know the sources.
            spec = cls.__new__(cls)
            cls.__pydantic_validator__.validate_python(sections, self_instance=spec)
            return spec
        except ValidationError as error:
            raise SpecError("\n".join(explain(error, cls, sources))) from None

    @model_validator(mode="after")
    def _sections_agree(self) -> ReleaseSpec:
        problems = consistency.problems(
            self.dataset, self.bounds, self.privacy, self.model, self.output, self.cluster
        )
        if problems:
            raise Problems(problems)
        return self

    @property
    def is_table(self) -> bool:
        """Whether the features are numeric columns, rather than one list column."""
        return self.dataset.is_table

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns read as features: one for embeddings, d for a table."""
        return self.dataset.feature_names

    @property
    def dim_hint(self) -> int | None:
        """The number of features, where the specification says it."""
        return self.dataset.known_width

    @property
    def norm_bound(self) -> float | None:
        """The bound on a row's L2 norm; for a table by default half the diagonal of its cube.

        None where it is found privately.
        """
        if self.bounds.norm is None:
            return math.sqrt(len(self.feature_names))
        return None if self.bounds.norm == "auto" else self.bounds.norm

    @property
    def given_columns(self) -> dict[str, tuple[fields.Bound, fields.Bound]]:
        """The public ranges of numeric columns, without those that are found privately."""
        columns = self.bounds.columns
        if columns is None or columns == "auto":
            return {}
        return {name: given for name, given in columns.items() if not isinstance(given, str)}

    @property
    def has_marginals(self) -> bool:
        """Whether the columns of a table are mapped to normal scores by their own distributions.

        With "auto" they are, if the mixture has a coordinate for each column, and if there are not
        so many columns that the noise of their counts exceeds the information. "auto" is the
        default where bounds are found, because these are wide beside the rows, and where there are
        categories or missing values.
        """
        needed = bool(self.auto_columns or self.models_nulls or self.dataset.categories)
        marginals = self.model.marginals or ("auto" if needed else "none")
        wanted = self.is_table and marginals == "auto"
        few_columns = len(self.feature_names) <= consistency.MOST_MARGINALS
        return wanted and few_columns and self.model.dimension is None

    @property
    def auto_columns(self) -> tuple[str, ...]:
        """The numeric columns whose range is found privately, in feature order."""
        given = self.given_columns if self.is_table else self.feature_names
        return tuple(name for name in self.dataset.number_names if name not in given)

    @property
    def categories(self) -> dict[str, tuple[int, ...] | tuple[str, ...]]:
        """The public values of each column of categories, in the order of the features."""
        return self.dataset.categories or {}

    @property
    def models_nulls(self) -> bool:
        """Whether missing is a state of each column of a table, rather than of a whole row."""
        return self.dataset.nulls == "model"

    @property
    def label_values(self) -> tuple[int, ...] | tuple[str, ...]:
        """The public label set, empty without labels; booleans as 0 and 1."""
        labels: tuple[int, ...] | tuple[str, ...] = self.dataset.labels or ()
        return tuple(int(v) if isinstance(v, bool) else v for v in labels)  # type: ignore[return-value]

    def public_dict(self) -> dict[str, Any]:
        """Return the specification as JSON values, without its secrets and the cluster."""
        public = windows.without_unset(self.model_dump(mode="json", exclude=_UNPUBLISHED))
        if self.model.marginals is None:
            # A specification without it keeps the digest that ledgers and journals already hold.
            del public["model"]["marginals"]
        for key in ("categories", "nulls", "snapshot"):
            if public["dataset"][key] is None:
                del public["dataset"][key]
        return public

    def digest(self) -> str:
        """Return the SHA-256 (hex) of all that defines the release; not of where it is written."""
        text = json.dumps(_identity(self), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def difference(self, other: ReleaseSpec) -> list[str]:
        """Return a line for each key in which the two differ, sorted by key."""
        leaves, other_leaves = _leaves(_identity(self)), _leaves(_identity(other))
        return [
            f"{key}: {_leaf(leaves, key)} here, {_leaf(other_leaves, key)} there"
            for key in sorted(leaves.keys() | other_leaves.keys())
            if leaves.get(key) != other_leaves.get(key)
        ]


def _fill_dates(document: dict[str, Any], date: str | RunDate | None) -> None:
    if not isinstance(date, RunDate):
        date = RunDate(date)
        date.fill_document(document)
        date.require_used()
    else:
        date.fill_document(document)  # the caller may use it elsewhere, and checks that


def _identity(spec: ReleaseSpec) -> dict[str, Any]:
    public = spec.public_dict()
    del public["output"]["path"]
    return public


def _leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            leaves |= _leaves(item, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = item
    return leaves


def _leaf(leaves: Mapping[str, Any], key: str) -> str:
    value = leaves.get(key)
    return "not given" if value is None else fields.show(value)
