"""Columns, cells and bars of tables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from circinus.specification.formatting import ACCURACY, with_metric

_MIN_SHARE = 0.6
"""Share of the columns of a text below which shortening it is the last resort."""
_MIN_WORD = 3
"""Columns below which a word is only shortened with its whole text."""
_FIGURE = re.compile(r"[-+$(]*[0-9][0-9.,]*(%|[a-zµ]+|/\w+)?[,)]*")
_BAR = 10
"""Columns of a bar."""


class OneLine:
    """Text on one line; where it does not fit, its longest words are shortened in the middle."""

    def __init__(self, text: str, style: str = "", *, whole: bool = False) -> None:
        """Take the text.

        Args:
            text: without markup.
            style: style of the text.
            whole: whether a `FirstFitting` with the text fits only if the text is not shortened.
        """
        self.text, self.style, self.whole = text, style, whole

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        width = cell_len(self.text)
        return Measurement(width if self.whole else math.ceil(_MIN_SHARE * width), width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(_fitting(self.text, options.max_width), self.style, no_wrap=True)


class TwoLines:
    """Text on one line; where it does not fit, the part from a separator on is on a second one."""

    def __init__(self, text: str, separator: str) -> None:
        head, mark, tail = text.partition(separator)
        self._text, self._lines = text, [head, f"  {mark}{tail}"] if mark else [text]

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(max(map(cell_len, self._lines)), cell_len(self._text))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        fits = cell_len(self._text) <= options.max_width
        yield Text(self._text if fits else "\n".join(self._lines), overflow="fold")


class WrappedTitle:
    """Title of a column, wrapped between its words where the table is narrow."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        width = cell_len(self.text)
        return Measurement(max(*map(cell_len, self.text.split()), math.ceil(_MIN_SHARE * width)), width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.text)


def _fitting(text: str, width: int) -> str:
    """Return the text with its longest words shortened in the middle; figures stay whole if they fit."""
    words = text.split(" ")
    while cell_len(" ".join(words)) > width:
        names = [index for index, word in enumerate(words) if not _FIGURE.fullmatch(word)]
        longest = max(names, key=lambda index: cell_len(words[index]), default=None)
        if longest is None or cell_len(words[longest]) <= _MIN_WORD:
            return _shortened(text, width)
        words[longest] = _shortened(words[longest], cell_len(words[longest]) - 1)
    return " ".join(words)


def _shortened(text: str, width: int) -> str:
    kept = text.replace("…", "")
    count = len(kept)
    while cell_len(text) > width and count > 0:
        count -= 1
        text = f"{kept[: (count + 1) // 2]}…{kept[len(kept) - count // 2 :]}"
    return text


class FirstFitting:
    """The first of several renderables that fits the width of the console, else the last one."""

    def __init__(self, *renderables: RenderableType) -> None:
        self.renderables = renderables

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unlimited = options.update(max_width=10**4)
        for renderable in self.renderables[:-1]:
            if Measurement.get(console, unlimited, renderable).minimum <= options.max_width:
                yield renderable
                return
        yield self.renderables[-1]


def bar(share: float) -> str:
    """Return a bar of a share of 1; a share above 0 is visible."""
    filled = min(math.ceil(share * _BAR - 1e-9), _BAR)
    return "█" * filled + "░" * (_BAR - filled)


def stacked_bar(marks: str, parts: Iterable[float], full: float) -> str:
    """Return a bar of several parts, each with its mark, of which `full` fills two bars' columns."""
    text, total = "", 0.0
    for mark, part in zip(marks, parts, strict=True):
        total += part
        text += mark * (round(2 * _BAR * total / full) - len(text) if full else 0)
    return text


class MetricNames:
    """Names of the metrics in one table: the title of its column, or in each cell where the rows differ."""

    def __init__(self, names: Mapping[str, str], queries: Iterable[str]) -> None:
        """Take the names of the metrics.

        Args:
            names: query -> name of its metric.
            queries: queries of the table.
        """
        self._names = names
        used = {names.get(query, ACCURACY) for query in queries}
        self._differ = len(used) > 1
        self.column = "score" if self._differ else next(iter(used), ACCURACY)
        """Title of the column of scores."""

    def of(self, query: str) -> str:
        """Return the name of a query's metric."""
        return self._names.get(query, ACCURACY)

    def cell(self, query: str, scores: str) -> str:
        """Return the cell of a query's scores."""
        return f"{self.of(query)} {scores}" if self._differ and scores else scores

    def text(self, query: str, text: object) -> str:
        """Return a text with the name of the query's metric, see `with_metric`."""
        return with_metric(str(text), self.of(query))


def make_table(
    title: str | None, texts: Iterable[str], figures: Iterable[str], remark: str = "", *, one_line: bool = False
) -> Table:
    """Return a table without rows, in which narrow terminals wrap and never cut.

    Args:
        title: title on the left, if any.
        texts: names of the first columns.
        figures: names of the columns after them, aligned on the right.
        remark: name of a last column of texts, if any.
        one_line: whether a row takes one line, without a frame: figures are never wrapped, texts are `OneLine`.
    """
    table = Table(title=title, title_justify="left")
    if one_line:
        table.box, table.show_edge, table.pad_edge, table.padding = SIMPLE_HEAD, False, False, (0, 1, 0, 0)
    for name in texts:
        table.add_column(WrappedTitle(name) if one_line else escape(name), overflow="fold")
    for name in figures:
        table.add_column(escape(name), justify="right", overflow="fold", no_wrap=one_line)
    if remark:
        table.add_column(remark, overflow="fold")
    return table
