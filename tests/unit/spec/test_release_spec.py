"""The specification: what it accepts, what it refuses and in which words, what it keeps secret."""

from __future__ import annotations

import copy
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dpgmm_dist.errors import SpecError
from dpgmm_dist.spec import yaml_file
from dpgmm_dist.spec.release_spec import PrivacySpec, ReleaseSpec

SECRET = "hunter2-do-not-show"

EMBEDDINGS = """
dataset:   {path: data/train/, features: embedding, width: 4, label: label, labels: [0, 1, 2]}
bounds:    {norm: 1.0}
privacy:   {epsilon: 1.0, delta: 1e-6, ledger: ledger/}
model:     {components: 10, covariance: auto, assignment: soft, dimension: null, allocation: kl}
output:    {path: releases/a}
"""

TABLE = """
dataset: {path: people.parquet, features: [age, income]}
bounds:  {columns: {age: [0, 120], income: [-1e3, 1e6]}}
privacy: {epsilon: 1, delta: 1e-6}
"""


def build(text: str = EMBEDDINGS, *overrides: str, **environ: str) -> ReleaseSpec:
    return ReleaseSpec.from_yaml(text, overrides, environ=environ)


def refusal(text: str = EMBEDDINGS, *overrides: str, **environ: str) -> str:
    with pytest.raises(SpecError) as caught:
        build(text, *overrides, **environ)
    # No cause and no context in view: a chained pydantic error would hold the inputs.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert caught.value.exit_code == 2
    return str(caught.value)


class TestReading:
    def test_reads_embeddings(self) -> None:
        spec = build()
        assert not spec.is_table
        assert spec.feature_names == ("embedding",)
        assert spec.dim_hint == 4
        assert spec.norm_bound == 1.0
        assert spec.label_values == (0, 1, 2)
        assert spec.privacy.delta == 1e-6
        assert spec.model.components == 10
        assert spec.output.path == "releases/a"

    def test_reads_a_table(self) -> None:
        spec = build(TABLE)
        assert spec.is_table
        assert spec.feature_names == ("age", "income")
        assert spec.dim_hint == 2
        assert spec.norm_bound == math.sqrt(2)
        assert build(TABLE, "bounds.norm=1.2").norm_bound == 1.2
        assert spec.label_values == ()
        assert spec.bounds.columns == {"age": (0.0, 120.0), "income": (-1000.0, 1e6)}
        assert (spec.model.covariance, spec.model.assignment) == ("auto", "soft")

    def test_reads_a_file_and_says_where_one_is_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "job.yaml"
        path.write_text(EMBEDDINGS, encoding="utf-8")
        assert ReleaseSpec.from_yaml(path, environ={}) == build()
        assert ReleaseSpec.from_yaml(str(path), environ={}) == build()
        assert "no such specification file" in refusal(str(tmp_path / "none.yaml"))
        path.write_bytes(b"PAR1\xff\xfe\x00")
        assert "not a text file" in refusal(str(path))
        assert "cannot be read" in refusal(str(tmp_path))

    @pytest.mark.parametrize(
        ("written", "read"),
        [("1e-6", 1e-6), ("1E-06", 1e-6), (".5", 0.5), ("5.e-1", 0.5), ("0.5", 0.5)],
    )
    def test_numbers_are_numbers(self, written: str, read: float) -> None:
        assert build(EMBEDDINGS, f"privacy.delta={written}").privacy.delta == read

    @pytest.mark.parametrize("text", ["yes", "no", "on", "1:30", "2026-11-01", "1_000", "0o9"])
    def test_only_yaml_12_scalars_are_converted(self, text: str) -> None:
        assert build(EMBEDDINGS, f"dataset.labels=[{text}, a]").label_values == (text, "a")

    def test_integers_with_leading_zeros_are_decimal(self) -> None:
        assert build(EMBEDDINGS, "model.components=010").model.components == 10
        assert build(EMBEDDINGS, "model.components=0x10").model.components == 16

    def test_anchors_and_merge_keys_work(self) -> None:
        text = EMBEDDINGS + "\n"
        text = text.replace("bounds:    {norm: 1.0}", "bounds:\n  <<: {norm: 2.0}\n  norm: 3.0")
        assert build(text).norm_bound == 3.0

    def test_the_noise_decides_unless_a_number_is_given(self) -> None:
        assert build(TABLE).model.components == "auto"
        assert build(TABLE, "model.dimension=auto").model.dimension is None
        assert build(TABLE).digest() == build(TABLE, "model.dimension=auto").digest()

    def test_empty_sections_are_defaults(self) -> None:
        assert build(TABLE + "model:\noutput:\n") == build(TABLE)

    def test_negative_zero_is_zero(self) -> None:
        negative = build(TABLE, "bounds.columns.age=[-0.0, 1]")
        positive = build(TABLE, "bounds.columns.age=[0, 1]")
        assert negative.digest() == positive.digest()

    def test_numpy_and_path_values_from_python(self, tmp_path: Path) -> None:
        document = yaml_file.parse(TABLE, "table")
        document["dataset"]["path"] = tmp_path
        document["privacy"] = {"epsilon": np.float32(0.5), "delta": np.float64(1e-6)}
        document["model"] = {"components": np.int64(3)}
        spec = ReleaseSpec.from_dict(document)
        assert spec.dataset.path == str(tmp_path)
        assert type(spec.privacy.epsilon) is float
        assert type(spec.model.components) is int
        json.dumps(spec.public_dict())


