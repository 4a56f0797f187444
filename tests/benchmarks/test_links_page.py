"""Figures in the documentation's page about real links."""

from __future__ import annotations

from benchmarks.harness.results import FOLDER
from benchmarks.links.page import PAGE, page


def test_page_has_the_recorded_figures() -> None:
    """Written by `python -m benchmarks links`."""
    assert PAGE.read_text(encoding="utf-8") == page(FOLDER / "links.json")
