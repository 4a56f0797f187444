"""Output of renderables on a terminal of a given width."""

from __future__ import annotations

from io import StringIO

from rich.console import Console, RenderableType


def printed(*renderables: RenderableType, width: int = 200) -> str:
    """Return the plain text."""
    console = Console(file=StringIO(), width=width)
    console.print(*renderables)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()