class TestPrecedence:
    def test_set_over_environment_over_file(self) -> None:
        environ = {"DPGMM_PRIVACY__EPSILON": "2", "DPGMM_MODEL__COMPONENTS": "[2, 4]"}
        assert build(EMBEDDINGS, **environ).privacy.epsilon == 2.0
        spec = build(EMBEDDINGS, "privacy.epsilon=3", **environ)
        assert spec.privacy.epsilon == 3.0
        assert spec.model.components == (2, 4)

    def test_later_set_wins(self) -> None:
        assert build(EMBEDDINGS, "bounds.norm=2", "bounds.norm=3").norm_bound == 3.0

    def test_process_environment_is_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DPGMM_PRIVACY__EPSILON", "7")
        assert ReleaseSpec.from_yaml(EMBEDDINGS).privacy.epsilon == 7.0

    def test_names_that_are_not_sections_are_ignored(self) -> None:
        environ = {"DPGMM_DEBUG": "1", "DPGMM_DATASETS": "x", "HOME": "/", "PRIVACY__EPSILON": "9"}
        assert build(EMBEDDINGS, **environ) == build()

    @pytest.mark.parametrize(
        "variable", ["DPGMM_PRIVACY_EPSILON", "DPGMM_PRIVACY", "DPGMM_PRIVACY__"]
    )
    def test_a_variable_that_would_be_ignored_by_mistake_is_an_error(self, variable: str) -> None:
        message = refusal(EMBEDDINGS, **{variable: "2"})
        assert variable in message and "two underscores" in message

    def test_unknown_key_in_the_environment(self) -> None:
        message = refusal(EMBEDDINGS, DPGMM_PRIVACY__EPS="2")
        assert message.startswith("privacy.eps: unknown key, got 2 (from DPGMM_PRIVACY__EPS)")

    def test_a_bad_value_says_where_it_came_from(self) -> None:
        assert "(from --set privacy.epsilon)" in refusal(EMBEDDINGS, "privacy.epsilon=0")
        assert "DPGMM_PRIVACY__EPSILON" in refusal(EMBEDDINGS, DPGMM_PRIVACY__EPSILON="0")

    def test_column_names_with_dots(self) -> None:
        spec = build(
            TABLE, "dataset.features=[a.b]", "bounds.columns=null", "bounds.columns.a.b=[0, 1]"
        )
        assert spec.bounds.columns == {"a.b": (0.0, 1.0)}

    def test_nested_storage_options(self) -> None:
        spec = build(EMBEDDINGS, "dataset.storage_options.client_kwargs.region=x")
        assert spec.dataset.storage_options == {"client_kwargs": {"region": "x"}}

    @pytest.mark.parametrize(
        "override", ["privacy.epsilon", "epsilon=1", "=1", "privacy.=1", "dataset.path.x=1"]
    )
    def test_malformed_set(self, override: str) -> None:
        assert "--set" in refusal(EMBEDDINGS, override)


