"""What a terminal of a given width shows."""

from __future__ import annotations

from io import StringIO

from rich.console import Console, RenderableType


def printed(*shown: RenderableType, width: int = 200) -> str:
    """The plain text."""
    console = Console(file=StringIO(), width=width)
    console.print(*shown)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()
