"""Run a notebook, and make a page of it with what it printed and drew."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Any

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_SECONDS = 600


def run(notebook: Path) -> tuple[str, dict[str, bytes]]:
    """Markdown of a notebook that was run in its folder, and its pictures by file name.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    document = nbformat.read(notebook, as_version=4)
    # One thread: some machines lend fewer cores than they show.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    client = NotebookClient(
        document,
        timeout=_SECONDS,
        kernel_name="python3",
        extra_arguments=["--IPKernelApp.log_level=40"],
        resources={"metadata": {"path": str(notebook.parent)}},
    )
    client.execute()
    return page(document, notebook.stem)


def page(document: Any, name: str) -> tuple[str, dict[str, bytes]]:
    """Markdown of a notebook with the outputs that it holds, and its pictures by file name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in document.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                file = f"notebook_{name}_{len(pictures)}.png"
                pictures[file] = base64.b64decode(data["image/png"])
                parts.append(f"![What the cell above draws]({file})")
        if shown := "".join(_text(output) for output in cell.get("outputs", [])).strip():
            parts.append(f"```text\n{_COLOURS.sub('', shown)}\n```")
    return "\n\n".join(parts) + "\n", pictures


def _text(output: Any) -> str:
    """What an output says, where it is no picture."""
    data = output.get("data", {})
    return "" if "image/png" in data else output.get("text", data.get("text/plain", ""))