# One case a line: what is set, and what the one line of the refusal must say.
REFUSED = [
    ("privacy.epsilon=0", "privacy.epsilon: got 0; must be above 0 and at most 100"),
    ("privacy.epsilon=-1", "privacy.epsilon: got -1;"),
    ("privacy.epsilon=100.5", "privacy.epsilon: got 100.5;"),
    ("privacy.epsilon=.nan", "privacy.epsilon: got nan; must be a finite number"),
    ("privacy.epsilon=.inf", "privacy.epsilon: got inf; must be a finite number"),
    ("privacy.epsilon=1e999", "privacy.epsilon: got inf;"),
    ("privacy.epsilon=true", "privacy.epsilon: got True; must be a number"),
    ("privacy.epsilon='1'", "privacy.epsilon: got '1'; must be a number"),
    ("privacy.epsilon=null", "privacy.epsilon: got None; must be a number"),
    ("privacy.epsilon=" + "9" * 400, "must be a finite number"),
    ("privacy.delta=0", "privacy.delta: got 0; must be above 0 and below 1"),
    ("privacy.delta=1", "privacy.delta: got 1;"),
    ("privacy.delta=2", "privacy.delta: got 2;"),
    ("privacy.delta=.nan", "privacy.delta: got nan;"),
    ("privacy.noise=laplace", "must be one of auto, discrete_gaussian, gaussian"),
    ("bounds.norm=0", "bounds.norm: got 0; must be positive"),
    ("bounds.norm=-1", "bounds.norm: got -1;"),
    ("bounds.norm=.nan", "bounds.norm: got nan;"),
    ("bounds.norm=.inf", "bounds.norm: got inf;"),
    ("bounds.norm=1e-101", "bounds.norm: got 1e-101;"),
    ("bounds.norm=1e101", "bounds.norm: got 1e+101;"),
    ("bounds.norm=null", "bounds.norm: missing; give a public bound"),
    ("bounds.center=[0, 0, 0]", "bounds.center: has 3 numbers, dataset.width is 4"),
    ("bounds.center=[0, 0, 0, .nan]", "bounds.center: item 3 got nan;"),
    ("bounds.center=[0, 0, 0, 1e101]", "bounds.center: item 3 got 1e+101;"),
    ("bounds.center=0", "bounds.center: got 0; must be a list"),
    ("bounds.columns.age=[0, 1]", "bounds.columns: belongs to numeric columns"),
    ("dataset.features=5", "dataset.features: got 5;"),
    ("dataset.features=[]", "dataset.features: got [];"),
    ("dataset.features=''", "dataset.features: got '';"),
    ("dataset.path=", "dataset.path: got None;"),
    ("dataset.path=3", "dataset.path: got 3;"),
    ("dataset.width=0", "dataset.width: got 0; must be a whole number from 1 to 65536"),
    ("dataset.width=65537", "dataset.width: got 65537;"),
    ("dataset.width=4.0", "dataset.width: got 4.0;"),
    ("dataset.width=true", "dataset.width: got True;"),
    ("dataset.label=null", "dataset.label: missing;"),
    ("dataset.label=embedding", "dataset.label: got 'embedding', which is among"),
    ("dataset.labels=null", "dataset.labels: missing; list the public label values"),
    ("dataset.labels=[]", "dataset.labels: got []; must be a non-empty list"),
    ("dataset.labels=[0, 0]", "dataset.labels: got 0 twice"),
    ("dataset.labels=[0, a]", "dataset.labels: item 1 got 'a'; labels must be all"),
    ("dataset.labels=[a, 0]", "dataset.labels: item 0 got 'a'; labels must be all"),
    ("dataset.labels=[0, true]", "dataset.labels: item 1 got True;"),
    ("dataset.labels=[0.5]", "dataset.labels: item 0 got 0.5;"),
    ("dataset.labels=[9223372036854775808]", "dataset.labels: item 0 got 9223372036854775808;"),
    (r'dataset.labels=["\ud800"]', "UTF-8"),
    (
        "dataset.privacy_unit={column: user, max_rows: 257, aggregate: weight}",
        "dataset.privacy_unit.max_rows: got 257; with aggregate: weight at most 256",
    ),
    (
        "dataset.privacy_unit={column: user, max_rows: 4, aggregate: median}",
        "dataset.privacy_unit.aggregate: got 'median';",
    ),
    (
        "dataset.privacy_unit={column: embedding, max_rows: 4}",
        "dataset.privacy_unit.column: got 'embedding', which is a feature or the label",
    ),
    ("dataset.privacy_unit={column: user, max_rows: 0}", "dataset.privacy_unit.max_rows: got 0;"),
    ("model.components=0", "model.components: got 0; must be a whole number from 1 to 1024"),
    ("model.components=1025", "model.components: got 1025;"),
    ("model.components=[]", "model.components: got [];"),
    ("model.components=[2, 2]", "model.components: got 2 twice"),
    ("model.components=[2, true]", "model.components: item 1 got True;"),
    ("model.components=many", "model.components: got 'many';"),
    ("model.components=1e1", "model.components: got 10.0;"),
    ("model.covariance=fulll", "must be one of auto, full, tied, diag, spherical"),
    ("model.assignment=none", "must be one of soft, hard"),
    ("model.allocation=best", "must be one of kl, even"),
    ("model.dimension=0", "model.dimension: got 0;"),
    ("model.dimension=all", "model.dimension: got 'all'; must be a whole number from 1 to"),
    ("model.dimension=5", "model.dimension: got 5; must be at most the number of features, 4"),
    ("model.componets=3", "model.componets: unknown key, got 3"),
    ("dataset.storage_options=7", "dataset.storage_options: must be a mapping"),
]


