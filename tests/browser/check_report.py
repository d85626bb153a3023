"""The report in a real browser: axe-core's rules, and nothing wider than the screen, at two widths, light and dark.

``python -m tests.browser.check_report [RUN ...]`` checks the reports of run folders, or that of a made-up run. It exits
with 0 when every page passed, 1 when one did not, and 2, saying *not run*, where Chromium or axe-core is absent.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from html import unescape
from pathlib import Path

from fedsim.report import write_report
from tests.fedsim.report_fixture import made_up_run

AXE = Path("build/axe/node_modules/axe-core/axe.min.js")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZES = {"phone": (390, 844), "desktop": (1280, 900)}
SCHEMES = {"dark": 0, "light": 1}
"""Chromium's numbers for ``preferredColorScheme``."""
SERIOUS = {"serious", "critical"}
PROBE = """<script>
for (const part of document.querySelectorAll("details")) part.open = true;
axe.run(document).then(found => {
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  parent.postMessage(JSON.stringify({wide, width: innerWidth, passes: found.passes.length,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    violations: found.violations.map(v => [v.impact, v.id, v.nodes.map(n => n.html.slice(0, 160)).slice(0, 3)])}), "*");
});
</script>"""
FRAME = """<!doctype html><meta name=color-scheme content="light dark"><pre id="found"></pre>
<script>addEventListener("message", told => { document.getElementById("found").textContent = told.data; });</script>
<iframe src="page.html" style="border:0;width:%dpx;height:%dpx"></iframe>"""
"""A frame, since a window of the headless browser is never narrower than 500 pixels."""


def problems(browser: str, page: Path, size: tuple[int, int], scheme: int) -> list[str]:
    """What is wrong with a page at one size and colour scheme; raises RuntimeError where the browser says nothing."""
    html = page.read_text(encoding="utf-8")
    probe = f"<script>{AXE.read_text(encoding='utf-8')}</script>{PROBE}"
    with tempfile.TemporaryDirectory() as folder:
        outer = Path(folder) / "frame.html"
        outer.write_text(FRAME % size, encoding="utf-8")
        (outer.parent / "page.html").write_text(html.replace("</body>", f"{probe}</body>"), encoding="utf-8")
        command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom",
                   "--window-size=1400,1000", f"--blink-settings=preferredColorScheme={scheme}",
                   "--virtual-time-budget=60000", f"--user-data-dir={folder}/profile", outer.as_uri()]  # fmt: skip
        dom = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False).stdout
    told = re.search(r'<pre id="found">(.+?)</pre>', dom, re.S)
    if told is None:
        raise RuntimeError(f"{page}: the browser gave no result; try it with fewer cells")
    found = json.loads(unescape(told[1]))
    if not found["passes"] or found["width"] != size[0] or found["dark"] == bool(scheme):
        raise RuntimeError(f"{page}: not looked at as asked: {found}")
    wide = [f"{found['wide']} pixels wider than the screen of {found['width']}"] if found["wide"] > 0 else []
    return wide + [f"{impact}: {rule}: {nodes}" for impact, rule, nodes in found["violations"] if impact in SERIOUS]


def main(folders: list[str]) -> int:
    """Check every page in every way; the exit code."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    absent = [name for name, there in (("Chromium", browser), (f"axe-core ({AXE})", AXE.exists())) if not there]
    if browser is None or absent:
        print(f"not run: {' and '.join(absent)} not found. This is no pass.")
        return 2
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        pages = [Path(each) / "report.html" for each in folders] or [write_report(*made_up_run(), Path(folder))]
        for page in pages:
            for name, size in SIZES.items():
                for scheme, number in SCHEMES.items():
                    found = problems(browser, page, size, number)
                    bad += len(found)
                    print(f"{page.parent.name}, {name}, {scheme}: {'; '.join(found) or 'no serious issue'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
