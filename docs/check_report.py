"""Check the HTML report in Chromium, in light and dark: `python docs/check_report.py FOLDER`.

The page must request nothing and log nothing to the console, and axe must find nothing serious. Screenshots are written
to the folder. axe-core comes from npm or `--axe`; the fixed plan of the tests is shown unless `--report` names a page.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from circinus.reporting.html_report.page import report_page

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "reporting")]
from test_html_report import STEPS, fixed_content  # noqa: E402  (the folders of tests are on the path now)
from test_html_report_in_browser import BROWSER, console, opened  # noqa: E402  (the folders of tests are on the path now)
from test_service_time_text import SEEN  # noqa: E402  (the folders of tests are on the path now)

WIDTH = 1200
SERIOUS = ("serious", "critical")
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
_MEASURE = "document.body.dataset.height = document.documentElement.scrollHeight;"
_AXE = "axe.run().then(result => { document.body.dataset.axe = JSON.stringify(result.violations); });"


def in_scheme(page: str, scheme: str) -> str:
    """Return the page in one colour scheme with all details open, whatever the browser prefers."""
    page = page.replace('content="light dark"', f'content="{scheme}"').replace("<details", "<details open")
    applies = "all" if scheme == "dark" else "not all"
    return page.replace("@media (prefers-color-scheme: dark)", f"@media {applies}")


def with_script(page: str, *scripts: str) -> str:
    """Return the page without its policy, which runs scripts at its end."""
    return _POLICY.sub("", page).replace("</body>", f"{''.join(scripts)}</body>")


def screenshot(page: str, folder: Path, file: Path) -> None:
    """Write the whole page as a PNG."""
    size = f"--window-size={WIDTH}"
    measured = opened(with_script(page, f"<script>{_MEASURE}</script>"), folder, f"{size},900", "--dump-dom")
    height = int(_attribute(measured.stdout, "height")) + 200  # a window is higher than its page
    opened(page, folder, f"{size},{height}", "--hide-scrollbars", f"--screenshot={file}")


def violations(page: str, folder: Path, axe: Path) -> list[dict[str, Any]]:
    """Return the serious findings of axe."""
    scripts = f'<script src="{axe.as_uri()}"></script>', f"<script>{_AXE}</script>"
    run = opened(
        with_script(page, *scripts), folder, f"--window-size={WIDTH},900", "--virtual-time-budget=60000", "--dump-dom"
    )
    return [found for found in json.loads(_attribute(run.stdout, "axe")) if found["impact"] in SERIOUS]


def _attribute(dom: str, name: str) -> str:
    found = re.search(rf'data-{name}="([^"]*)"', dom)
    if found is None:
        raise SystemExit(f"the browser ended before the script that writes data-{name}")
    return html.unescape(found[1])


def axe_from_npm(folder: Path) -> Path:
    """Return the script of axe-core, unpacked into a temporary folder."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is not installed; give the file axe.min.js of the npm package axe-core with --axe FILE")
    subprocess.run([npm, "pack", "axe-core", "--silent"], cwd=folder, stdout=subprocess.DEVNULL, check=True)
    (archive,) = folder.glob("axe-core-*.tgz")
    with tarfile.open(archive) as packed:
        packed.extract("package/axe.min.js", folder, filter="data")
    return folder / "package" / "axe.min.js"


def main() -> int:
    """Return 1 if a check failed."""
    parser = argparse.ArgumentParser(description="Check the HTML report in Chromium.")
    parser.add_argument("folder", type=Path, help="folder for the screenshots")
    parser.add_argument("--report", type=Path, help="page that `circinus report` wrote")
    parser.add_argument("--axe", type=Path, help="axe.min.js of the npm package axe-core")
    options = parser.parse_args()
    if BROWSER is None:
        raise SystemExit("Chromium is not installed; Debian's package is chromium")
    options.folder.mkdir(parents=True, exist_ok=True)
    report = options.report
    page = report.read_text("utf-8") if report else report_page(fixed_content(observations=(SEEN,), events=STEPS))
    with TemporaryDirectory() as name:
        folder = Path(name)
        axe = options.axe.resolve() if options.axe else axe_from_npm(folder)
        faults = [f"console: {line}" for line in console(page, folder)]  # its policy logs each request, too
        for scheme in ("light", "dark"):
            shown, file = in_scheme(page, scheme), options.folder.resolve() / f"{scheme}.png"
            screenshot(shown, folder, file)
            print(file)
            for found in violations(shown, folder, axe):
                places = ", ".join(str(node["target"]) for node in found["nodes"][:3])
                faults.append(f"{scheme}: {found['id']}: {found['help']}, {len(found['nodes'])} times: {places}")
    print("\n".join(faults) or "nothing logged, nothing requested, no serious finding of axe")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