class TestRefusals:
    @pytest.mark.parametrize(("override", "expected"), REFUSED)
    def test_names_the_key_shows_the_value_says_what_to_do(
        self, override: str, expected: str
    ) -> None:
        message = refusal(EMBEDDINGS, override)
        assert expected in message
        assert "\n" not in message
        assert len(message) < 300

    @pytest.mark.parametrize(
        ("override", "expected"),
        [
            ("bounds.columns=null", "bounds.columns: no bounds for 'age'"),
            ("bounds.columns.age=[1, 1]", "column 'age' got [1, 1]; low must be less than high"),
            ("bounds.columns.age=[2, 1]", "column 'age' got [2, 1];"),
            ("bounds.columns.age=[0, .inf]", "column 'age' got inf; must be a finite number"),
            ("bounds.columns.age=[0, 1e-320]", "column 'age' got [0, 1e-320];"),
            ("bounds.columns.age=[0]", "column 'age' got [0]; must be [low, high]"),
            ("bounds.columns.ages=[0, 1]", "bounds.columns: 'ages' is not one of dataset.features"),
            ("bounds.columns={age: [0, 1]}", "bounds.columns: no bounds for 'income'"),
            ("bounds.columns={7: [0, 1]}", "got the column name 7; column names are text"),
            ("bounds.center=[0, 0]", "bounds.center: remove it"),
            ("dataset.width=2", "dataset.width: belongs to a list column"),
            ("dataset.features=[age, age]", "dataset.features: got 'age' twice"),
            ("dataset.features=[age, 3]", "dataset.features: item 1 got 3;"),
            (
                "model.dimension=3",
                "model.dimension: got 3; must be at most the number of features, 2",
            ),
        ],
    )
    def test_tables(self, override: str, expected: str) -> None:
        assert expected in refusal(TABLE, override)

    def test_a_label_among_the_features(self) -> None:
        message = refusal(TABLE, "dataset.label=age", "dataset.labels=[1, 2]")
        assert "dataset.label: got 'age', which is among dataset.features" in message

    def test_one_line_for_each_problem(self) -> None:
        message = refusal(EMBEDDINGS, "privacy.epsilon=0", "privacy.delta=2", "model.components=0")
        assert [line.split(":")[0] for line in message.split("\n")] == [
            "privacy.epsilon",
            "privacy.delta",
            "model.components",
        ]

    def test_missing_keys_come_with_an_example(self) -> None:
        lines = refusal("dataset: {}").split("\n")
        assert "dataset.path: missing; add it, for example path: data/train/" in lines
        assert any(line.startswith("privacy: missing;") for line in lines)
        assert any(line.startswith("bounds: missing;") for line in lines)

    @pytest.mark.parametrize(
        ("override", "suggestion"),
        [
            ("model.componets=3", "did you mean model.components?"),
            ("privacy.epsilom=3", "did you mean privacy.epsilon?"),
            ("model.epsilon=3", "did you mean privacy.epsilon?"),
            ("modle.components=3", "did you mean model?"),
            ("model.zzz=3", "use one of components, covariance"),
            (
                "dataset.privacy_unit={col: a, max_rows: 1}",
                "did you mean dataset.privacy_unit.column?",
            ),
        ],
    )
    def test_unknown_keys_come_with_a_suggestion(self, override: str, suggestion: str) -> None:
        assert suggestion in refusal(EMBEDDINGS, override)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("a: 1\na: 2", "line 2, column 1 the key 'a' is given twice"),
            ("x: {a: 1, a: 2}", "the key 'a' is given twice"),
            ("- 1\n- 2", "must be a mapping"),
            ("dataset: 3\nbounds: 4\nprivacy: 5", "dataset: got 3; must be a mapping with keys of"),
            ("dataset: !!python/object/apply:os.system [x]\n", "not valid YAML"),
            ("a: 1\n---\nb: 2", "not valid YAML"),
            ("? [a, b]\n: 1", "a key is a list"),
            ("1: 2\n", "specification: "),
        ],
    )
    def test_yaml_mistakes(self, text: str, expected: str) -> None:
        assert expected in refusal(text)

    @pytest.mark.parametrize("document", [None, 3, [], {1: 2}, {"dataset": {1: 2}}])
    def test_from_dict_takes_nothing_else(self, document: Any) -> None:
        with pytest.raises(SpecError):
            ReleaseSpec.from_dict(document)

    def test_every_way_to_build_raises_spec_error(self) -> None:
        document = yaml_file.parse(TABLE, "table") | {"privacy": {"epsilon": 0, "delta": 0.1}}
        for make in (
            ReleaseSpec.from_dict,
            ReleaseSpec.model_validate,
            lambda sections: ReleaseSpec(**sections),
        ):
            with pytest.raises(SpecError, match=r"privacy\.epsilon: got 0"):
                make(document)

    def test_is_frozen(self) -> None:
        with pytest.raises(ValidationError):
            build().privacy.epsilon = 5.0  # type: ignore[misc]

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
            ),
            max_leaves=5,
        ),
        st.sampled_from(
            [
                (section, key)
                for section, field in ReleaseSpec.model_fields.items()
                for key in [None, "unknown", *field.annotation.model_fields]  # type: ignore[union-attr]
            ]
        ),
    )
    def test_any_value_anywhere_is_accepted_or_refused_in_words(
        self, value: Any, place: tuple[str, str | None]
    ) -> None:
        document = build().model_dump()
        section, key = place
        if key is None:
            document[section] = value
        else:
            document[section][key] = value
        try:
            spec = ReleaseSpec.from_dict(document)
        except SpecError as error:
            assert str(error)
            assert all(": " in line for line in str(error).split("\n"))
        else:
            assert ReleaseSpec.from_dict(spec.model_dump()) == spec


