"""The sections of a specification: their keys, and the reader that checks each value."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from dpgmm_dist.spec import fields
from dpgmm_dist.spec.dates import PERIODS
from dpgmm_dist.spec.section import Read, Section

Name = Annotated[str, Read(fields.text)]
Path = Annotated[str, Read(fields.place)]
OptionalPath = Annotated[str | None, Read(fields.optional(fields.place))]
StorageOptions = Annotated[dict[str, Any], Read(fields.storage_options)]


class PrivacyUnitSpec(Section):
    """All rows that share a value of ``column`` are one unit; ``max_rows`` of them are kept.

    Attributes
    ----------
    column : of integers, strings or binary values; a row without one contributes nothing.
    max_rows : rows kept of a unit.
    aggregate : "rows": each kept row counts as a whole, and noise grows with ``max_rows``.
        "weight": the rows of a unit together weigh as much as one row. "mean": a unit is one row,
        the mean of the kept ones.
    """

    column: Name
    max_rows: Annotated[int, Read(fields.whole(1, 2**20))]
    aggregate: Annotated[
        Literal["rows", "weight", "mean"], Read(fields.choice("rows", "weight", "mean"))
    ] = "rows"


class WindowSpec(Section):
    """The rows whose ``column`` is in the window; all other rows contribute nothing.

    Attributes
    ----------
    column : partition key (a directory ``column=value``), or a column of dates or times.
    equals : the text of the partition.
    start, end : dates or times, in UTC where they name no offset; ``end`` is excluded.
    every : the day, week, month, quarter or year that holds the date of the run. It is replaced by
        start and end.
    """

    column: Name
    equals: Annotated[str | None, Read(fields.optional(fields.text))] = None
    start: Annotated[str | None, Read(fields.optional(fields.moment))] = None
    end: Annotated[str | None, Read(fields.optional(fields.moment))] = None
    every: Annotated[str | None, Read(fields.optional(fields.choice(*PERIODS)))] = None


class DatasetSpec(Section):
    """Where the rows are and which columns are read.

    Attributes
    ----------
    path : file, directory, glob or fsspec URL of Parquet.
    features : the name of one column of embeddings, or the names of columns of numbers, booleans,
        dates and times (a table). ``meta.age`` is the field ``age`` of the column ``meta``.
    width : length of the embeddings where their type does not fix it.
    label, labels : label column and its public set of values; both or neither. Labels are integers,
        texts, booleans, or dates as texts.
    privacy_unit : the unit of privacy where it is not one row.
    window : which rows are read, by a partition key or a time; all by default.
    categories : the public values of columns of a table that are texts, whole numbers, booleans or
        dates, next to ``features``. Any other value counts as missing. Values that have an order
        are best listed in it.
    nulls : what becomes of rows of a table that lack a value. With "drop" they contribute nothing;
        with "model" missing is a state of its own, in each column. "drop" by default.
    snapshot : version, tag or time of the Delta Lake or Iceberg table at ``path``; by default the
        newest when the job begins.
    storage_options : fsspec options of ``path``. Secret.
    """

    path: Path
    features: Annotated[str | tuple[str, ...], Read(fields.features)]
    width: Annotated[int | None, Read(fields.optional(fields.whole(1, fields.MAX_WIDTH)))] = None
    label: Annotated[str | None, Read(fields.optional(fields.text))] = None
    labels: Annotated[
        tuple[int, ...] | tuple[str, ...] | None, Read(fields.optional(fields.labels))
    ] = None
    privacy_unit: PrivacyUnitSpec | None = None
    window: WindowSpec | None = None
    categories: Annotated[
        dict[str, tuple[int, ...] | tuple[str, ...]] | None,
        Read(fields.optional(fields.categories)),
    ] = None
    nulls: Annotated[
        Literal["drop", "model"] | None, Read(fields.optional(fields.choice("drop", "model")))
    ] = None
    snapshot: Annotated[int | str | None, Read(fields.optional(fields.snapshot))] = None
    storage_options: StorageOptions = Field(default_factory=dict, repr=False)

    @property
    def is_table(self) -> bool:
        """Whether the features are numeric columns, rather than one list column."""
        return not isinstance(self.features, str)

    @property
    def number_names(self) -> tuple[str, ...]:
        """Names of the columns that hold numbers: one for embeddings, those of a table."""
        return (self.features,) if isinstance(self.features, str) else self.features

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of all columns that a row is made of: of numbers, then of categories."""
        return (*self.number_names, *(self.categories or {}))

    @property
    def known_width(self) -> int | None:
        """The number of features, where the specification says it."""
        return len(self.feature_names) if self.is_table else self.width


