"""The report in headless Chromium: nothing is requested, and it fits a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "artifact"))
import releases  # the small releases that the unit tests use

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = [
    pytest.mark.system_external,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)"),
]

_PROBE = """<!doctype html><iframe id=f style="width:{width}px;height:800px;border:0"
 srcdoc="{page}"></iframe><pre id=out></pre><script>
f.onload = () => {{
  const d = f.contentDocument;
  if (OPEN) d.querySelectorAll("details").forEach(e => e.open = true);
  out.textContent = JSON.stringify({{
    wide: d.documentElement.scrollWidth,
    requests: f.contentWindow.performance.getEntriesByType("resource").length,
    text: d.body.innerText.length}});
}}</script>"""


def look(page: str, folder: Path, width: int, opened: bool) -> dict[str, int]:
    """What Chromium makes of a page in a frame of a width."""
    probe = _PROBE.format(width=width, page=html.escape(page))
    file = folder / "probe.html"
    file.write_text(probe.replace("OPEN", "true" if opened else "false"))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--virtual-time-budget=5000", f"file://{file}"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r"<pre id=\"out\">(.*?)</pre>", shown)
    assert found, shown[-500:]
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("kind", ["list", "table"])
def test_the_report_requests_nothing_and_does_not_overflow(kind, width, tmp_path):
    given = {} if kind == "list" else {"input_schema": releases.TABLE_INPUT}
    labels = (7, 3) if kind == "list" else ()
    releases.write(tmp_path / "r", mixture=releases.mixture_of(labels), **given)
    page = (tmp_path / "r" / "report.html").read_text()
    seen = look(page, tmp_path, width, opened=True)
    assert seen["text"] > 1000
    assert seen["requests"] == 0
    assert seen["wide"] <= width


def test_decoded_rows_are_shown_without_a_request(tmp_path):
    from dpgmm_dist import load_release
    from dpgmm_dist.artifact.report import render_report
    from dpgmm_dist.artifact.report.examples import Examples
    from dpgmm_dist.encode.contact_sheets import contact_sheet, png

    releases.write(tmp_path / "r")
    strip = png(contact_sheet([[np.zeros((28, 28, 1), np.uint8)] * 10]))
    examples = Examples("pixels", {"label 7": strip, "label 3": ["word " * 60]})
    page = render_report(load_release(str(tmp_path / "r")), examples).decode()
    seen = look(page, tmp_path, 360, opened=False)
    assert seen["requests"] == 0
    assert seen["wide"] <= 360


def test_the_look_notices_a_request_and_an_overflow(tmp_path):
    page = '<p style="width:500px">wide</p><img src="http://127.0.0.1:9/nothing.png">'
    seen = look(page, tmp_path, 360, opened=False)
    assert seen["wide"] > 360
    assert seen["requests"] == 1