class TestSecrets:
    @pytest.mark.parametrize("section", ["dataset", "privacy", "output"])
    def test_storage_options_are_in_nothing_that_is_shown_or_published(self, section: str) -> None:
        spec = build(EMBEDDINGS, f"{section}.storage_options={{key: {SECRET}}}")
        part = getattr(spec, section)
        assert part.storage_options == {"key": SECRET}
        for shown in (repr(spec), str(spec), repr(part), json.dumps(spec.public_dict())):
            assert SECRET not in shown
            assert "storage_options" not in shown
        assert spec.digest() == build().digest()
        assert spec.difference(build()) == []

    @pytest.mark.parametrize(
        "override",
        [
            f"dataset.storage_options={SECRET}",
            f"privacy.storage_options={SECRET}",
            f"output.storage_options=[{SECRET}]",
            f"dataset.storage_options=[{SECRET}]",
            f"dataset.storage_options={{1: {SECRET}}}",
            f"dataset.storage_option={{key: {SECRET}}}",
            f"dataset.storage_options2={SECRET}",
            f"storage_options.key={SECRET}",
            f"dataset=[{{storage_options: {{key: {SECRET}}}}}]",
            f"dataset.path=s3://user:{SECRET}@bucket/data",
            f"output.path=az://box/data?sv=1&sig={SECRET}",
            f"privacy.ledger=https://x/y?X-Amz-Signature={SECRET}",
            f"dataset.storage_options.key=*{SECRET}",
            f'dataset.storage_options.key="{SECRET}',
            f"dataset.storage_options.key=!{SECRET} x",
        ],
    )
    def test_refusals_do_not_show_them(self, override: str) -> None:
        assert SECRET not in refusal(EMBEDDINGS, override)

    def test_refusals_beside_them_do_not_show_them(self) -> None:
        options = f"dataset.storage_options={{key: {SECRET}}}"
        assert SECRET not in refusal(EMBEDDINGS, options, "privacy.epsilon=0")
        assert SECRET not in refusal(EMBEDDINGS, options, "dataset.width=0")
        assert SECRET not in refusal(EMBEDDINGS, options, "bounds.norm=null")

    def test_yaml_errors_do_not_quote_the_file(self) -> None:
        assert SECRET not in refusal(f"dataset:\n  storage_options: {{key: {SECRET}: x\n")
        assert SECRET not in refusal(f"dataset:\n  storage_options: {{key: @{SECRET}}}\n")
        assert SECRET not in refusal(f"dataset: {{storage_options: {{key: &{SECRET}! x}}}}\n")

    def test_url_with_a_user_but_no_password_is_fine(self) -> None:
        url = "abfs://container@account.dfs.core.windows.net/part-?.parquet"
        assert build(EMBEDDINGS, f"dataset.path={url}").dataset.path == url