class BoundsSpec(Section):
    """Public bounds, in input units. Rows beyond them are clipped.

    What is "auto" is found privately, at a public share of the budget.

    Attributes
    ----------
    norm : bound on the L2 norm of a row (after ``center``); for a table, of a row in the cube.
    columns : [low, high] of every column; maps the table to the cube [-1, 1]^d. Bounds are numbers,
        or ISO 8601 texts where the column holds dates or times. "auto" for single columns, or in
        place of the mapping for all.
    center : public centre of embeddings, shape (d,), subtracted first.
    """

    norm: Annotated[
        float | Literal["auto"] | None, Read(fields.optional(fields.or_auto(fields.norm)))
    ] = None
    columns: Annotated[
        dict[str, tuple[fields.Bound, fields.Bound] | Literal["auto"]] | Literal["auto"] | None,
        Read(fields.optional(fields.or_auto(fields.columns))),
    ] = None
    center: Annotated[
        tuple[float, ...] | Literal["auto"] | None,
        Read(fields.optional(fields.or_auto(fields.center))),
    ] = None


class PrivacySpec(Section):
    """The guarantee, and the ledger it is charged to.

    Attributes
    ----------
    epsilon, delta : the guarantee of the release.
    ledger : directory or URL of the ledger. Without one no budget is kept.
    account : releases of disjoint windows of one data set may name one account of the ledger.
        Together they cost each row as much as the most expensive of them. The unit of privacy is
        one row then.
    noise : "gaussian" costs less, "discrete_gaussian" is OpenDP's sampler. "auto" is "gaussian".
    storage_options : fsspec options of ``ledger``. Secret.
    """

    epsilon: Annotated[float, Read(fields.epsilon)]
    delta: Annotated[float, Read(fields.delta)]
    ledger: OptionalPath = None
    account: Annotated[str | None, Read(fields.optional(fields.text))] = None
    noise: Annotated[
        Literal["auto", "discrete_gaussian", "gaussian"],
        Read(fields.choice("auto", "discrete_gaussian", "gaussian")),
    ] = "auto"
    storage_options: StorageOptions = Field(default_factory=dict, repr=False)


class ModelSpec(Section):
    """The mixture.

    Attributes
    ----------
    components : a number (per label), a tuple of candidates, or "auto". The largest number that the
        noise affords is chosen by noisy answers.
    covariance : "auto" is "full", shrunk as far as the known noise calls for.
    assignment : whether a row counts for all components by its responsibilities, or for one.
    dimension : number of latent coordinates of a private projection. None, or the text "auto", for
        all dimensions.
    allocation : passes share the budget where the expected KL divergence falls most, or evenly.
    marginals : for tables: with "auto" the distribution of each column is measured by itself, and
        the mixture is one of normal scores; with "none" it is one of the columns as they are. By
        default "auto" where the bounds of a column are found privately, and "none" elsewhere.
    """

    components: Annotated[int | tuple[int, ...] | Literal["auto"], Read(fields.components)] = "auto"
    covariance: Annotated[
        Literal["auto", "full", "tied", "diag", "spherical"],
        Read(fields.choice("auto", "full", "tied", "diag", "spherical")),
    ] = "auto"
    assignment: Annotated[Literal["soft", "hard"], Read(fields.choice("soft", "hard"))] = "soft"
    dimension: Annotated[int | None, Read(fields.dimension)] = None
    allocation: Annotated[Literal["kl", "even"], Read(fields.choice("kl", "even"))] = "kl"
    marginals: Annotated[
        Literal["auto", "none"] | None, Read(fields.optional(fields.choice("auto", "none")))
    ] = None


class OutputSpec(Section):
    """Where the release goes. Path and id may use the date, as in ``{date:%Y-%m}``.

    Attributes
    ----------
    path : directory or URL, where the command gives none.
    release_id : the id of the release, where the command gives none.
    storage_options : fsspec options of ``path``. Secret.
    """

    path: OptionalPath = None
    release_id: Annotated[str | None, Read(fields.optional(fields.text))] = None
    storage_options: StorageOptions = Field(default_factory=dict, repr=False)
