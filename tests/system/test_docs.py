"""The documentation is true: its commands run; its links, paths and names exist."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest

import dpgmm_dist
from dpgmm_dist.artifact.receipt import Receipt
from dpgmm_dist.spec.release_spec import ReleaseSpec
from dpgmm_dist.spec.section import Section

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "dpgmm_dist"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
QUICKSTART = ROOT / "docs" / "quickstart.md"
OPERATIONS = ROOT / "docs" / "operations.md"
TUTORIALS = ROOT / "docs" / "tutorials"
HOW_TO = sorted((ROOT / "docs" / "how-to").glob("*.md"))
DATA = Path(os.environ.get("DATA", ROOT / "build" / "data"))
"""Where jobs/data/build.sh has put the public data sets that some pages need."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"(?<![\w/.-])(?:dpgmm_dist|docs|jobs|tests|deploy|\.ci)/[\w./*-]*")
_PYTHON_FILE = re.compile(r"(?<![\w/.-])[\w/-]+\.py\b")
_TEST = re.compile(r"(tests/[\w/]+\.py)?(?:::(\w+))?")
_DOTTED = re.compile(r"([A-Za-z]\w*(?:\.\w+)+)(?:\(.*\))?")
_FILE_ENDING = re.compile(r".*\.(json|parquet|yaml|npz|html|toml|lock|md|sh|py)")
_RECEIPT = {"plan", *Receipt.model_fields}
_NUMBER = re.compile(r"[-+]?\d[\w.,+-]*")
_SECONDS = 900


@dataclass
class Command:
    """A command of a console block, what is shown of its output, and its exit code."""

    text: str
    shown: list[str] = field(default_factory=list)
    exit_code: int = 0


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """(language, text) of the fenced blocks of a page, in order."""
    found = _FENCE.findall(page.read_text())
    return [(language, text) for language, text in found if language in languages]


def commands(text: str) -> list[Command]:
    """The commands of a console block; ``$ echo $?`` is about the one before."""
    result: list[Command] = []
    lines = iter(text.splitlines())
    for line in lines:
        if line == "$ echo $?":
            result[-1].exit_code = int(next(lines))
        elif line.startswith("$ "):
            result.append(Command(line[2:]))
        else:
            result[-1].shown.append(line)
    return result


def fragments(shown: list[str]) -> list[str]:
    """The words of shown output without what differs from run to run: numbers."""
    parts = [part.strip(" ,") for line in shown if line != "..." for part in _NUMBER.split(line)]
    return [part for part in parts if len(part) > 2]


def run(arguments: list[str], folder: Path, shims: Path) -> tuple[int, str]:
    environment = os.environ | {"PATH": f"{shims}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.fixture
def shims(tmp_path: Path) -> Path:
    """A folder with ``dpgmm`` and ``python``, both of this interpreter, for the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, arguments in (("dpgmm", " -m dpgmm_dist.cli"), ("python", "")):
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        command.chmod(0o755)
    return folder


def page_with_data(name: str, data: str) -> Any:
    """A page that needs a rebuilt data set, and minutes."""
    absent = pytest.mark.skipif(
        not (DATA / data).is_dir(),
        reason=f"{data} is not built: jobs/data/build.sh build/data {data}",
    )
    marks = [absent, pytest.mark.system_external, pytest.mark.timeout(3600)]
    return pytest.param(TUTORIALS / name, marks=marks)


@pytest.mark.slow  # make test-docs
@pytest.mark.parametrize(
    "page",
    [
        QUICKSTART,
        OPERATIONS,
        TUTORIALS / "table.md",
        *HOW_TO,
        page_with_data("images.md", "fashion_mnist_raw"),
        page_with_data("text.md", "spamassassin_minilm384"),
    ],
    ids=lambda page: page.name,
)
def test_every_command_and_python_block_runs(page: Path, tmp_path: Path, shims: Path) -> None:
    folder = tmp_path / "clone"
    (folder / "build").mkdir(parents=True)
    (folder / "jobs").symlink_to(ROOT / "jobs", target_is_directory=True)
    if DATA.is_dir():
        (folder / "build" / "data").symlink_to(DATA, target_is_directory=True)
    for language, text in blocks(page, "console", "python", "yaml"):
        if language == "yaml":
            name = text.splitlines()[0].removeprefix("# ")
            (folder / name).write_text(text)
        elif language == "python":
            code, output = run([sys.executable, "-c", text], folder, shims)
            assert code == 0, f"{text}\n{output}"
        else:
            for command in commands(text):
                check(command, folder, shims)


def check(command: Command, folder: Path, shims: Path) -> None:
    code, output = run(["sh", "-c", command.text], folder, shims)
    assert code == command.exit_code, f"$ {command.text}\nexit code {code}\n{output}"
    assert "Traceback" not in output, output
    missing = [part for part in fragments(command.shown) if part not in output]
    assert not missing, f"$ {command.text}\ndoes not print {missing}:\n{output}"


def test_shell_blocks_that_are_not_run_are_the_installation_alone() -> None:
    untested = {line for page in PAGES for _, t in blocks(page, "sh") for line in t.splitlines()}
    assert untested <= {"make demo", "source .venv/bin/activate", "pip install ."}


def test_the_readme_shows_what_the_quickstart_runs() -> None:
    readme = ROOT / "README.md"
    quickstart = {c.text for _, text in blocks(QUICKSTART, "console") for c in commands(text)}
    shown = {c.text for _, text in blocks(readme, "console") for c in commands(text)}
    assert shown
    assert shown <= quickstart
    assert set(blocks(readme, "yaml", "python")) <= set(blocks(QUICKSTART, "yaml", "python"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    targets = [link for link in _LINK.findall(page.read_text()) if "://" not in link]
    missing = [link for link in targets if not (page.parent / link).exists()]
    assert not missing


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {(ROOT / link).resolve() for link in _LINK.findall((ROOT / "README.md").read_text())}
    assert not [page.name for page in PAGES[1:] if page not in linked]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page: Path) -> None:
    """Paths from the root, and Python files by any part of their path that ends in their name."""
    text = page.read_text()
    wrong = [path for path in _PATH.findall(text) if not leads_somewhere(path)]
    wrong += [
        name
        for name in _PYTHON_FILE.findall(text)
        if not any(file.endswith(f"/{name}") for file in repository_files())
        and f'Path("{name}").write_text' not in text
    ]
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_exist(page: Path) -> None:
    """``file::name``, and ``::name`` of the file before."""
    file, wrong = "", []
    for span in filter(None, map(_TEST.fullmatch, _CODE.findall(page.read_text()))):
        file = span[1] or file
        if span[2] and not defines(file, span[2]):
            wrong.append(f"{file}::{span[2]}")
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_dotted_names_in_code_exist(page: Path) -> None:
    text = page.read_text()
    spans = (_DOTTED.fullmatch(span) for span in _CODE.findall(text))
    names = {span[1] for span in spans if span}
    files = {name for name in names if _FILE_ENDING.fullmatch(name)}
    assert not [name for name in names - files if not is_known(name)]
    fenced = "".join(block for _, block in _FENCE.findall(text))
    assert not [name for name in files if not is_a_file_of(name, fenced)]


def test_a_name_that_does_not_exist_is_noticed() -> None:
    known = ["privacy.measure.measure", "sensitivity.query_cost", "Ledger.charge", "dask.array"]
    known += ["dataset.privacy_unit.column", "privacy.ledger", "moments.sum", "totals.epsilon"]
    assert all(map(is_known, known))
    unknown = ["privacy.measure.measured", "sensitivity.costs", "Ledger.charged", "dask.arrays"]
    unknown += ["dataset.privacy_unit.columns", "privacy.ledgers", "moments.sums", "totals.sigmas"]
    assert not [name for name in unknown if is_known(name)]
    assert leads_somewhere("docs/privacy.md") and leads_somewhere("tests/external/install_*.sh")
    assert not leads_somewhere("docs/private.md") and not leads_somewhere("tests/uninstall_*.sh")


def test_diagrams_name_packages_and_files_that_exist() -> None:
    diagrams = "".join(text for page in PAGES for _, text in blocks(page, "mermaid"))
    packages = set(re.findall(r"(?<![\w/])(\w+)/", diagrams))
    files = set(re.findall(r"(?<![\w/])[\w/]+\.py\b", diagrams))
    assert packages == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert not [file for file in files if not (PACKAGE / file).is_file()]


def test_paths_in_the_architecture_exist() -> None:
    """There, packages and files are named from the package on."""
    spans = {span for span in _CODE.findall(ARCHITECTURE.read_text()) if "/" in span}
    paths = {span for span in spans if re.fullmatch(r"[\w./-]+", span)}
    assert len(paths) > 50
    assert not [path for path in paths if not ((PACKAGE / path).exists() or (ROOT / path).exists())]


def test_the_architecture_shows_the_layers_of_the_import_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["id"] == "layers"]
    contract = [{name.strip() for name in re.split("[|:]", layer)} for layer in layers]
    diagrams = "".join(text for _, text in blocks(ARCHITECTURE, "mermaid"))
    shown = [
        {"dpgmm_dist." + name.removesuffix("/").removesuffix(".py") for name in layer.split()}
        for layer in re.findall(r'l\d+\["(.*?)"\]', diagrams)
    ]
    assert shown == contract


def test_messages_in_the_tables_of_operations_are_those_of_the_code() -> None:
    """What is in italics in their first columns; ``...`` stands for what differs."""
    rows = re.findall(r"^\| (\*.*?) \|", OPERATIONS.read_text(), re.MULTILINE)
    phrases = [phrase for row in rows for phrase in re.findall(r"\*([^*]+)\*", row)]
    parts = [part.strip() for phrase in phrases for part in phrase.split("...") if part.strip()]
    assert len(parts) > 30
    assert not [part for part in parts if part not in code()]


def defines(file: str, test: str) -> bool:
    path = ROOT / file
    return path.is_file() and re.search(rf"^ *def {test}\(", path.read_text(), re.M) is not None


def leads_somewhere(path: str) -> bool:
    """Whether a path from the root, possibly with ``*``, is that of a file or folder."""
    return any(ROOT.glob(path.rstrip("./")))


@cache
def repository_files() -> tuple[str, ...]:
    """Paths of all Python files, with a slash in front."""
    folders = ("dpgmm_dist", "jobs", "tests", "deploy")
    files = (file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    return tuple(f"/{file.relative_to(ROOT).as_posix()}" for file in files)


@cache
def code() -> str:
    """The source of the package, with messages that go over several lines put together."""
    text = "\n".join(file.read_text() for file in sorted(PACKAGE.rglob("*.py")))
    return re.sub(r'"\s*\n\s*f?"', "", text)


def is_a_file_of(name: str, fenced: str) -> bool:
    """Whether a file name is one of the repository, of the package, or of the page's own blocks."""
    return (
        name in code()
        or name in fenced
        or any(ROOT.glob(f"[!.]*/**/{name}"))
        or ((ROOT / name).is_file())
    )


