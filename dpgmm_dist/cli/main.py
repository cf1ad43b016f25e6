"""The ``dpgmm`` command: parse, call, print.

Results go to stdout, progress and errors to stderr. Everything heavy is imported inside the
commands, so that ``dpgmm --help`` loads typer and little else.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpgmm_dist.cli import audit, decode, encode, evaluate, first_steps, runs, sample
from dpgmm_dist.cli.ledger import app as ledger_app
from dpgmm_dist.cli.log import LogFormat, open_log
from dpgmm_dist.cli.options import (
    Date,
    ElasticWorkers,
    Json,
    Log,
    MetricsFile,
    ReleaseUrl,
    Scheduler,
    SchedulerFile,
)
from dpgmm_dist.cli.output import emit, fail, guarded, warn
from dpgmm_dist.cli.storage import LedgerOptions, StorageOptions, read_options

if TYPE_CHECKING:
    from dpgmm_dist.pipeline.result import ReleaseResult
    from dpgmm_dist.progress import PassProgress, Progress
    from dpgmm_dist.spec.dates import RunDate
    from dpgmm_dist.spec.release_spec import ReleaseSpec

app = typer.Typer(
    name="dpgmm",
    help="Differentially private Gaussian mixtures of partitioned Parquet.",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich would double the time of --help
    pretty_exceptions_enable=False,  # a traceback quotes values
)
app.add_typer(ledger_app, name="ledger")

Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="Specification, a YAML file.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key, such as privacy.epsilon=2; the value is YAML. May be repeated.",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        from dpgmm_dist.version import __version__

        typer.echo(f"dpgmm {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def _read(
    spec: Path, overrides: list[str] | None, date: str | RunDate | None = None
) -> ReleaseSpec:
    """Return the specification, before anything slow is imported: a mistake is reported at once."""
    from dpgmm_dist.spec.release_spec import ReleaseSpec

    return ReleaseSpec.from_yaml(spec, overrides=overrides or (), date=date)


def _dated(
    spec: Path,
    overrides: list[str] | None,
    date: str | None,
    output: str | None,
    release_id: str | None,
) -> tuple[ReleaseSpec, str | None, str | None]:
    """Return specification, output and release id with the date of the run filled in."""
    from dpgmm_dist.spec.dates import RunDate

    run = RunDate(date)
    output = None if output is None else run.fill(output, "--output")
    release_id = None if release_id is None else run.fill(release_id, "--release-id")
    parsed = _read(spec, overrides, run)
    run.require_used()
    return parsed, output, release_id or parsed.output.release_id


@app.command()
@guarded
def plan(
    spec: Spec,
    rows: Annotated[
        int | None,
        typer.Option(
            "--rows", min=1, metavar="N", help="A public guess of the number of rows; adds the KL."
        ),
    ] = None,
    want: Annotated[
        float | None,
        typer.Option(
            "--want", metavar="NATS", help="Show which epsilon, or rows, lose at most NATS a row."
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE", help="Draw the loss by epsilon and rows: .svg, .png, .pdf."
        ),
    ] = None,
    cores: Annotated[
        int | None,
        typer.Option("--cores", min=1, metavar="C", help="For the time; by default the cluster's."),
    ] = None,
    footers: Annotated[
        bool,
        typer.Option(
            "--footers",
            help="Tasks, bytes and time from the input's footers: output for the trusted side.",
        ),
    ] = False,
    set_: Set = None,
    date: Date = None,
    json_: Json = False,
) -> None:
    """Show what would be measured, with how much noise, and what it takes.

    Reads no row and spends nothing.
    """
    parsed = _read(spec, set_, date)
    from dpgmm_dist.pipeline.plan import plan as make_plan
    from dpgmm_dist.pipeline.plan_text import render_plan
    from dpgmm_dist.pipeline.work_estimate import plan_work, render_work

    planned = make_plan(parsed, rows=rows, want=want)
    if plot is not None:
        from dpgmm_dist.pipeline.plan_chart import draw

        draw(planned, plot)
    work = plan_work(parsed, planned, cores=cores, footers=footers)
    if json_:
        emit({**planned.to_dict(), "work": work.to_dict()}, as_json=True)
    else:
        typer.echo(f"{render_plan(planned)}\n\n{render_work(parsed, work)}")


Output = Annotated[
    str | None, typer.Option("--output", metavar="URL", help="Output; overrides output.path.")
]
ReleaseId = Annotated[
    str | None,
    typer.Option(
        "--release-id",
        metavar="ID",
        help="The same id resumes a job. Default: output.release_id, or random.",
    ),
]
InsecureTestNoise = Annotated[
    int | None,
    typer.Option(
        "--insecure-test-noise",
        min=0,
        metavar="SEED",
        help="For tests: noise anyone can subtract. The release says NOT PRIVATE.",
    ),
]
Scratch = Annotated[
    str | None,
    typer.Option(
        "--scratch",
        metavar="URL",
        help="Private storage for dataset.privacy_unit that all workers reach.",
    ),
]


@app.command()
@guarded
def release(
    spec: Spec,
    output: Output = None,
    release_id: ReleaseId = None,
    set_: Set = None,
    date: Date = None,
    json_: Json = False,
    insecure_test_noise: InsecureTestNoise = None,
    workers: ElasticWorkers = None,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    scratch: Scratch = None,
    log_format: Log = LogFormat.text,
    metrics_file: MetricsFile = None,
) -> None:
    """Release a mixture. Threads of this process unless workers or a scheduler are given."""
    log = open_log(log_format)
    parsed, output, release_id = _dated(spec, set_, date, output, release_id)
    from dpgmm_dist.cli.metrics import metrics_of_run
    from dpgmm_dist.cli.progress_bar import show_progress
    from dpgmm_dist.engine import open_engine
    from dpgmm_dist.pipeline.release import release as run
    from dpgmm_dist.pipeline.resolve import cluster_config

    if insecure_test_noise is not None:
        warn("--insecure-test-noise: this release will be NOT PRIVATE; never publish it")
    if release_id is None:
        # Written before anything is charged: a killed job can resume only under its id.
        release_id = _new_release_id()
        log.say(f"release id {release_id} (to resume: --release-id)", event="release_id")
    log.release_id = release_id
    with (
        metrics_of_run(metrics_file, log.run, release_id) as metrics,
        open_engine(workers, scheduler, scheduler_file, cluster_config(parsed.cluster)) as engine,
        show_progress() as shown,
    ):
        if dashboard := getattr(engine, "dashboard", None):
            log.say(f"Dask dashboard, for the trusted side: {dashboard}", event="dashboard")
        result = run(
            parsed,
            output=output,
            release_id=release_id,
            engine=engine,
            insecure_test_noise=insecure_test_noise,
            progress=_to_both(shown, None if metrics is None else metrics.progress),
            scratch=scratch,
            run=log.run,
        )
    if log.structured:
        log.say("done", event="done", already_done=result.already_done, exit_code=0)
    emit(_answer(result, json_), as_json=json_)


def _to_both(shown: Progress, counted: Progress | None) -> Progress:
    """Progress for the screen and, if asked for, for the metrics."""

    def progress(event: PassProgress) -> None:
        shown(event)
        if counted is not None:
            counted(event)

    return progress


def _answer(result: ReleaseResult, as_json: bool) -> dict[str, Any]:
    """What the command prints of a release."""
    status = "already released, nothing was spent" if result.already_done else "released"
    answer: dict[str, Any] = {
        "status": status,
        "release": result.path,
        "release_id": result.release_id,
    }
    if as_json:
        answer["status"] = "already_done" if result.already_done else "released"
        answer["run"] = result.run
    return answer | result.summary() | answer


def _new_release_id() -> str:
    from secrets import token_hex

    return token_hex(8)


for group in (encode, sample, decode, evaluate, audit, first_steps, runs):
    group.add_to(app)


@app.command()
@guarded
def show(release: ReleaseUrl, json_: Json = False, storage_options: StorageOptions = None) -> None:
    """Show what a release holds and what was spent on it."""
    from dpgmm_dist.artifact.show import describe_release

    emit(describe_release(release, read_options(storage_options)), as_json=json_)


@app.command()
@guarded
def verify(
    release: ReleaseUrl,
    ledger: Annotated[
        str | None,
        typer.Option("--ledger", metavar="URL", help="Compare with the charge and the journal."),
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option("--public-key", metavar="FILE", help="Check the signature by this key (PEM)."),
    ] = None,
    json_: Json = False,
    storage_options: StorageOptions = None,
    ledger_options: LedgerOptions = None,
) -> None:
    """Check a release: files, digests, schema, accounting. Exit code 0, 4, or 6: not private."""
    from dpgmm_dist.artifact.sign import signature_problems
    from dpgmm_dist.artifact.verify import SHOWN_ALONE, verify_release
    from dpgmm_dist.errors import DataError, NotPrivateError

    options = read_options(storage_options)
    found = verify_release(release, options)
    problems = list(found.problems)
    if public_key is not None:
        problems += signature_problems(release, public_key, options)
    scope = SHOWN_ALONE
    if ledger is not None and found.ok:
        from dpgmm_dist.pipeline.charged import SHOWN_WITH_LEDGER, ledger_problems

        problems += ledger_problems(release, ledger, options, read_options(ledger_options))
        scope = SHOWN_WITH_LEDGER
    ok = found.ok and not problems
    state = {"ok": ok, "private": found.private and ok, "problems": problems}
    emit({**state, **found.summary, "scope": scope}, as_json=json_)
    if not ok:
        problems = problems or ["the release is not intact"]
        fail(DataError("\n".join(problems)))
    if not found.private:
        fail(NotPrivateError("intact, but NOT PRIVATE: made with insecure test noise"))


@app.command()
@guarded
def sign(
    release: ReleaseUrl,
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="Ed25519 private key (PEM).")],
    json_: Json = False,
    storage_options: StorageOptions = None,
) -> None:
    """Sign a release; verify --public-key checks the signature."""
    from dpgmm_dist.artifact.sign import SIGNATURE, sign_release

    public = sign_release(release, key, read_options(storage_options))
    emit({"signature": f"{release.rstrip('/')}/{SIGNATURE}", "public_key": public}, as_json=json_)


@app.command()
@guarded
def record(
    release: ReleaseUrl, json_: Json = False, storage_options: StorageOptions = None
) -> None:
    """Print a record of a release for a public registry of deployments."""
    from dpgmm_dist.artifact.registry import registry_record

    emit(registry_record(release, read_options(storage_options)), as_json=json_)


@app.command()
@guarded
def report(
    release: ReleaseUrl,
    decoder: Annotated[
        str | None,
        typer.Option(
            "--decoder",
            metavar="D",
            help="Write a report that shows sampled rows as pictures or texts too: a decoder of "
            "dpgmm decode. Needs --output.",
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option("--shape", metavar="HxW[xC]", help="Size of the pictures; none for texts."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="FILE", help="The file for that report; it is new."),
    ] = None,
    json_: Json = False,
    storage_options: StorageOptions = None,
) -> None:
    """Print where the report of a release is, or write one with decoded rows."""
    options = read_options(storage_options)
    if decoder is None and shape is None and output is None:
        where = _report_of(release, options)
    else:
        where = _report_with_examples(release, decoder, shape, output, options)
    emit({"report": where}, as_json=json_)


def _report_of(release: str, options: dict[str, Any] | None) -> str:
    from dpgmm_dist.artifact.write import release_exists
    from dpgmm_dist.errors import DataError

    manifest = release_exists(release, options)
    if manifest is None:
        raise DataError(f"{release}: holds no release (no release.json); check the path")
    if "report.html" not in manifest.files:
        raise DataError(f"{release}: this release has no report.html; see dpgmm show {release}")
    return f"{release.rstrip('/')}/report.html"


def _report_with_examples(
    release: str,
    decoder: str | None,
    shape: str | None,
    output: str | None,
    options: dict[str, Any] | None,
) -> str:
    from dpgmm_dist.artifact.load import load_release
    from dpgmm_dist.artifact.report import render_report
    from dpgmm_dist.encode.report_examples import report_examples
    from dpgmm_dist.errors import DataError, SpecError

    if decoder is None or output is None:
        raise SpecError("a report with decoded rows needs --decoder and --output")
    found = load_release(release, options)
    page = render_report(found, report_examples(found, decoder, shape))
    try:
        with Path(output).open("xb") as file:
            file.write(page)
    except OSError as error:
        raise DataError(f"--output {output}: {error.strerror}; name a new file") from None
    return output


def main(arguments: list[str] | None = None) -> Any:
    """Run the command; exits with the documented code."""
    return command()(args=arguments, prog_name="dpgmm")


@cache
def command() -> Any:
    """The command with its parser, built once in a process: that takes a tenth of a second."""
    return typer.main.get_command(app)
