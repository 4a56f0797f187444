"""Page templates: invoices, letters and receipts with random content, before any distortion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

WIDTH, HEIGHT = 496, 702
"""Size of an A4 page at 60 dots per inch, in pixels."""

_COMPANIES = (
    "Harbour Tools",
    "Northwind Paper",
    "Alder & Sons",
    "Blue Kiln Pottery",
    "Quayside Motors",
    "Fern Gardens",
)
_PEOPLE = ("Anna Keller", "James Okafor", "Maria Santos", "Peter Lindqvist", "Grace Hopkins", "David Moreau")
_STREETS = ("Mill Lane", "Station Road", "King Street", "Orchard Way", "Church Hill")
_CITIES = ("Leeds", "Bristol", "Dublin", "Boston", "Hamburg")
_GOODS = (
    "Paper, A4",
    "Steel bolts",
    "Garden hose",
    "Desk lamp",
    "Paint, white",
    "Oak shelf",
    "Ink, black",
    "Work gloves",
)
_GROCERIES = ("Bread", "Milk", "Apples", "Coffee", "Cheese", "Tomatoes", "Orange juice", "Rice", "Butter")
_MONTHS = ("January", "March", "April", "June", "August", "October", "December")
_STAMPS = ("PAID", "RECEIVED", "COPY", "URGENT")
_SENTENCES = (
    "Thank you for your letter of last week.",
    "We have looked into the matter with care.",
    "The goods left our warehouse on Monday.",
    "Please find the papers enclosed.",
    "A colleague will call you within two days.",
    "We are sorry for the trouble this has caused.",
    "The amount will be returned to your account.",
    "Our office is open from eight to five.",
    "You may keep the samples free of charge.",
    "We look forward to your reply.",
)


@dataclass(frozen=True)
class Text:
    """Piece of text with its position."""

    x: int
    y: int
    text: str
    size: int = 14
    right: bool = False
    """True if the text ends at `x` (right-aligned) instead of beginning there."""


@dataclass
class Draft:
    """Page as a list of drawing elements, with its true fields."""

    texts: list[Text] = field(default_factory=list)
    rules: list[tuple[int, int, int]] = field(default_factory=list)
    """Horizontal rules as tuples (left, right, y)."""
    stamp: tuple[int, int, str] | None = None
    """Stamp as a tuple (left, top, text)."""
    fields: dict[str, str] = field(default_factory=dict)

    def line(self, y: int, *pieces: Text) -> None:
        """Place pieces of text on a line at height `y`."""
        self.texts.extend(Text(piece.x, y, piece.text, piece.size, piece.right) for piece in pieces)

    def true_text(self) -> str:
        """Return the true text: line by line, from left to right, without the stamp."""
        lines: dict[int, list[Text]] = {}
        for text in self.texts:
            lines.setdefault(text.y, []).append(text)
        return "\n".join(" ".join(piece.text for piece in sorted(lines[y], key=lambda t: t.x)) for y in sorted(lines))


def invoice(rng: np.random.Generator) -> Draft:
    """Return an invoice with a ruled table."""
    draft = Draft()
    number, date = f"{rng.integers(10_000, 99_999)}", _date(rng)
    draft.line(40, Text(40, 0, str(rng.choice(_COMPANIES)), 20), Text(456, 0, "INVOICE", 20, right=True))
    draft.line(78, Text(40, 0, _address(rng)))
    draft.line(118, Text(40, 0, f"Number: {number}"))
    draft.line(142, Text(40, 0, f"Date: {date}"))
    draft.line(182, Text(40, 0, f"Bill to: {rng.choice(_PEOPLE)}"))
    top = 236
    rows = int(rng.integers(3, 7))
    draft.line(top, Text(40, 0, "Item"), Text(300, 0, "Qty", right=True), Text(456, 0, "Amount", right=True))
    total = 0
    for row, name in enumerate(rng.permutation(_GOODS)[:rows]):
        quantity, cents = int(rng.integers(1, 20)), int(rng.integers(150, 20_000))
        total += cents
        draft.line(
            top + 28 * (row + 1),
            Text(40, 0, str(name)),
            Text(300, 0, str(quantity), right=True),
            Text(456, 0, _money(cents), right=True),
        )
    draft.rules = [(36, 460, top - 8 + 28 * line) for line in range(rows + 2)]
    draft.line(top + 28 * (rows + 1) + 10, Text(300, 0, "Total", 16, right=True), Text(456, 0, _money(total), 16, True))
    draft.line(640, Text(40, 0, "Please pay within 30 days."))
    draft.fields = {"date": date, "number": number, "rows": str(rows), "total": _money(total)}
    _maybe_stamp(draft, rng, left=300, top=110)
    return draft


def letter(rng: np.random.Generator) -> Draft:
    """Return a letter of several sentences."""
    draft = Draft()
    date, sender = _date(rng), str(rng.choice(_PEOPLE))
    draft.line(40, Text(40, 0, str(rng.choice(_COMPANIES)), 20))
    draft.line(72, Text(40, 0, _address(rng)))
    draft.line(112, Text(40, 0, f"Date: {date}"))
    draft.line(152, Text(40, 0, f"Dear {rng.choice(_PEOPLE)},"))
    y = 192
    for sentence in rng.permutation(_SENTENCES)[: rng.integers(5, 9)]:
        draft.line(y, Text(40, 0, str(sentence), 15))
        y += 28
    draft.line(y + 16, Text(40, 0, "Yours sincerely,", 15))
    draft.line(y + 48, Text(40, 0, sender, 15))
    draft.fields = {"date": date}
    _maybe_stamp(draft, rng, left=320, top=560)
    return draft


def receipt(rng: np.random.Generator) -> Draft:
    """Return a till receipt: a narrow column of goods and prices."""
    draft = Draft()
    date, left, right = _date(rng), 120, 376
    draft.line(40, Text(left, 0, str(rng.choice(_COMPANIES)), 18))
    draft.line(70, Text(left, 0, str(rng.choice(_CITIES)), 13))
    draft.line(98, Text(left, 0, f"Date: {date}", 13))
    y, total = 140, 0
    for name in rng.permutation(_GROCERIES)[: rng.integers(4, 9)]:
        cents = int(rng.integers(80, 1_500))
        total += cents
        draft.line(y, Text(left, 0, str(name), 13), Text(right, 0, _money(cents), 13, right=True))
        y += 24
    draft.line(y + 12, Text(left, 0, "Total", 16), Text(right, 0, _money(total), 16, right=True))
    draft.line(y + 52, Text(left, 0, "Thank you and goodbye!", 13))
    draft.fields = {"date": date, "total": _money(total)}
    _maybe_stamp(draft, rng, left=190, top=520)
    return draft


TEMPLATES: dict[str, Callable[[np.random.Generator], Draft]] = {
    "invoice": invoice,
    "letter": letter,
    "receipt": receipt,
}


def _maybe_stamp(draft: Draft, rng: np.random.Generator, left: int, top: int) -> None:
    if rng.uniform() < 0.6:
        word = str(rng.choice(_STAMPS))
        draft.stamp = (left + int(rng.integers(-12, 13)), top + int(rng.integers(-8, 9)), word)
        draft.fields["stamp"] = word


def _date(rng: np.random.Generator) -> str:
    return f"{rng.integers(1, 29)} {rng.choice(_MONTHS)} {rng.integers(2019, 2026)}"


def _address(rng: np.random.Generator) -> str:
    return f"{rng.integers(1, 99)} {rng.choice(_STREETS)}, {rng.choice(_CITIES)}"


def _money(cents: int) -> str:
    return f"${cents // 100}.{cents % 100:02d}"
