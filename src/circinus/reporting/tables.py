"""Columns of tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.markup import escape
from rich.table import Table

from circinus.specification.formatting import ACCURACY, with_metric


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
        return f"{escape(self.of(query))}\n{scores}" if self._differ and scores else scores

    def text(self, query: str, text: object) -> str:
        """Return a text with the name of the query's metric, see `with_metric`."""
        return with_metric(str(text), self.of(query))


def make_table(
    title: str | None, texts: Iterable[str], figures: Iterable[str], remark: str = "", *, no_wrap: bool = False
) -> Table:
    """Return a table without rows, in which narrow terminals wrap and never cut.

    Args:
        title: title on the left, if any.
        texts: names of the first columns.
        figures: names of the columns after them, aligned on the right.
        remark: name of a last column of texts, if any.
        no_wrap: whether figures are never wrapped.
    """
    table = Table(title=title, title_justify="left")
    for name in texts:
        table.add_column(name, overflow="fold")
    for name in figures:
        table.add_column(escape(name), justify="right", overflow="fold", no_wrap=no_wrap)
    if remark:
        table.add_column(remark, overflow="fold")
    return table