def is_known(name: str) -> bool:
    """Whether a dotted name is of Python, a key of specification or receipt, or a step."""
    first, _, rest = name.partition(".")
    if any(importable(whole) for whole in (name, f"dpgmm_dist.{name}")):
        return True
    if any(importable(f"{module}.{rest}") for module in modules() if module.endswith(f".{first}")):
        return True
    if any(has(found, rest) for found in classes(first)):
        return True
    quoted = f'"{name.rpartition(".")[2]}"' in code()
    return is_a_key(name) or f'"{name}"' in code() or (first in _RECEIPT and quoted)


@cache
def modules() -> tuple[str, ...]:
    return tuple(info.name for info in pkgutil.walk_packages(dpgmm_dist.__path__, "dpgmm_dist."))


def classes(name: str) -> Iterator[Any]:
    """The package's classes of this name."""
    for module in modules():
        source = PACKAGE.parent / (module.replace(".", "/") + ".py")
        if source.is_file() and re.search(rf"^class {name}\b", source.read_text(), re.MULTILINE):
            yield getattr(importlib.import_module(module), name)


def is_a_key(name: str) -> bool:
    """Whether a dotted name is a key of a specification."""
    section: Any = ReleaseSpec
    for part in name.split("."):
        if section is None or part not in section.model_fields:
            return False
        annotation = section.model_fields[part].annotation
        options = get_args(annotation) or (annotation,)
        inner = [kind for kind in options if isinstance(kind, type) and issubclass(kind, Section)]
        section = inner[0] if inner else None
    return True


