"""Operators: a function processes one item; a class loads its resources once per replica and processes batches."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from circinus.operators import operator
from starter.words import VOCABULARY


@operator
def clean(text: str, *, lower: bool) -> list[str]:
    """Split a text into words, in lower case if the knob `lower` is set."""
    return (text.lower() if lower else text).split()


@operator
class Correct:
    """Spelling correction with the nearest word of the vocabulary. The knobs trade time for accuracy."""

    def __init__(self, *, method: str, effort: int = 1) -> None:
        """Load the vocabulary. `first-letter` searches only words with the same initial letter, `all` every word."""
        self._by_letter: dict[str, list[str]] = {}
        for word in VOCABULARY:
            self._by_letter.setdefault(word[0] if method == "first-letter" else "", []).append(word)
        self._method = method
        self._cutoff = {1: 0.8, 2: 0.5}[effort]

    def process(self, texts: Sequence[list[str]]) -> list[str]:
        """Correct a batch of word lists."""
        return [" ".join(self._correct(word) for word in words) for words in texts]

    def _correct(self, word: str) -> str:
        candidates = self._by_letter.get(word[0] if self._method == "first-letter" else "", [])
        near = difflib.get_close_matches(word, candidates, n=1, cutoff=self._cutoff)
        return near[0] if near else word
