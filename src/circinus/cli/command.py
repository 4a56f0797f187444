"""One verb of the command line, that says in the words of all messages what was typed wrongly."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from pydantic import ValidationError

_NO_CHOICE = re.compile(r"'(?P<found>.*)' is not one of (?P<choices>'.*')\.?")

_INTERRUPTED = {
    "profile": "interrupted; what was measured is kept, the same command goes on from there",
    "plan": "interrupted; no plan was written, what was measured is kept, and the same command goes on from there",
    "apply": "interrupted; circinus status says what runs, and the same command goes on from there",
    "load": "interrupted; nothing of this run is kept",
}


class Command(TyperCommand):
    """Options are checked by pydantic, whose own texts are not for who types a command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what was typed.

        Raises:
            typer.BadParameter: it is wrong.
        """
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            cause: Any = error.__cause__
            # By name, since the command has to begin without loading pydantic.
            if type(cause).__name__ != "ValidationError":
                raise
            raise typer.BadParameter(_in_our_words(cause), ctx=error.ctx, param=error.param) from None

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; who interrupts it is told what became of what it did."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # would end without a word
            if self.name in _INTERRUPTED:
                sys.stderr.write(f"{_INTERRUPTED[self.name]}\n")
            raise typer.Exit(130) from None


def _in_our_words(error: ValidationError) -> str:
    from circinus.specification.diagnostics import did_you_mean, expected_by

    details = error.errors(include_url=False)[0]
    choice = _NO_CHOICE.fullmatch(str(details.get("ctx", {}).get("error", "")))
    if choice is None:
        return f"found {details['input']}, expected {expected_by(details)}"
    choices = re.findall(r"'([^']*)'", choice["choices"])
    hint = did_you_mean(choice["found"], choices)
    return f"found {choice['found']}, expected {' or '.join(choices)}" + (f"; {hint}" if hint else "")
