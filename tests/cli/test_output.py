"""What verbs print besides their results."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from rich.console import Console

from circinus.cli import main
from circinus.cli.output import elapsed_time
from circinus.reporting.wrapping import wrapped
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


@pytest.mark.parametrize(
    "surroundings",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"COLUMNS": "1"},
        {"TERM": "dumb"},
    ],
    ids=lambda surroundings: next(iter(surroundings)),
)
def test_any_encoding_and_width_shows_the_help(surroundings: dict[str, str]) -> None:
    command = [sys.executable, "-m", "circinus", "--help"]
    run = subprocess.run(command, capture_output=True, env={**os.environ, **surroundings}, check=False)
    assert (run.returncode, run.stderr) == (0, b"")
    assert b"validate" in run.stdout


@pytest.mark.parametrize("arguments", [("schema",), ("explain", "--json")])
def test_a_full_disk_behind_standard_output_is_one_message(arguments: tuple[str, ...], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "circinus", *arguments]
    with open("/dev/full", "w", encoding="utf-8") as full:
        run = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert os.strerror(errno.ENOSPC) in run.stderr


def test_a_working_folder_that_was_removed_is_one_message(tmp_path: Path) -> None:
    code = "import os, sys; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]); os.execv(sys.executable, sys.argv[2:])"
    gone = tmp_path / "gone"
    gone.mkdir()
    command = [sys.executable, "-c", code, str(gone), sys.executable, "-m", "circinus", "validate", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    error = json.loads(run.stdout)["data"]
    assert (run.returncode, error["code"], error["location"]) == (1, "file.inaccessible", "working folder")


def test_control_characters_of_data_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in wrapped("found \x1b[2J\x9b in a name\n\tof \u202edata", 80)
