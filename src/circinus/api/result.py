"""Base of all results: rows of a table, and one JSON document."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from textwrap import indent
from typing import Any, ClassVar, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from circinus.reporting.escaping_console import EscapingConsole
from circinus.reporting.wrapping import wrapped
from circinus.specification.json_dump import json_text

T = TypeVar("T")


class Result(ABC):
    """Base of all results: rows of a table, and everything else as one JSON document.

    `print(result)` prints the table, at the width of the terminal.
    """

    _COLUMNS: ClassVar[tuple[str, ...]] = ()
    """Columns of a frame without rows."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the table: one dictionary for each pipeline, plan or query."""

    @abstractmethod
    def _document(self) -> Any:
        """Return everything that `to_dict` has, before dataclasses and paths are converted."""

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values, the `data` of the document that `--json` prints."""
        document: dict[str, Any] = json.loads(json_text(self._document(), indent=0, by_alias=True, not_finite="null"))
        return document

    def to_frame(self) -> Any:
        """Return the rows as a Polars frame, or as a pandas frame where Polars is not installed.

        Raises:
            ImportError: neither is installed.
        """
        rows = self.rows()
        try:
            import polars
        except ImportError:
            import pandas

            return pandas.DataFrame(rows, columns=None if rows else self._COLUMNS)
        return polars.DataFrame(rows, schema=None if rows else self._COLUMNS, infer_schema_length=None)

    def print(self, console: Console | None = None) -> None:
        """Print the table, on a console of Rich or on standard output."""
        (console or EscapingConsole()).print(self._table())

    def __str__(self) -> str:
        console = EscapingConsole(width=shutil.get_terminal_size().columns, color_system=None)
        with console.capture() as capture:
            self.print(console)
        return "\n".join(map(str.rstrip, capture.get().splitlines())).rstrip()

    def __repr__(self) -> str:
        count = len(self.rows())
        return f"<{type(self).__name__}: {count} {'row' if count == 1 else 'rows'}>"

    def _empty(self) -> str:
        """Return the text in place of a table without rows."""
        return "(empty)"

    def _remark(self) -> str:
        """Return a text below the table, on all of its rows."""
        return ""

    def _table(self) -> RenderableType:
        """Return the table and, below it, the reasons, for which a column has no room."""
        rows = [{name: _cell(value) for name, value in row.items()} for row in self.rows()]
        if not rows:
            return Text(self._empty())
        reasons = [
            f"{row.get('query') or row.get('configuration')}: {row['reason']}" for row in rows if row.get("reason")
        ]
        return Group(_RowTable(rows), *map(Text, filter(None, [*reasons, self._remark()])))

    def _repr_html_(self) -> str:
        rows = self.rows()
        if not rows:
            return f"<p>{escape(self._empty())}</p>"
        head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_cell(value))}</td>" for value in row.values()) + "</tr>" for row in rows
        )
        remark = f"<p>{escape(self._remark())}</p>" if self._remark() else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{remark}"


class _RowTable:
    """Table without empty columns and reasons; texts without room are below the figures of their row."""

    def __init__(self, rows: Sequence[Mapping[str, str]]) -> None:
        self._rows = rows
        self._names = [name for name in rows[0] if name != "reason" and any(row[name] for row in rows)]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        titles = {name: name.split("_") for name in self._names}
        widths = {
            name: max(map(cell_len, [*title, *(row[name] for row in self._rows)])) for name, title in titles.items()
        }
        texts = [name for name in titles if any(" " in row[name] for row in self._rows)]
        if sum(widths.values()) + len(widths) - 1 <= options.max_width:
            texts = []
        for name in texts:
            del widths[name], titles[name]

        def line(cells: Mapping[str, str]) -> str:
            return " ".join(set_cell_size(cells[name], width) for name, width in widths.items()).rstrip()

        height = max(map(len, titles.values()), default=0)
        for index in range(-height, 0):
            words = {name: title[index] if -index <= len(title) else "" for name, title in titles.items()}
            yield Text(line(words), "bold")
        for row in self._rows:
            yield Text(line(row))
            for name in filter(row.get, texts):
                yield Text(indent(wrapped(row[name], options.max_width - 2), "  "))


class NamedResults(Result, Mapping[str, T]):
    """Results by the name of a pipeline or query."""

    @property
    @abstractmethod
    def _by_name(self) -> Mapping[str, T]: ...

    def __getitem__(self, name: str) -> T:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
