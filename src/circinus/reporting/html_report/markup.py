"""HTML elements, whose texts are escaped where they are not HTML already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Html(str):
    """Text that is HTML; every other text is escaped when it becomes part of an element."""

    __slots__ = ()


def element(tag: str, *content: str, **attributes: str) -> Html:
    """Return an element with its content.

    Args:
        tag: name of the element.
        content: texts and elements.
        attributes: values by name; `class_` stands for `class`, and other underscores for hyphens.
    """
    named = ((name.rstrip("_").replace("_", "-"), escape(value)) for name, value in attributes.items())
    opening = "".join([tag, *(f' {name}="{value}"' for name, value in named)])
    return Html(f"<{opening}>{join(content)}</{tag}>")


def join(parts: Iterable[str], separator: str = "") -> Html:
    """Return texts and elements one after the other."""
    return Html(separator.join(part if isinstance(part, Html) else escape(part) for part in parts))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, figures: int = 0, caption: str = "") -> Html:
    """Return a table that scrolls by itself where the page is too narrow.

    Args:
        heads: titles of the columns.
        rows: cells, as many as titles; the first one names its row.
        figures: number of columns after the first that are aligned on the right.
        caption: text above the table.
    """

    def cell(column: int, text: str) -> Html:
        style = "figure" if 0 < column <= figures else "text"
        if column == 0:
            return element("th", text, scope="row")
        return element("td", text, class_=style)

    titles = (
        element("th", head, scope="col", class_="figure" if 0 < column <= figures else "text")
        for column, head in enumerate(heads)
    )
    body = (element("tr", *(cell(column, text) for column, text in enumerate(row))) for row in rows)
    parts = [element("caption", caption)] if caption else []
    parts += [element("thead", element("tr", *titles)), element("tbody", *body)]
    return element("div", element("table", *parts), class_="scroll", tabindex="0")


def bar(share: float, text: str, style: str = "") -> Html:
    """Return a share of 1 as a bar with its text."""
    width = f"width:{100 * min(max(share, 0.0), 1.0):.1f}%"
    filled = element("span", element("span", "", style=width), class_=f"bar {style}".strip(), aria_hidden="true")
    return join((filled, " ", text))


def paragraph(*content: str, style: str = "") -> Html:
    """Return a paragraph, by default without a style."""
    return element("p", *content, class_=style) if style else element("p", *content)


def disclosure(title: str, *content: str) -> Html:
    """Return content that a click on its title shows."""
    return element("details", element("summary", title), *content)
