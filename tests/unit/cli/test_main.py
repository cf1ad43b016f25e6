"""The command with stubs for what it calls: exit codes, streams, and no private value."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dpgmm_dist import errors
from dpgmm_dist.cli import main as cli
from dpgmm_dist.cli.output import lines, plain
from dpgmm_dist.cli.progress_bar import _Pace, _speed, duration, show_progress
from dpgmm_dist.progress import PassProgress

SPEC = """
dataset: {path: data/, features: embedding}
bounds: {norm: 1.0}
privacy: {epsilon: 1.0, delta: 1e-6}
"""
PRIVATE = "row 17 is 3.25"


class Run:
    """Runs the command in this process, with stubs that record their calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: Any, spec: Path) -> None:
        self.monkeypatch, self.capsys, self.spec = monkeypatch, capsys, str(spec)
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def module(self, name: str, **members: Any) -> None:
        module = ModuleType(name)
        vars(module).update(members)
        self.monkeypatch.setitem(sys.modules, name, module)

    def answers(self, answer: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((args, kwargs))
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return call

    def pipeline(self, answer: Any) -> None:
        @contextmanager
        def open_engine(*args: Any) -> Iterator[Any]:
            yield args

        call = self.answers(answer)
        self.module("dpgmm_dist.pipeline.release", release=call)
        self.module("dpgmm_dist.pipeline.plan", plan=call)
        self.module("dpgmm_dist.pipeline.plan_text", render_plan=lambda p: "the plan")
        self.module("dpgmm_dist.pipeline.resolve", cluster_config=lambda section: section)
        self.module("dpgmm_dist.engine", open_engine=open_engine)

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.main(list(arguments))
        printed = self.capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err  # type: ignore[return-value]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> Run:
    spec = tmp_path / "job.yaml"
    spec.write_text(SPEC, encoding="utf-8")
    return Run(monkeypatch, capsys, spec)


def released(**changes: Any) -> SimpleNamespace:
    summary = {"epsilon": np.float64(1.0), "passes": 4}
    run = {"run": "1234", "engine": "threads of this process"}
    values = {"path": "out/", "release_id": "abc", "already_done": False, "run": run} | changes
    return SimpleNamespace(**values, summary=lambda: summary)


class TestRelease:
    def test_passes_everything_on(self, run: Run) -> None:
        run.pipeline(released())
        code, out, _ = run(
            *("release", run.spec, "--output", "out/", "--release-id", "abc"),
            *(
                "--set",
                "privacy.epsilon=2",
                "--set",
                "model.components=3",
                "--scheduler",
                "tcp://x",
            ),
        )
        assert code == 0
        assert "release: out/" in out and "epsilon: 1" in out
        ((spec,), options) = run.calls[0]
        assert (spec.privacy.epsilon, spec.model.components) == (2.0, 3)
        assert options["engine"] == (None, "tcp://x", None, spec.cluster)
        assert (options["output"], options["release_id"]) == ("out/", "abc")
        assert options["insecure_test_noise"] is None
        assert callable(options["progress"])

    def test_json_is_one_object_on_stdout(self, run: Run) -> None:
        run.pipeline(released())
        code, out, err = run("release", run.spec, "--json")
        assert code == 0
        assert json.loads(out) == {
            "status": "released",
            "release": "out/",
            "release_id": "abc",
            "epsilon": 1.0,
            "passes": 4,
            "run": {"run": "1234", "engine": "threads of this process"},
        }
        assert "release id" in err

    def test_a_random_id_is_printed_before_the_job_starts(self, run: Run) -> None:
        run.pipeline(errors.ClusterError("workers gone"))
        code, _, err = run("release", run.spec)
        identifier = run.calls[0][1]["release_id"]
        assert code == 5
        assert len(identifier) >= 16
        assert err.index(identifier) < err.index("workers gone")
        run("release", run.spec)
        assert run.calls[1][1]["release_id"] != identifier

    def test_already_done_says_so(self, run: Run) -> None:
        run.pipeline(released(already_done=True))
        assert "nothing was spent" in run("release", run.spec)[1]
        assert json.loads(run("release", run.spec, "--json")[1])["status"] == "already_done"

    def test_insecure_noise_warns(self, run: Run) -> None:
        run.pipeline(released())
        _, _, err = run("release", run.spec, "--insecure-test-noise", "7")
        assert "NOT PRIVATE" in err
        assert run.calls[0][1]["insecure_test_noise"] == 7

    def test_each_mistake_in_the_specification_has_a_line(self, run: Run) -> None:
        code, out, err = run(
            "release", run.spec, "--set", "privacy.epsilon=0", "--set", "privacy.delta=2"
        )
        assert (code, out) == (2, "")
        assert [line.split(":")[:3] for line in err.splitlines()] == [
            ["dpgmm", " error", " privacy.epsilon"],
            ["dpgmm", " error", " privacy.delta"],
        ]


class TestFailures:
    @pytest.mark.parametrize(
        ("kind", "code"),
        [
            (errors.DpgmmError, 1),
            (errors.SpecError, 2),
            (errors.LedgerRefused, 3),
            (errors.DataError, 4),
            (errors.ClusterError, 5),
            (errors.NotPrivateError, 6),
        ],
    )
    def test_each_error_has_its_exit_code_and_one_line(
        self, run: Run, kind: type[errors.DpgmmError], code: int
    ) -> None:
        run.pipeline(kind("what was wrong"))
        assert run("release", run.spec, "--release-id", "a") == (
            code,
            "",
            "dpgmm: error: what was wrong\n",
        )

    def test_an_unexpected_exception_is_named_and_never_quoted(self, run: Run) -> None:
        run.pipeline(ValueError(PRIVATE))
        code, out, err = run("release", run.spec, "--release-id", "a")
        assert (code, out) == (1, "")
        assert err.count("\n") == 1
        assert "ValueError" in err and "DPGMM_DEBUG=1" in err
        assert PRIVATE not in err

    def test_debug_shows_the_traceback(self, run: Run) -> None:
        run.pipeline(ValueError(PRIVATE))
        run.monkeypatch.setenv("DPGMM_DEBUG", "1")
        code, _, err = run("release", run.spec, "--release-id", "a")
        assert code == 1
        assert "Traceback" in err and PRIVATE in err

    def test_interrupted(self, run: Run) -> None:
        run.pipeline(KeyboardInterrupt())
        code, out, err = run("release", run.spec, "--release-id", "a")
        assert (code, out) == (130, "")
        assert err.startswith("dpgmm: interrupted") and err.count("\n") == 1


class TestOtherCommands:
    def test_plan(self, run: Run) -> None:
        run.pipeline(SimpleNamespace(to_dict=lambda: {"rho": np.float32(0.5), "kl": float("inf")}))
        work = SimpleNamespace(to_dict=lambda: {"tasks": 3})
        run.module(
            "dpgmm_dist.pipeline.work_estimate",
            plan_work=run.answers(work),
            render_work=lambda s, w: "the work",
        )
        assert run("plan", run.spec, "--rows", "1000") == (0, "the plan\n\nthe work\n", "")
        assert run.calls[0][1] == {"rows": 1000, "want": None}
        assert run.calls[1][1] == {"cores": None, "footers": False}
        planned = json.loads(run("plan", run.spec, "--json", "--footers", "--cores", "9")[1])
        assert planned == {"rho": 0.5, "kl": None, "work": {"tasks": 3}}
        assert run.calls[3][1] == {"cores": 9, "footers": True}

    def test_sample(self, run: Run) -> None:
        run.module("dpgmm_dist.artifact.sample", write_samples=run.answers({"rows": 5}))
        options = ["--label", "3", "--partitions", "2", "--seed", "9"]
        code, out, _ = run("sample", "rel/", "--rows", "5", "--output", "o/", *options)
        assert (code, out) == (0, "rows: 5\n")
        (arguments, given) = run.calls[0]
        assert arguments == ("rel/", 5, "o/")
        assert (given["options"].label, given["partitions"], given["seed"]) == ("3", 2, 9)
        assert callable(given["for_each"])

    def test_sample_options(self, run: Run) -> None:
        run.module("dpgmm_dist.artifact.sample", write_samples=run.answers({"rows": 5}))
        options = ["--label-rows", "a=b=2", "--label-rows", "3=1", "--temperature", "0.5"]
        assert run("sample", "rel/", "--output", "o/", *options, "--bounds", "reject")[0] == 0
        given = run.calls[0][1]["options"]
        assert dict(given.label_rows) == {"a=b": 2, "3": 1}
        assert (given.temperature, given.bounds) == (0.5, "reject")
        code, _, err = run("sample", "rel/", "--output", "o/", "--label-rows", "3")
        assert code == 2 and "write LABEL=N" in err

    @pytest.mark.parametrize(
        ("ok", "private", "code"), [(True, True, 0), (False, True, 4), (True, False, 6)]
    )
    def test_verify_exit_codes(self, run: Run, ok: bool, private: bool, code: int) -> None:
        problems = () if ok else ("mixture.parquet: digest differs", "receipt.json: missing")
        found = SimpleNamespace(ok=ok, private=private, problems=problems, summary={"epsilon": 1})
        run.module("dpgmm_dist.artifact.verify", verify_release=run.answers(found), SHOWN_ALONE="")
        got, out, err = run("verify", "rel/", "--json")
        assert got == code
        assert json.loads(out) == {
            "ok": ok,
            "private": private and ok,
            "problems": list(problems),
            "epsilon": 1,
            "scope": "",
        }
        assert err.count("dpgmm: error: ") == (2 if not ok else int(not private))

    def test_a_release_that_is_broken_and_not_private_is_broken(self, run: Run) -> None:
        found = SimpleNamespace(ok=False, private=False, problems=("bad",), summary={})
        run.module("dpgmm_dist.artifact.verify", verify_release=run.answers(found), SHOWN_ALONE="")
        assert run("verify", "rel/")[0] == 4

    def test_show(self, run: Run) -> None:
        run.module("dpgmm_dist.artifact.show", describe_release=run.answers({"a": {"b_c": [1, 2]}}))
        assert run("show", "rel/")[1] == "a:\n  b c: 1, 2\n"

    @pytest.mark.parametrize(
        ("manifest", "code", "printed"),
        [
            (None, 4, "holds no release"),
            (SimpleNamespace(files={}), 4, "has no report.html"),
            (SimpleNamespace(files={"report.html": 1}), 0, "rel/report.html"),
        ],
    )
    def test_report(self, run: Run, manifest: Any, code: int, printed: str) -> None:
        run.module("dpgmm_dist.artifact.write", release_exists=run.answers(manifest))
        got, out, err = run("report", "rel/")
        assert got == code
        assert printed in out + err

    def test_ledger(self, run: Run) -> None:
        ledger = SimpleNamespace(show=lambda: {"limit": 0.25, "charges": [{"rho": 0.1}]})
        call = run.answers(ledger)
        run.module("dpgmm_dist.budget.ledger", Ledger=SimpleNamespace(init=call, open=call))
        code, out, _ = run("ledger", "init", "led/", "--epsilon", "1", "--delta", "1e-6")
        assert (code, out.splitlines()[:2]) == (0, ["limit: 0.25", "charges:"])
        assert run.calls[0][0] == ("led/", 1.0, 1e-6, None, {})
        run("ledger", "init", "led/", "--epsilon", "1", "--delta", "1e-6", "--period", "365d")
        assert run.calls[1][0] == ("led/", 1.0, 1e-6, "365d", {})
        assert json.loads(run("ledger", "show", "led/", "--json")[1])["limit"] == 0.25


class TestOutput:
    def test_plain_is_json(self) -> None:
        value = {"a": np.arange(2), "b": (np.bool_(True), None), 3: float("nan"), "p": Path("x")}
        assert plain(value) == {"a": [0, 1], "b": [True, None], "3": None, "p": "x"}

    def test_lines(self) -> None:
        assert lines({"none": None, "yes_no": True, "empty": [], "small": 1.23456789e-7}) == [
            "none: -",
            "yes no: yes",
            "empty: none",
            "small: 1.23457e-07",
        ]


class TestProgress:
    def events(self) -> list[PassProgress]:
        return [
            PassProgress(step, index, 2, fraction)
            for index, step in enumerate(["moments", "cells"], start=1)
            for fraction in np.linspace(0, 1, 101)
        ]

    def test_plain_lines_are_few(self) -> None:
        stream = io.StringIO()
        with show_progress(stream) as progress:
            for event in self.events():
                progress(event)
        shown = stream.getvalue().splitlines()
        assert shown[0] == "dpgmm: pass 1 of 2, moments: 0%"
        assert shown[-1] == "dpgmm: pass 2 of 2, cells: 100%"
        assert len(shown) == 10

    def test_the_only_pass_of_a_command_shows_its_rate_and_the_time_left(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = iter(range(0, 100_000, 5))  # seconds
        monkeypatch.setattr("dpgmm_dist.cli.progress_bar.time.monotonic", lambda: next(clock))
        stream = io.StringIO()
        with show_progress(stream) as progress:
            for fraction in (0.0, 0.3, 0.31, 1.0):
                progress(PassProgress("encode", 1, 1, fraction))
        shown = stream.getvalue().splitlines()
        assert shown[0] == "dpgmm: encode: 0%" and shown[-1] == "dpgmm: encode: 100%"
        assert re.fullmatch(r"dpgmm: encode: 25%, [\d.]+% a minute, \d+ s left", shown[1])
        assert [duration(s) for s in (40, 720, 12_600)] == ["40 s", "12 min", "3.5 h"]

    def test_a_terminal_shows_the_rate_and_the_time_left_of_each_pass(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = iter((0.0, 30.0, 60.0, 90.0))
        monkeypatch.setattr("dpgmm_dist.cli.progress_bar.time.monotonic", lambda: next(clock))
        pace = _Pace()
        parts = ((1, 0.0), (1, 0.4), (2, 0.1), (2, 0.4))
        shown = [_speed(PassProgress("cells", index, 2, done), pace) for index, done in parts]
        assert shown[1] == "80% a minute, 45 s of this pass left"
        assert shown[3] == "60% a minute, 60 s of this pass left"
        assert shown[0] == shown[2] == ""

    @pytest.mark.parametrize(
        ("seconds", "words"),
        [(0.5, "2,400% a minute"), (10.0, "120% a minute"), (1000.0, "1.2% a minute")],
    )
    def test_a_rate_is_written_without_an_exponent(
        self, monkeypatch: pytest.MonkeyPatch, seconds: float, words: str
    ) -> None:
        clock = iter((0.0, seconds))
        monkeypatch.setattr("dpgmm_dist.cli.progress_bar.time.monotonic", lambda: next(clock))
        pace = _Pace()
        _, shown = (_speed(PassProgress("cells", 1, 2, done), pace) for done in (0.0, 0.2))
        assert shown.startswith(words)

    def test_a_terminal_gets_a_bar(self) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        stream = Terminal()
        with show_progress(stream) as progress:
            for event in self.events():
                progress(event)
        shown = stream.getvalue()
        assert "pass 2 of 2, cells" in shown
