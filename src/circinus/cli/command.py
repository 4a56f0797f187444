"""A verb of the command line, which words usage errors and interruptions as all messages are worded."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from circinus.cli.process import INTERRUPTED, interruptible
from circinus.errors import PlanningError

if TYPE_CHECKING:
    from pydantic import ValidationError

_NO_CHOICE = re.compile(r"'(?P<value>.*)' is not one of (?P<choices>'.*')\.?")

_INTERRUPTED = {
    "profile": "interrupted; what was measured is stored, and the same command resumes",
    "plan": "interrupted; no plan was written",
    "plan --budget": "interrupted; no plan was written, what was measured is stored, and the same command resumes",
    "apply": "interrupted; `circinus status` shows what is running, and the same command resumes",
    "load": "interrupted; nothing of this run is stored",
}
_NAME_ERRORS = ("query.unknown", "size.unknown_pool", "size.kept_and_chosen")

_TYPES = {
    "<bool>": "",
    "<int>": "NUMBER",
    "<int range>": "NUMBER",
    "<str>": "TEXT",
    "<list[str]>": "TEXT",
    "<path>": "FILE",
    "<list[Path]>": "FILE",
}
"""Type in the help of Typer -> type as metavars are written; flags have none."""
_ARGUMENTS = {"paths": "PATH", "folder": "FOLDER", "file": "FILE"}
"""Argument -> type where it is more or less than its Python type."""


class Command(TyperCommand):
    """A verb whose options are checked by pydantic."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters, with types for the help that are written as metavars are."""
        params: list[Any] = super().get_params(ctx)
        for param in params:
            shown = param.display_type(ctx)
            text = _ARGUMENTS.get(param.name) or _TYPES.get(shown, shown.strip("<>"))
            param.display_type = lambda ctx, text=text: text
        return params

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments.

        Raises:
            typer.BadParameter: a value is invalid.
        """
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            cause: Any = error.__cause__
            # Compared by name, so that the command starts without importing pydantic.
            if type(cause).__name__ != "ValidationError":
                raise
            raise typer.BadParameter(_usage_message(cause), ctx=error.ctx, param=error.param) from None
        except Exception as error:  # compared by name, as the exception is private
            option = str(getattr(error, "option_name", ""))
            if type(error).__name__ != "NoSuchOption" or option not in ("-o", "--output"):
                raise
            text = f"expected `{option} json`, apart from other options; tables need no option"
            raise typer.BadParameter(text, ctx=ctx, param_hint=f"'{option}'") from None

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; an interruption prints the state in which it leaves things."""
        try:
            with interruptible():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            verb = f"{self.name} --budget" if self.name == "plan" and ctx.params["budget"] is not None else self.name
            message = _INTERRUPTED.get(str(verb), "interrupted")
            from circinus.cli.output import progress_console
            from circinus.reporting.wrapping import wrapped

            sys.stderr.write(f"{wrapped(message, progress_console().width)}\n")
            raise typer.Exit(INTERRUPTED) from None


@contextmanager
def names_as_arguments() -> Iterator[None]:
    """Report queries and pools that the block cannot use as a usage error, for their names were arguments."""
    try:
        yield
    except PlanningError as error:
        if error.code not in _NAME_ERRORS:
            raise
        from circinus.reporting.wrapping import printable

        raise typer.BadParameter(printable(str(error))) from error


def _usage_message(error: ValidationError) -> str:
    from circinus.specification.diagnostics import did_you_mean, expected_by

    details = error.errors(include_url=False)[0]
    choice = _NO_CHOICE.fullmatch(str(details.get("ctx", {}).get("error", "")))
    if choice is None:
        return f"found {details['input']}, expected {expected_by(details)}"
    choices = re.findall(r"'([^']*)'", choice["choices"])
    hint = did_you_mean(choice["value"], choices)
    return f"found {choice['value']}, expected {' or '.join(choices)}" + (f"; {hint}" if hint else "")
