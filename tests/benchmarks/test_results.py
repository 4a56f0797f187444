from __future__ import annotations

from io import StringIO

import pytest
from benchmarks.harness.results import Figure, print_figures
from rich.console import Console


@pytest.mark.parametrize(
    ("figure", "value", "aim"),
    [
        (Figure("planning", 0.0412, 1.0, "lower", "s"), "41.2 ms", "≤ 1 s"),
        (Figure("demo", 285.7, 360.0, "lower", "s"), "4.76 min", "≤ 6 min"),
        (Figure("cost", 0.435400, 0.5, "lower", "$/h"), "$0.435/h", "≤ $0.50/h"),
        (Figure("promises", 0.9231, 0.8, "higher", "of plans"), "92.3% of plans", "≥ 80% of plans"),
        (Figure("planned", 14, 12, "higher", "queries"), "14 queries", "≥ 12 queries"),
    ],
)
def test_figures_are_printed_as_people_read_them(figure: Figure, value: str, aim: str) -> None:
    written = StringIO()
    print_figures([figure], Console(file=written, width=120))
    (row,) = [line for line in written.getvalue().splitlines() if figure.name in line]
    assert [cell.strip() for cell in row.split("│")][1:5] == [figure.name, value, aim, "yes"]
