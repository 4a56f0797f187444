"""The report in a browser: its policy lets it request nothing, and nothing is logged to the console."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from test_html_report import fixed_content

from circinus.reporting.html_report.page import report_page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium; Debian's package is chromium"),
]


def opened(page: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Return what a browser writes when it opens a page: its DOM, and its log."""
    file = folder / "report.html"
    file.write_text(page, encoding="utf-8")
    command = [
        *(str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"),
        *("--enable-logging=stderr", *(options or ("--dump-dom",)), file.as_uri()),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def console(page: str, folder: Path) -> list[str]:
    """Return what a browser logs of a page to its console."""
    run = opened(page, folder)
    assert "<h1>" in run.stdout
    return [line for line in run.stderr.splitlines() if "CONSOLE" in line]


def test_the_console_stays_empty(tmp_path: Path) -> None:
    assert console(report_page(fixed_content()), tmp_path) == []


def test_a_request_would_be_seen(tmp_path: Path) -> None:
    page = report_page(fixed_content()).replace("<main>", '<main><img src="https://example.org/pixel.png">')
    assert len(console(page, tmp_path)) == 1
