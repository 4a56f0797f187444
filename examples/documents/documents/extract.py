"""Operator that joins recognized text and page layout into ordered text and fields."""

from __future__ import annotations

import math
import re

from circinus.operators import operator
from documents.page import Document, Layout, Reading, TextLine

_STAMPS = ("PAID", "RECEIVED", "COPY", "URGENT")
_DATE = re.compile(r"Date:?\s*(\d{1,2})\s*([A-Z][a-z]+)\s*(\d{4})")
_NUMBER = re.compile(r"Number:?\s*(\d+)")
_TOTAL = re.compile(r"Total\s*(\$\s*[\d,]+[.,]\d{2})")


@operator
def extract(reading: Reading, layout: Layout) -> Document:
    """Return the document on a page, assembled from its text lines and its layout."""
    stamp = layout.stamp
    stamped = [line for line in reading.lines if stamp and stamp.contains(line.x, line.y)]
    body = [line for line in reading.lines if line not in stamped]
    text = "\n".join(_in_order(body, layout.skew_deg, reading.upside_down))
    fields = {}
    if match := _DATE.search(text):
        fields["date"] = " ".join(match.groups())
    if match := _NUMBER.search(text):
        fields["number"] = match[1]
    if match := _TOTAL.search(text):
        fields["total"] = match[1].replace(" ", "")
    if layout.rows:
        fields["rows"] = str(layout.rows)
    if word := _stamp_word(stamped):
        fields["stamp"] = word
    return Document(text, tuple(sorted(fields.items())))


def _in_order(lines: list[TextLine], skew_deg: float, upside_down: bool) -> list[str]:
    """Return the rows of text from top to bottom, each ordered from left to right."""
    direction = -1.0 if upside_down else 1.0
    slope = math.tan(math.radians(skew_deg))
    positions = sorted((direction * (line.y - slope * line.x), direction * line.x, line) for line in lines)
    rows: list[list[tuple[float, str]]] = []
    last_y = -math.inf
    for y, x, line in positions:
        if y - last_y > 0.6 * line.height:
            rows.append([])
            last_y = y
        rows[-1].append((x, line.text))
    return [" ".join(text for _, text in sorted(row)) for row in rows]


def _stamp_word(lines: list[TextLine]) -> str | None:
    text = "".join(line.text for line in lines).upper()
    return next((word for word in _STAMPS if word in text), None)
