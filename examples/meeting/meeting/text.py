"""Text normalisation: one spelling for reference and recognized text before their comparison."""

from __future__ import annotations

import re
import unicodedata

_UP_TO_NINETEEN = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_WHOLE_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety"
_ONES, _TENS = _UP_TO_NINETEEN.split(), _WHOLE_TENS.split()
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
_SPELLINGS = {"ok": "okay", "mr": "mister", "mrs": "missus", "dr": "doctor"}


def normalise(text: str) -> str:
    """Return text in lower case without punctuation, and with numbers in words.

    `At 9:30, 12% of 5` becomes `at nine thirty twelve percent of five`. Numbers of a million or more stay in digits.
    """
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'").replace("e-mail", "email")
    text = re.sub(r"[^a-z0-9'$%.,:]", " ", text)
    text = re.sub(r"\$\s*([\d,]*\d)", r"\1 dollars", text)
    text = re.sub(r"%", " percent ", text)
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = re.sub(r"\b(\d{1,2})[:.]([0-5]\d)\b", _time_of_day, text)
    text = re.sub(r"\b(\d{1,6})(st|nd|rd|th)?\b", lambda match: _number(int(match[1]), ordinal=bool(match[2])), text)
    words = re.sub(r"[$.,:]", " ", text).split()
    return " ".join(_SPELLINGS.get(word.strip("'"), word) for word in words)


def _time_of_day(match: re.Match[str]) -> str:
    hours, minutes = int(match[1]), int(match[2])
    if minutes == 0:
        return f"{_number(hours)} o'clock"
    return f"{_number(hours)} {'oh ' if minutes < 10 else ''}{_number(minutes)}"


def _number(value: int, ordinal: bool = False) -> str:
    words = _cardinal(value)
    if not ordinal:
        return words
    *leading, last = words.split()
    ending = _ORDINALS.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th")
    return " ".join([*leading, ending])


def _cardinal(value: int) -> str:
    if value < 20:
        return _ONES[value]
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if value >= size:
            quotient, remainder = divmod(value, size)
            return f"{_cardinal(quotient)} {name}" + (f" {_cardinal(remainder)}" if remainder else "")
    tens, ones = divmod(value, 10)
    return _TENS[tens] + (f" {_ONES[ones]}" if ones else "")
