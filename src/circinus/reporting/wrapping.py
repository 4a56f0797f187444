"""Wrapping of sentences: lines end between words, so that commands in backquotes can be copied."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that command a terminal, or change the direction of text."""
_KEPT_SPACE = "\ue000"
"""Private character in place of the spaces of a command while its line is wrapped."""


def printable(text: str) -> str:
    """Return a text with escaped control characters, except tabs and line breaks: no data commands a terminal."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def wrapped(text: str, width: int) -> str:
    """Return a text in lines of at most `width` characters, except for longer words.

    Commands in backquotes stay on one line where one can hold them. Line breaks and indents of the text stay. Control
    characters are escaped.
    """

    def with_kept_spaces(command: re.Match[str]) -> str:
        return command[0].replace(" ", _KEPT_SPACE) if len(command[0]) <= width else command[0]

    wrapper = textwrap.TextWrapper(
        max(width, 1), expand_tabs=False, replace_whitespace=False, break_long_words=False, break_on_hyphens=False
    )
    lines = (wrapper.fill(re.sub(r"`[^`]+`", with_kept_spaces, line)) for line in printable(text).split("\n"))
    return "\n".join(lines).replace(_KEPT_SPACE, " ")


def print_wrapped(console: Console, text: str, style: str = "") -> None:
    """Print a wrapped text without markup."""
    console.print(wrapped(text, console.width), style=style, markup=False, highlight=False, soft_wrap=True)
