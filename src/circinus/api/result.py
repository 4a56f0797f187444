"""Base of all results: rows of a table, and one JSON document."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from html import escape
from typing import Any

from circinus.specification.json_dump import json_text


class Result(ABC):
    """Base of all results: rows of a table, and everything else as one JSON document."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the table: one dictionary for each pipeline, plan or query."""

    @abstractmethod
    def _document(self) -> Any:
        """Return everything that `to_dict` has, before dataclasses and paths are converted."""

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values, as `--json` prints them."""
        document: dict[str, Any] = json.loads(json_text(self._document(), indent=0, by_alias=True, not_finite="null"))
        return document

    def to_frame(self) -> Any:
        """Return the rows as a Polars frame, or as a pandas frame where Polars is not installed.

        Raises:
            ImportError: neither is installed.
        """
        try:
            import polars
        except ImportError:
            import pandas

            return pandas.DataFrame(self.rows())
        return polars.DataFrame(self.rows())

    def _repr_html_(self) -> str:
        rows = self.rows()
        if not rows:
            return "<p>(empty)</p>"
        head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_cell(value))}</td>" for value in row.values()) + "</tr>" for row in rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
