"""The application `circinus`: the group of all verbs, each imported only when it is called."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from textwrap import wrap
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from circinus import __version__

VERBS = {
    "Specify": {
        "init": "Write a small working application: a pipeline, operators, infrastructure and queries.",
        "validate": "Check a specification, and print every problem with file, line and the fix.",
        "schema": "Print the JSON Schema of the YAML documents, for editors.",
    },
    "Plan": {
        "profile": "Measure the pipelines' configurations; an interrupted run is resumed by the same command.",
        "plan": "Choose configuration, placement and allocation for all queries together, and write a plan file.",
        "size": "Find the cheapest machines on which all SLOs hold, and what queries and SLOs add to their price.",
        "admit": "Admit one more query to a running plan, or reject it (exit code 1).",
        "explain": "Explain each query's plan or rejection, its alternatives, and the change that would admit it.",
        "simulate": "Simulate a plan request by request, through queues, batches and links, and check every SLO.",
        "report": "Write a plan as one HTML page that opens offline, with its map, frontiers, profiles and what-if.",
    },
    "Run": {
        "apply": "Deploy exactly the plan of a plan file.",
        "serve": "Keep an engine at a plan until interrupted, and adapt to bursts, node failures, edits and drift.",
        "events": "Print the controller's events and their reasons, one per line.",
        "request": "Send one request to the applied plan, and print its output.",
        "load": "Send open-loop traffic to the applied plan, and measure every request against the SLOs.",
        "forget": "List the service times learnt from traffic or imported, or take them back.",
        "status": "Print the engine's deployments and replicas (exit code 1 if a replica is not ready).",
        "destroy": "End the engine and everything that it started.",
        "render": "Write a plan as the input of another deployment tool.",
    },
}
"""Help panel -> verb -> first line of the docstring of the verb's function, in the order of a user's work."""

_MIN_WIDTH = 40
"""Columns of the help on narrower terminals."""

_BOLD, _DIM, _CYAN, _YELLOW, _PLAIN = "\033[1m", "\033[2m", "\033[1;36m", "\033[33m", "\033[0m"
_STYLE = re.compile(r"\x1b\[[\d;]*m")
_ASCII_BOXES = str.maketrans("╭╮╰╯─│", "++++-|")


class VerbSummary(TyperCommand):
    """Name and summary of a verb, for the list of verbs and for completion."""

    def load(self) -> Any:
        """Import the verb's module, and return the command with its options."""
        from circinus.cli.command import Command

        name = str(self.name)
        verb = getattr(import_module(f"circinus.cli.{name}"), name)
        if isinstance(verb, typer.Typer):
            command = typer.main.get_command(verb)
            command.name = name
            return command
        app = typer.Typer(add_completion=False)
        app.command(name, cls=Command, help=_unwrapped(inspect.getdoc(verb) or ""))(verb)
        return typer.main.get_command(app)


class VerbGroup(TyperGroup):
    """All verbs of `circinus`."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for panel, verbs in VERBS.items():
            for name, summary in verbs.items():
                self.add_command(VerbSummary(name, help=summary, rich_help_panel=panel))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; without any, print the help and exit with code 2."""
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help())
            raise typer.Exit(2)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help in the style of Typer, whose own renderer takes as long to import as all of Typer."""
        width = max(shutil.get_terminal_size().columns, _MIN_WIDTH)
        options = [(", ".join(option.opts), getattr(option, "help", "")) for option in self.get_params(ctx)]
        lines = ["", f" {_YELLOW}Usage:{_PLAIN} {_BOLD}{ctx.command_path} [OPTIONS] COMMAND [ARGS]...{_PLAIN}", ""]
        lines += [f" {line}" for line in wrap(str(self.help), width - 2)] + [""]
        lines += _panel("Options", options, max(len(name) for name, _ in options), width)
        for title, verbs in VERBS.items():
            lines += _panel(title, verbs.items(), max(len(name) for name in self.commands), width)
        text = "\n".join(lines) + "\n"
        has_boxes = (sys.stdout.encoding or "").lower().startswith("utf")
        text = text if has_boxes else text.translate(_ASCII_BOXES)
        formatter.write(_STYLE.sub("", text) if os.environ.get("TERM") == "dumb" else text)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return (name, command with its options, further arguments)."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, VerbSummary) else command, rest


app = typer.Typer(
    name="circinus",
    cls=VerbGroup,
    help="Choose configuration, placement and allocation for all ML pipelines together, so that the most SLOs hold at "
    "the lowest cost; deploy the plan and measure it.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    verbose: Annotated[
        int,
        typer.Option("--verbose", "-v", count=True, help="Log to standard error, in full with -vv; also after a verb."),
    ] = 0,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print neither progress nor remarks; also after a verb.")
    ] = False,
) -> None:
    """Print the version, or set how much a verb prints on standard error."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
    if verbose:
        import logging

        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger("circinus").addHandler(handler)
        logging.getLogger("circinus").setLevel(logging.INFO if verbose == 1 else logging.DEBUG)
    if quiet:
        from circinus.cli.output import silence_remarks

        silence_remarks()


def _panel(title: str, rows: Iterable[tuple[str, str]], column: int, width: int) -> Iterator[str]:
    yield f"{_DIM}╭─ {title} {'─' * (width - len(title) - 5)}╮{_PLAIN}"
    for name, text in rows:
        head = name
        for line in wrap(text, max(20, width - column - 6)):
            edge = f"{_DIM}│{_PLAIN}"
            yield f"{edge} {_CYAN}{head:{column}}{_PLAIN}  {line:{width - column - 6}} {edge}"
            head = ""
    yield f"{_DIM}╰{'─' * (width - 2)}╯{_PLAIN}"


def _unwrapped(text: str) -> str:
    """Join the lines of each paragraph, so that help is wrapped at the width of the terminal."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