def importable(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of the longest module in it."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        return has(module, ".".join(parts[length:]))
    return False


def has(thing: Any, attributes: str) -> bool:
    """Whether dotted attributes are there; fields of a class count."""
    for attribute in filter(None, attributes.split(".")):
        if not hasattr(thing, attribute):
            return attribute in getattr(thing, "__annotations__", {})
        thing = getattr(thing, attribute)
    return True


def test_the_receipt_that_is_shown_adds_up() -> None:
    from dpgmm_dist.artifact.receipt import Query
    from dpgmm_dist.artifact.verify import block_cost

    [(_, text)] = blocks(ROOT / "docs" / "start" / "privacy-engineer.md", "json")
    query = Query.model_validate_json(text)
    for block in query.blocks:
        assert block.rho == pytest.approx(float(block_cost(block)), rel=1e-6)
    assert query.rho == pytest.approx(sum(block.rho for block in query.blocks), rel=1e-6)


def test_a_fragment_is_what_does_not_change() -> None:
    lines = ["rows: 10000", "...", "epsilon 1, delta 1e-06: rho 0.0243 (zCDP)"]
    assert fragments(lines) == ["rows:", "epsilon", "delta", ": rho", "(zCDP)"]


def test_a_wrong_word_or_exit_code_is_noticed(tmp_path: Path, shims: Path) -> None:
    check(Command("dpgmm --version", ["dpgmm 9.9"]), tmp_path, shims)
    with pytest.raises(AssertionError, match="does not print"):
        check(Command("dpgmm --version", ["dpgmn 9.9"]), tmp_path, shims)
    with pytest.raises(AssertionError, match="exit code 2"):
        check(Command("dpgmm --wrong-option"), tmp_path, shims)


def test_pages_name_no_place_on_a_machine() -> None:
    private = re.compile(r"(?<![\w.])/(work|home|tmp|root|Users)/")
    assert not [page.name for page in PAGES if private.search(page.read_text())]


def test_pages_hold_no_marks_of_a_merge() -> None:
    marks = re.compile(r"^(<{7} |={7}$|>{7} )", re.MULTILINE)
    assert marks.search("a\n=======\nb")
    assert not [page.name for page in PAGES if marks.search(page.read_text())]
