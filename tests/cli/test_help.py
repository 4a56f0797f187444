"""Help of the command line: panels, summaries and widths."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from circinus.cli.app import VERBS, app
from cli_runner import run_circinus

SUMMARIES = {name: summary for verbs in VERBS.values() for name, summary in verbs.items()}
COMMANDS: dict[str, Any] = {
    name: summary.load()
    for name, summary in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
}


def test_the_list_of_verbs_has_all_verbs() -> None:
    assert list(COMMANDS) == list(SUMMARIES)


@pytest.mark.parametrize("name", sorted(SUMMARIES.keys() - {"render"}))
def test_a_summary_is_the_first_line_of_the_docstring(name: str) -> None:
    verb = getattr(import_module(f"circinus.cli.{name}"), name)
    assert (inspect.getdoc(verb) or "").partition("\n")[0] == SUMMARIES[name]
    assert COMMANDS[name].name == name


@pytest.mark.parametrize("name", SUMMARIES)
def test_many_options_are_in_panels(name: str) -> None:
    options = [option for option in COMMANDS[name].params if option.param_type_name == "option"]
    if len(options) > 5:
        assert [option.name for option in options if not option.rich_help_panel] == []


@pytest.mark.parametrize("name", SUMMARIES)
def test_help_of_options_is_a_capitalised_phrase(name: str) -> None:
    for parameter in COMMANDS[name].params:
        help_text = parameter.help.strip("`")
        assert help_text.endswith("."), (name, parameter.name)
        assert help_text[0].isupper() or parameter.help.startswith("`"), (name, parameter.name)


@pytest.mark.parametrize("name", sorted(SUMMARIES.keys() - {"render"}))
def test_types_are_written_as_metavars_are(name: str) -> None:
    context = typer.Context(COMMANDS[name])
    for parameter in COMMANDS[name].get_params(context):
        shown = parameter.display_type_rich(context)
        assert "|" in shown or shown == shown.upper(), (name, parameter.name)


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("arguments", [(), *((name,) for name in SUMMARIES), ("render", "kubernetes")])
def test_help_fits_the_terminal(
    arguments: tuple[str, ...], width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    run = run_circinus(*arguments, "-h", cwd=tmp_path)
    assert run.returncode == 0
    assert run.stdout.lstrip().startswith(f"Usage: {' '.join(('circinus', *arguments))}")
    assert max(len(line) for line in run.stdout.splitlines()) <= width
    assert "\033" not in run.stdout


def test_without_arguments_the_help_is_printed(tmp_path: Path) -> None:
    run = run_circinus(cwd=tmp_path)
    assert run.returncode == 2
    assert run.stdout == run_circinus("--help", cwd=tmp_path).stdout
