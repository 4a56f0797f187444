"""Columns of tables."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table


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
        table.add_column(name, justify="right", overflow="fold", no_wrap=no_wrap)
    if remark:
        table.add_column(remark, overflow="fold")
    return table