class TestIdentity:
    def test_digest_is_stable(self) -> None:
        # A changed digest orphans every journal and ledger entry written before.
        assert build(TABLE, "model.components=10").digest() == (
            "4667dc8935bc594728b45047d8691a63c06e4b0765509a42e8d75ff53bf92634"
        )

    def test_digest_ignores_where_the_release_goes_and_nothing_else(self) -> None:
        spec = build()
        assert spec.digest() == build(EMBEDDINGS, "output.path=elsewhere").digest()
        for override in (
            "dataset.path=x",
            "dataset.features=x",
            "dataset.width=5",
            "dataset.label=x",
            "dataset.labels=[2, 1, 0]",
            "bounds.norm=2",
            "bounds.center=[0, 0, 0, 0]",
            "privacy.epsilon=2",
            "privacy.delta=1e-7",
            "privacy.ledger=x",
            "privacy.noise=gaussian",
            "model.components=[10]",
            "model.covariance=full",
            "model.assignment=hard",
            "model.dimension=2",
            "model.allocation=even",
        ):
            assert spec.digest() != build(EMBEDDINGS, override).digest(), override

    def test_difference_reads_well(self) -> None:
        other = build(EMBEDDINGS, "privacy.epsilon=2", "model.dimension=2", "output.path=b")
        assert build().difference(other) == [
            "model.dimension: not given here, 2 there",
            "privacy.epsilon: 1.0 here, 2.0 there",
        ]
        assert build().difference(build()) == []

    def test_pickles(self) -> None:
        spec = build(EMBEDDINGS, "dataset.storage_options={a: 1}")
        assert pickle.loads(pickle.dumps(spec)) == spec

    def test_public_dict_is_a_copy(self) -> None:
        spec = build(TABLE)
        public = spec.public_dict()
        before = copy.deepcopy(public)
        public["bounds"]["columns"].clear()
        assert spec.public_dict() == before


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
finite = st.floats(-1e100, 1e100)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Return the plain mapping of any valid specification."""
    dataset: dict[str, Any] = {"path": draw(st.sampled_from(["data/", "s3://b/x/*.parquet", "é"]))}
    bounds: dict[str, Any] = {"norm": draw(st.none() | st.floats(1e-100, 1e100))}
    label = draw(st.none() | names)
    if draw(st.booleans()):
        columns = draw(st.lists(names.filter(lambda name: name != label), min_size=1, unique=True))
        dataset["features"] = columns
        width = len(columns)
        bounds["columns"] = {
            name: [low, low + max(1.0, abs(low))]
            for name in columns
            for low in [draw(st.floats(-1e99, 1e99))]
        }
    else:
        dataset["features"] = draw(names.filter(lambda name: name != label))
        width = draw(st.integers(1, 20))
        dataset["width"] = draw(st.sampled_from([width, None]))
        bounds["norm"] = bounds["norm"] or 1.0
        if draw(st.booleans()):
            bounds["center"] = draw(st.lists(finite, min_size=width, max_size=width))
    if label is not None:
        dataset["label"] = label
        dataset["labels"] = draw(
            st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, unique=True)
            | st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, unique=True)
        )
    return {
        "dataset": dataset,
        "bounds": bounds,
        "privacy": {
            "epsilon": draw(st.floats(0, 100, exclude_min=True)),
            "delta": draw(st.floats(0, 1, exclude_min=True, exclude_max=True)),
            "noise": draw(st.sampled_from(["auto", "discrete_gaussian", "gaussian"])),
        },
        "model": {
            "components": draw(
                st.integers(1, 1024)
                | st.just("auto")
                | st.lists(st.integers(1, 1024), min_size=1, unique=True)
            ),
            "dimension": draw(st.none() | st.integers(1, width)),
        },
    }


class TestRoundTrip:
    @given(documents())
    def test_through_public_dict(self, document: dict[str, Any]) -> None:
        spec = ReleaseSpec.from_dict(document)
        again = ReleaseSpec.from_dict(json.loads(json.dumps(spec.public_dict())))
        assert again == spec
        assert again.digest() == spec.digest()
        assert again.difference(spec) == []

    @given(documents())
    def test_through_yaml(self, document: dict[str, Any]) -> None:
        spec = ReleaseSpec.from_dict(document)
        text = json.dumps(spec.public_dict())  # JSON is YAML, escapes included
        assert ReleaseSpec.from_yaml(text, environ={}) == spec
        text = yaml.safe_dump(spec.public_dict())
        assert ReleaseSpec.from_yaml(text, environ={}) == spec


def test_a_section_on_its_own_hides_its_inputs() -> None:
    with pytest.raises(ValidationError) as caught:
        PrivacySpec(epsilon=1.0, delta=0.1, ledger=f"s3://a:{SECRET}@b")
    assert SECRET not in str(caught.value)


# ---------------------------------------------------------------- bounds that are found


def table(columns: object, **dataset: object) -> ReleaseSpec:
    return ReleaseSpec.from_dict(
        {
            "dataset": {"path": "data", "features": ["a", "b"], **dataset},
            "bounds": {"columns": columns},
            "privacy": {"epsilon": 1.0, "delta": 1e-6},
        }
    )


def test_bounds_may_be_auto_for_all_columns_or_for_some():
    assert table("auto").auto_columns == ("a", "b")
    mixed = table({"a": [0, 1], "b": "auto"})
    assert mixed.auto_columns == ("b",)
    assert mixed.given_columns == {"a": (0.0, 1.0)}
    assert table({"a": [0, 1], "b": [0, 2]}).auto_columns == ()
    assert ReleaseSpec.from_dict(mixed.public_dict()) == mixed


def test_a_norm_that_is_found_is_not_known_beforehand():
    document = {
        "dataset": {"path": "data", "features": "x"},
        "bounds": {"norm": "auto", "center": "auto"},
        "privacy": {"epsilon": 1.0, "delta": 1e-6},
    }
    spec = ReleaseSpec.from_dict(document)
    assert spec.norm_bound is None
    assert ReleaseSpec.from_dict(spec.public_dict()).digest() == spec.digest()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": "auto"}, "no bounds for 'b'"),
        ({"a": "auto", "b": "automatic"}, r"must be \[low, high\], or auto"),
        ("all", "or auto"),
    ],
)
def test_bounds_that_are_neither_given_nor_auto_are_refused(columns, message):
    with pytest.raises(SpecError, match=message):
        table(columns)


def test_a_table_has_no_norm_to_find():
    with pytest.raises(SpecError, match=r"bounds\.norm: got 'auto'; remove it"):
        ReleaseSpec.from_dict(
            {
                "dataset": {"path": "data", "features": ["a"]},
                "bounds": {"columns": "auto", "norm": "auto"},
                "privacy": {"epsilon": 1.0, "delta": 1e-6},
            }
        )
