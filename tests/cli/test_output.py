"""What verbs print besides their results."""

from __future__ import annotations

import io
import sys
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from rich.console import Console

from circinus.cli import main
from circinus.cli.output import elapsed_time
from cli_runner import as_a_new_process, start_process


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_task_and_its_time_are_shown_on_terminals_only(is_terminal: bool) -> None:
    written = io.StringIO()
    with elapsed_time("planning [14] queries", Console(file=written, width=80, force_terminal=is_terminal)) as line:
        with line.progress_bar("mend"):  # takes the place of the line
            shown = written.getvalue()
        line("[2] of 3")
    for text in ("planning [14] queries", "0:00:00"):
        assert (text in shown) == is_terminal
    assert ("[2] of 3" in written.getvalue()[len(shown) :]) == is_terminal


@pytest.mark.parametrize("arguments", [("status", "--json"), ("status",)])
def test_verbs_end_with_their_code_without_standard_output_and_error(tmp_path: Path, arguments: tuple[str]) -> None:
    with as_a_new_process(arguments, tmp_path), redirect_stdout(None), redirect_stderr(None):
        with pytest.raises(SystemExit) as ended:
            main()
        with closing(sys.stdout), closing(sys.stderr):
            assert ended.value.code == 1


def test_an_error_that_nothing_reads_is_no_traceback(tmp_path: Path) -> None:
    with start_process("explain", "--json", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1
