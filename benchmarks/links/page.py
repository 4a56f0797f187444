"""Table of figures in the documentation's page about real links, written from the result file."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.harness.markdown import figures_table
from benchmarks.harness.results import ROOT, write_whole

PAGE = ROOT / "docs" / "links.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def page(result: Path) -> str:
    """Return the page's text with the figures of a result file between its markers."""
    document = json.loads(result.read_text(encoding="utf-8"))
    head, _, remainder = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, tail = remainder.partition(END)
    recorded = f"Recorded in {document['wall_s'] / 60:.0f} minutes on {document['machine']['cpus']} processors"
    table = figures_table(document["figures"])
    return f"{head}{BEGIN}\n{recorded} (commit `{document['commit']}`).\n\n{table}{END}{tail}"


def write_page(result: Path) -> None:
    """Write the page with the figures of a result file."""
    write_whole(PAGE, page(result))
