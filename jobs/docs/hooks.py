"""What MkDocs does for this project's site beyond its own: generated pages, and links.

The pages of the site are those of ``docs``. Pages outside that folder, notebooks and the reference
are added when it is built. Links that lead to files of the repository that are no page become text.
"""

from __future__ import annotations

import posixpath
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
import diagrams
import notebooks
import reference

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "deploy/README.md": "deploy.md",
}
"""Pages outside ``docs``, and where they are in the site."""
REFERENCE = {
    "reference/python.md": reference.python,
    "reference/commands.md": reference.commands,
    "reference/specification.md": reference.specification,
    "reference/release.md": reference.release,
}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)#\s]+)(#[^)]*)?\)")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in ``docs``."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for page, text in REFERENCE.items():
        files.append(File.generated(config, page, content=text()))
    found = sorted((ROOT / "docs").rglob("*.ipynb"))
    with ThreadPoolExecutor() as pool:  # each runs in a process of its own
        done = list(pool.map(notebooks.run, found))
    for notebook, (text, pictures) in zip(found, done, strict=True):
        page = site_path(notebook.relative_to(ROOT).as_posix())
        assert page is not None
        files.remove(files.src_uris[notebook.relative_to(ROOT / "docs").as_posix()])
        files.append(File.generated(config, page, content=text))
        for name, picture in pictures.items():
            uri = posixpath.join(posixpath.dirname(page), name)
            files.append(File.generated(config, uri, content=picture))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Make the links of a page those of the site."""
    uri = page.file.src_uri
    source = next(
        (path for path, page_of_path in OUTSIDE.items() if page_of_path == uri), f"docs/{uri}"
    )
    return diagrams.with_drawings(with_site_links(markdown, source, uri), uri)


def with_site_links(markdown: str, source: str, uri: str) -> str:
    """``markdown`` of the file ``source`` of the repository, for the page ``uri`` of the site."""
    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [
            _LINK.sub(lambda m: _link(m, source, uri), markdown[end : fence.start()]),
            fence[0],
        ]
        end = fence.end()
    return "".join([*parts, _LINK.sub(lambda m: _link(m, source, uri), markdown[end:])])


def _link(match: re.Match[str], source: str, uri: str) -> str:
    kind, text, target, fragment = match.groups()
    if "://" in target or source.startswith("docs/reference/"):
        return match[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    found = site_path(path)
    if found is None:
        return text
    return f"{kind}[{text}]({posixpath.relpath(found, posixpath.dirname(uri))}{fragment or ''})"


def site_path(path: str) -> str | None:
    """Where a file of the repository is in the site; None where it is not."""
    if path in OUTSIDE:
        return OUTSIDE[path]
    if not path.startswith("docs/"):
        return None
    folder, name = posixpath.split(path.removeprefix("docs/"))
    if name.endswith(".ipynb"):
        name = f"notebook_{name.removesuffix('.ipynb')}.md"
    return posixpath.join(folder, name)
