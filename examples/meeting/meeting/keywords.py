"""Naming what a piece of speech is about."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from circinus.operators import operator

_STOP_TEXT = (
    "a about after again all am an and any are as at be because been before being but by can could did do does doing "
    "down for from further had has have having he her here hers him his how i if in into is it it's its just let's me "
    "more most my no nor not now of off on once one only or other our ours out over own please same she should so some "
    "somebody such than that that's the their them then there these they this those through to too under until up very "
    "was we were what when where which while who whom why will with would you your yours"
)
_STOP_WORDS = frozenset(_STOP_TEXT.split())


@dataclass(frozen=True)
class Notes:
    """What was said, and what it was about."""

    text: str
    keywords: tuple[str, ...]
    """Phrases of the text, best first."""


@operator
def keywords(text: str) -> Notes:
    """The five best phrases of `text`, and the text itself.

    Phrases are what stands between stop words; a word counts by how many words it keeps company with, relative to how
    often it occurs, and a phrase is the sum of its words (RAKE: Rose, Engel, Cramer and Cowley 2010).
    """
    phrases = _phrases(text)
    occurrences = Counter(word for phrase in phrases for word in phrase)
    company: Counter[str] = Counter()
    for phrase in phrases:
        for word in phrase:
            company[word] += len(phrase)
    scores = {phrase: sum(company[word] / occurrences[word] for word in phrase) for phrase in phrases}
    best = sorted(scores, key=lambda phrase: (-scores[phrase], phrases.index(phrase)))
    return Notes(text, tuple(" ".join(phrase) for phrase in best[:5]))


def _phrases(text: str) -> list[tuple[str, ...]]:
    phrases: list[tuple[str, ...]] = []
    for clause in re.split(r"[.,;:!?]", text.lower()):
        words: list[str] = []
        for word in [*re.findall(r"[a-z0-9'%-]+", clause), "the"]:  # a stop word ends the last phrase
            if word not in _STOP_WORDS:
                words.append(word)
            elif words:
                phrases.append(tuple(words))
                words = []
    return phrases
