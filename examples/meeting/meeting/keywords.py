"""Operator that extracts the keywords of a text."""

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
    """Output of the pipeline: the text and its keywords."""

    text: str
    keywords: tuple[str, ...]
    """Key phrases of the text, best first."""


@operator
def keywords(text: str) -> Notes:
    """Return `text` with its five best key phrases.

    Candidate phrases are the word sequences between stop words. The score of a word is its degree (the number of words
    it co-occurs with) divided by its frequency. The score of a phrase is the sum of its words' scores (RAKE: Rose,
    Engel, Cramer and Cowley 2010).
    """
    phrases = _phrases(text)
    frequencies = Counter(word for phrase in phrases for word in phrase)
    degrees: Counter[str] = Counter()
    for phrase in phrases:
        for word in phrase:
            degrees[word] += len(phrase)
    scores = {phrase: sum(degrees[word] / frequencies[word] for word in phrase) for phrase in phrases}
    best = sorted(scores, key=lambda phrase: (-scores[phrase], phrases.index(phrase)))
    return Notes(text, tuple(" ".join(phrase) for phrase in best[:5]))


def _phrases(text: str) -> list[tuple[str, ...]]:
    phrases: list[tuple[str, ...]] = []
    for clause in re.split(r"[.,;:!?]", text.lower()):
        words: list[str] = []
        for word in [*re.findall(r"[a-z0-9'%-]+", clause), "the"]:  # a final stop word ends the last phrase
            if word not in _STOP_WORDS:
                words.append(word)
            elif words:
                phrases.append(tuple(words))
                words = []
    return phrases
