"""What verbs print besides their results."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from circinus.cli.output import elapsed_time


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_task_and_its_time_are_shown_on_terminals_only(is_terminal: bool) -> None:
    written = io.StringIO()
    with elapsed_time("planning 14 queries", Console(file=written, width=80, force_terminal=is_terminal)):
        pass
    assert ("planning 14 queries" in written.getvalue()) == is_terminal
    assert ("0:00:00" in written.getvalue()) == is_terminal
