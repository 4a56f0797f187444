"""Format of number plates: two letters, two digits, three letters."""

from __future__ import annotations

FORMAT = "AA99AAA"

_AS_LETTER = str.maketrans("01245678IOQ", "DLZASGTBLDD")
_AS_DIGIT = str.maketrans("ABDGILOQSTZ", "48061100572")
"""Characters that look alike: the format decides which of them is meant."""


def in_format(text: str) -> str | None:
    """Return the plate that `text` stands for, with look-alikes replaced, or None if it does not have the format."""
    if len(text) != len(FORMAT):
        return None
    pairs = zip(text, FORMAT, strict=True)
    plate = "".join(character.translate(_AS_LETTER if kind == "A" else _AS_DIGIT) for character, kind in pairs)
    fits = all(character.isalpha() == (kind == "A") for character, kind in zip(plate, FORMAT, strict=True))
    return plate if fits else None
