"""The documentation is true: its commands run, its links and the names it gives exist."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
QUICKSTART = ROOT / "docs" / "quickstart.md"
OPERATIONS = ROOT / "docs" / "operations.md"
TUTORIALS = ROOT / "docs" / "tutorials"
DATA = Path(os.environ.get("DATA", ROOT / "build" / "data"))
"""Where jobs/data/build.sh has put the public data sets that some pages need."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
_CODE = re.compile(r"`([^`\n]+)`")
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


def slow_page(name: str, data: str) -> Any:
    """A page that needs a rebuilt data set, and minutes."""
    absent = pytest.mark.skipif(
        not (DATA / data).is_dir(),
        reason=f"{data} is not built: jobs/data/build.sh build/data {data}",
    )
    marks = [absent, pytest.mark.slow, pytest.mark.system_external, pytest.mark.timeout(3600)]
    return pytest.param(TUTORIALS / name, marks=marks)


@pytest.mark.parametrize(
    "page",
    [
        QUICKSTART,
        OPERATIONS,
        TUTORIALS / "table.md",
        slow_page("images.md", "fashion_mnist_raw"),
        slow_page("text.md", "spamassassin_minilm384"),
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
def test_names_in_code_exist(page: Path) -> None:
    """Modules, functions, files and tests that a page names; ``::name`` is of the file before."""
    wrong = []
    file = ""
    for name in _CODE.findall(page.read_text()):
        if re.fullmatch(r"(tests/[\w/]+\.py)?(::\w+)?", name) and name:
            path, _, test = name.partition("::")
            file = path or file
            if not (ROOT / file).is_file() or (test and not defines(file, test)):
                wrong.append(name)
        elif re.fullmatch(r"dpgmm_dist(\.\w+)+", name):
            wrong += [] if importable(name) else [name]
    assert not wrong


def test_messages_in_the_tables_of_operations_are_those_of_the_code() -> None:
    """What is in italics in their first columns; ``...`` stands for what differs."""
    files = sorted((ROOT / "dpgmm_dist").rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", "\n".join(file.read_text() for file in files))
    rows = re.findall(r"^\| (\*.*?) \|", OPERATIONS.read_text(), re.MULTILINE)
    phrases = [phrase for row in rows for phrase in re.findall(r"\*([^*]+)\*", row)]
    parts = [part.strip() for phrase in phrases for part in phrase.split("...") if part.strip()]
    assert len(parts) > 30
    assert not [part for part in parts if part not in code]


def defines(file: str, test: str) -> bool:
    return re.search(rf"^def {test}\(", (ROOT / file).read_text(), re.MULTILINE) is not None


def importable(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of the longest module in it."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            if not hasattr(thing, attribute):
                return False
            thing = getattr(thing, attribute)
        return True
    return False


def test_the_receipt_in_the_readme_adds_up() -> None:
    from dpgmm_dist.artifact.receipt import Query
    from dpgmm_dist.artifact.verify import block_cost

    [(_, text)] = blocks(ROOT / "README.md", "json")
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
