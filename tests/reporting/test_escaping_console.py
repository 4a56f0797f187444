"""Consoles: text of files of others commands no terminal, and styles stay."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from circinus.cli.output import console
from circinus.control.state_store import Event, EventKind
from circinus.reporting.control_table import event_line
from circinus.reporting.escaping_console import EscapingConsole

COMMANDS = "a\x1b]0;title\x07\x1b[2Jb\x9b31m\u202ec"
ESCAPED = r"a\x1b]0;ti"  # cells are as wide as the text was


def test_tables_of_verbs_escape_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(COMMANDS)
    table.add_row(COMMANDS)
    console().print(table, COMMANDS, sep="\n")
    printed = capsys.readouterr().out
    assert printed.count(ESCAPED) == 3
    assert printed.replace("\n", "").isprintable()


def test_styles_are_kept() -> None:
    file = io.StringIO()
    EscapingConsole(file=file, force_terminal=True, color_system="standard").print(
        "\x1b[2J", style="bold", highlight=False
    )
    assert file.getvalue() == "\x1b[1m\\x1b[2J\x1b[0m\n"


def test_events_escape_control_characters() -> None:
    line = event_line(Event(0.0, EventKind.FAILED, COMMANDS, COMMANDS))
    assert line.count(ESCAPED) == 2
    assert line.isprintable()
