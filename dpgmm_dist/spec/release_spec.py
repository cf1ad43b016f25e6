"""ReleaseSpec: everything public that defines a release, validated and frozen.

The YAML of a job and this model say the same thing. A mistake is a :class:`SpecError` with one line
per problem: the key, the value, what to do. The ``storage_options`` of the dataset, the ledger and
the output are the secret parts: they are in no repr, error, public dictionary or digest.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from dpgmm_dist.errors import SpecError
from dpgmm_dist.spec import fields, windows
from dpgmm_dist.spec.cluster import ClusterSpec
from dpgmm_dist.spec.dates import PERIODS, RunDate
from dpgmm_dist.spec.messages import Problems, explain
from dpgmm_dist.spec.section import Read as _Read
from dpgmm_dist.spec.section import Section as _Section

Name = Annotated[str, _Read(fields.text)]
Place = Annotated[str, _Read(fields.place)]
OptionalPlace = Annotated[str | None, _Read(fields.optional(fields.place))]


_StorageOptions = Annotated[dict[str, Any], _Read(fields.storage_options)]
_UNPUBLISHED: dict[str, Any] = {
    "dataset": {"storage_options"},
    "privacy": {"storage_options"},
    "output": {"storage_options"},
    "cluster": True,  # where it runs is no part of what is released
}
_MOST_WEIGHTED = 256


class PrivacyUnitSpec(_Section):
    """All rows that share a value of ``column`` are one unit; ``max_rows`` of them are kept.

    Attributes
    ----------
    column : of integers, strings or binary values; a row without one contributes nothing.
    max_rows : rows kept of a unit.
    aggregate : "rows": kept rows count whole, and noise grows with ``max_rows``. "weight": the rows
        of a unit weigh one row together. "mean": a unit is one row, the mean of those kept.
    """

    column: Name
    max_rows: Annotated[int, _Read(fields.whole(1, 2**20))]
    aggregate: Annotated[
        Literal["rows", "weight", "mean"], _Read(fields.choice("rows", "weight", "mean"))
    ] = "rows"


class WindowSpec(_Section):
    """Rows whose ``column`` is in the window; all other rows contribute nothing.

    Attributes
    ----------
    column : partition key (a directory ``column=value``), or a column of dates or times.
    equals : the text of the partition.
    start, end : dates or times, in UTC where they name no offset; ``end`` is excluded.
    every : the day, week, month, quarter or year that holds the date of the run; becomes start
        and end.
    """

    column: Name
    equals: Annotated[str | None, _Read(fields.optional(fields.text))] = None
    start: Annotated[str | None, _Read(fields.optional(windows.moment))] = None
    end: Annotated[str | None, _Read(fields.optional(windows.moment))] = None
    every: Annotated[str | None, _Read(fields.optional(fields.choice(*PERIODS)))] = None


class DatasetSpec(_Section):
    """Where the rows are and which columns are read.

    Attributes
    ----------
    path : file, directory, glob or fsspec URL of Parquet.
    features : the name of one list column (embeddings), or the names of numeric columns (a table).
    width : length of the list column where its type does not fix it.
    label, labels : label column and its public set of values; both or neither.
    privacy_unit : the unit of privacy where it is not one row.
    window : which rows are read, by a partition key or a time; all by default.
    storage_options : fsspec options of ``path``. Secret.
    """

    path: Place
    features: Annotated[str | tuple[str, ...], _Read(fields.features)]
    width: Annotated[int | None, _Read(fields.optional(fields.whole(1, fields.MAX_WIDTH)))] = None
    label: Annotated[str | None, _Read(fields.optional(fields.text))] = None
    labels: Annotated[
        tuple[int, ...] | tuple[str, ...] | None, _Read(fields.optional(fields.labels))
    ] = None
    privacy_unit: PrivacyUnitSpec | None = None
    window: WindowSpec | None = None
    storage_options: _StorageOptions = Field(default_factory=dict, repr=False)


class BoundsSpec(_Section):
    """Public bounds, in input units: rows beyond them are clipped.

    Attributes
    ----------
    norm : bound on the L2 norm of a row (after ``center``); for a table, of a row of the cube.
    columns : [low, high] of every numeric column; maps the table to the cube [-1, 1]^d.
    center : public centre of embeddings, shape (d,), subtracted first.
    """

    norm: Annotated[float | None, _Read(fields.optional(fields.norm))] = None
    columns: Annotated[
        dict[str, tuple[float, float]] | None, _Read(fields.optional(fields.columns))
    ] = None
    center: Annotated[tuple[float, ...] | None, _Read(fields.optional(fields.center))] = None


class PrivacySpec(_Section):
    """The guarantee, and the ledger it is charged to.

    Releases of disjoint windows of one data set may name one ``account`` of the ledger: together
    they cost a row what the dearest of them costs. Only where the unit of privacy is one row.

    ``storage_options`` are the fsspec options of ``ledger``. Secret.
    """

    epsilon: Annotated[float, _Read(fields.epsilon)]
    delta: Annotated[float, _Read(fields.delta)]
    ledger: OptionalPlace = None
    account: Annotated[str | None, _Read(fields.optional(fields.text))] = None
    noise: Annotated[
        Literal["auto", "discrete_gaussian", "gaussian"],
        _Read(fields.choice("auto", "discrete_gaussian", "gaussian")),
    ] = "auto"
    storage_options: _StorageOptions = Field(default_factory=dict, repr=False)


class ModelSpec(_Section):
    """The mixture: ``components`` is a number (per label), a tuple of candidates, or "auto"."""

    components: Annotated[int | tuple[int, ...] | Literal["auto"], _Read(fields.components)] = 10
    covariance: Annotated[
        Literal["auto", "full", "tied", "diag", "spherical"],
        _Read(fields.choice("auto", "full", "tied", "diag", "spherical")),
    ] = "auto"
    assignment: Annotated[Literal["soft", "hard"], _Read(fields.choice("soft", "hard"))] = "soft"
    dimension: Annotated[int | None, _Read(fields.optional(fields.whole(1, fields.MAX_WIDTH)))] = (
        None
    )
    allocation: Annotated[Literal["kl", "even"], _Read(fields.choice("kl", "even"))] = "kl"


class OutputSpec(_Section):
    """Where the release goes, and its id where the command gives none (with a date: a template).

    ``storage_options`` are the fsspec options of ``path``. Secret.
    """

    path: OptionalPlace = None
    release_id: Annotated[str | None, _Read(fields.optional(fields.text))] = None
    storage_options: _StorageOptions = Field(default_factory=dict, repr=False)


class ReleaseSpec(_Section):
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
        """Return the specification in a YAML file, under the environment, under ``overrides``.

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
        from dpgmm_dist.spec import yaml_file

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
            # What BaseModel.__init__ does, around the __init__ above that does not know sources.
            spec = cls.__new__(cls)
            cls.__pydantic_validator__.validate_python(sections, self_instance=spec)
            return spec
        except ValidationError as error:
            raise SpecError("\n".join(explain(error, cls, sources))) from None

    @model_validator(mode="after")
    def _sections_agree(self) -> ReleaseSpec:
        problems = _disagreements(self)
        if problems:
            raise Problems(problems)
        return self

    @property
    def is_table(self) -> bool:
        """Whether the features are numeric columns, rather than one list column."""
        return not isinstance(self.dataset.features, str)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns read as features: one for embeddings, d for a table."""
        names = self.dataset.features
        return (names,) if isinstance(names, str) else names

    @property
    def dim_hint(self) -> int | None:
        """The number of features as far as the specification says it."""
        return len(self.feature_names) if self.is_table else self.dataset.width

    @property
    def norm_bound(self) -> float:
        """The bound on a row's L2 norm: as given, else the half diagonal of a table's cube."""
        if self.bounds.norm is not None:
            return self.bounds.norm
        return math.sqrt(len(self.feature_names))

    @property
    def label_values(self) -> tuple[int, ...] | tuple[str, ...]:
        """The public label set, empty without labels."""
        return self.dataset.labels or ()

    def public_dict(self) -> dict[str, Any]:
        """Return the specification as plain JSON values, less its secrets and the cluster."""
        return windows.without_unset(self.model_dump(mode="json", exclude=_UNPUBLISHED))

    def digest(self) -> str:
        """Return the SHA-256 (hex) of what defines the release: all but where it is written."""
        text = json.dumps(_identity(self), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def difference(self, other: ReleaseSpec) -> list[str]:
        """Return a line for each key in which the two define different releases, by key."""
        here, there = _leaves(_identity(self)), _leaves(_identity(other))
        return [
            f"{key}: {_leaf(here, key)} here, {_leaf(there, key)} there"
            for key in sorted(here.keys() | there.keys())
            if here.get(key) != there.get(key)
        ]


def _fill_dates(document: dict[str, Any], date: str | RunDate | None) -> None:
    if not isinstance(date, RunDate):
        date = RunDate(date)
        date.fill_document(document)
        date.require_used()
    else:
        date.fill_document(document)  # its owner knows what else may use it


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


def _disagreements(spec: ReleaseSpec) -> list[str]:
    """Return what is wrong between keys that are right one by one."""
    return [
        *_unit_problems(spec.dataset, spec.feature_names),
        *_label_problems(spec.dataset, spec.feature_names),
        *(_table_problems(spec) if spec.is_table else _embedding_problems(spec)),
        *_dimension_problems(spec),
        *windows.problems(spec),
        *spec.cluster.problems(),
    ]


def _unit_problems(dataset: DatasetSpec, names: tuple[str, ...]) -> list[str]:
    unit = dataset.privacy_unit
    if unit is None:
        return []
    problems = []
    if unit.column in (*names, dataset.label):
        problems.append(
            f"dataset.privacy_unit.column: got {fields.show(unit.column)}, which is a feature or "
            "the label; name the column that says whose row it is"
        )
    if unit.aggregate == "weight" and unit.max_rows > _MOST_WEIGHTED:
        problems.append(
            f"dataset.privacy_unit.max_rows: got {unit.max_rows}; with aggregate: weight at most "
            f"{_MOST_WEIGHTED}, as smaller weights would be rounded away (aggregate: mean takes "
            "more)"
        )
    return problems


def _label_problems(dataset: DatasetSpec, names: tuple[str, ...]) -> list[str]:
    problems = []
    if dataset.label is not None and dataset.labels is None:
        problems.append(
            "dataset.labels: missing; list the public label values, such as labels: [0, 1, 2] "
            "(they are never taken from the data)"
        )
    if dataset.label is None and dataset.labels is not None:
        problems.append("dataset.label: missing; name the column that holds dataset.labels")
    if dataset.label in names:
        problems.append(
            f"dataset.label: got {fields.show(dataset.label)}, which is among dataset.features; "
            "remove it from one of the two"
        )
    return problems


def _table_problems(spec: ReleaseSpec) -> list[str]:
    problems = []
    if spec.dataset.width is not None:
        problems.append("dataset.width: belongs to a list column; remove it, features is a list")
    if spec.bounds.center is not None:
        problems.append("bounds.center: remove it; a table is centred by its bounds.columns")
    bounded = spec.bounds.columns or {}
    problems += [
        f"bounds.columns: no bounds for {fields.show(name)}; add its public [low, high]"
        for name in spec.feature_names
        if name not in bounded
    ]
    problems += [
        f"bounds.columns: {fields.show(name)} is not one of dataset.features; remove it"
        for name in bounded
        if name not in spec.feature_names
    ]
    return problems


def _embedding_problems(spec: ReleaseSpec) -> list[str]:
    problems = []
    if spec.bounds.norm is None:
        problems.append(
            "bounds.norm: missing; give a public bound on the L2 norm of a row, such as 1.0 for "
            "normalised embeddings (for numeric columns make dataset.features a list)"
        )
    if spec.bounds.columns is not None:
        problems.append(
            "bounds.columns: belongs to numeric columns; remove it and give bounds.norm, "
            "or make dataset.features a list of columns"
        )
    width, center = spec.dataset.width, spec.bounds.center
    if width is not None and center is not None and len(center) != width:
        problems.append(
            f"bounds.center: has {len(center)} numbers, dataset.width is {width}; make them agree"
        )
    return problems


def _dimension_problems(spec: ReleaseSpec) -> list[str]:
    dimension, width = spec.model.dimension, spec.dim_hint
    if dimension is None or width is None or dimension <= width:
        return []
    return [f"model.dimension: got {dimension}; must be at most the number of features, {width}"]
