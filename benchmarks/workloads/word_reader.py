"""Application with a fan-out and a cascade whose operators take fixed times.

A text has any number of words, most of which a cheap reader is sure of. Operators sleep, as if waiting for an
accelerator, so that profiles and plans do not depend on the machine and its load.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from circinus import Branch
from circinus.operators import Item, operator

_MOST_WORDS = 60
_SECONDS = {"cheap": 0.012, "dear": 0.05}


@operator
def split(text: str) -> list[str]:
    """Return the words of a text."""
    time.sleep(0.01)
    return text.split()


@operator
class ReadCheap:
    """Reads words, and is sure of short ones."""

    def __init__(self, *, longest: int) -> None:
        self._longest = longest

    def process(self, words: Sequence[str]) -> list[Branch]:
        """Read word by word."""
        for word in words:
            _sleep("cheap", word)
        return [Branch("sure" if len(word) <= self._longest else "unsure", word) for word in words]


@operator
def read_dear(word: str) -> str:
    """Read a word that the cheap reader is unsure of."""
    _sleep("dear", word)
    return word


@operator
def join(words: list[str]) -> str:
    """Return the text."""
    return " ".join(words)


def texts(items: int = 400) -> list[Item]:
    """Return texts whose numbers of words have a heavy tail; some are empty."""
    rng = random.Random(27)
    found = []
    for number in range(items):
        count = 0 if rng.random() < 0.1 else min(int(rng.lognormvariate(1.6, 0.8)), _MOST_WORDS)
        text = " ".join("".join(rng.choices("abcdefgh", k=rng.randint(2, 9))) for _ in range(count))
        found.append(Item(f"text-{number:03d}", text, text))
    return found


def equal(output: str, truth: str) -> float:
    """Return 1 for a right answer, else 0."""
    return float(output == truth)


def _sleep(reader: str, word: str) -> None:
    time.sleep(_SECONDS[reader] * random.Random(word).uniform(0.6, 1.4))
