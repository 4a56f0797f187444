"""Console that escapes control characters of data, which may command a terminal: files may be those of others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.segment import Segment

from circinus.reporting.wrapping import printable

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType


class EscapingConsole(Console):
    """Console of Rich that escapes control characters of what it prints."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of a renderable."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else printable(segment.text)
            yield segment if text == segment.text else Segment(text, segment.style)
