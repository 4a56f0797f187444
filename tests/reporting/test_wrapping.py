from __future__ import annotations

import pytest

from circinus.reporting.wrapping import wrapped

TEXT = (
    "my folder/plan.json: no such file. Write one with `circinus plan`, or name it.\n  item-with-hyphens  fails\n\nend"
)


@pytest.mark.parametrize("width", [0, 1, 18, 40, 77, 200])
def test_lines_end_between_words_and_outside_commands_that_fit(width: int) -> None:
    lines = wrapped(TEXT, width).split("\n")
    assert " ".join(lines).split() == TEXT.split()
    assert [line for line in lines if len(line) > width and " " in line.replace("`circinus plan`", "").strip()] == []
    assert any("`circinus plan`," in line for line in lines) == (width >= 18)


def test_line_breaks_and_indents_stay() -> None:
    assert wrapped(TEXT, 100) == TEXT
