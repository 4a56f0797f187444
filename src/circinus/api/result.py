"""Base of all results: rows of a table, and one JSON document."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, ClassVar, TypeVar

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

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
        (console or Console()).print(self._table())

    def __str__(self) -> str:
        console = Console(width=shutil.get_terminal_size().columns, color_system=None)
        with console.capture() as capture:
            self.print(console)
        return capture.get().rstrip()

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
        table = Table(box=None, pad_edge=False, collapse_padding=True)
        names = [name for name in rows[0] if name != "reason"]
        for name in names:
            table.add_column(name.replace("_", "\n"), overflow="fold")
        for row in rows:
            table.add_row(*(Text(row[name]) for name in names))
        reasons = [
            f"{row.get('query') or row.get('configuration')}: {row['reason']}" for row in rows if row.get("reason")
        ]
        return Group(table, *map(Text, filter(None, [*reasons, self._remark()])))

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
