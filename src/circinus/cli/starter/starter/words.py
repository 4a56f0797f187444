"""Vocabulary, data set with ground truth, and metric."""

from __future__ import annotations

import random

from circinus.operators import Item

_WORDS = """
above across agenda answer arrive before begin border bridge camera carry change circle cloud colour copper
corner count decide depart device distance dollar double driver early edge engine evening explain factor
figure finger follow forest garden gather ground handle harbour height history hundred inside island journey
kitchen ladder language letter listen little machine manage market measure meeting minute mirror moment
morning mountain natural number office orange output packet paper pattern people picture placement planet
pocket queue question quick random reason record remain repeat result return river sample second section
server signal silver simple station summer supply system table thousand tower traffic travel under update
upper value verify village volume window winter wonder yellow yesterday zero
"""
VOCABULARY = tuple(_WORDS.split())


def sentences(items: int = 120, seed: int = 7) -> list[Item]:
    """Return sentences of the vocabulary with typing mistakes. The stratum is the number of mistakes in each word."""
    source = random.Random(seed)
    dataset = []
    for index in range(items):
        words = source.choices(VOCABULARY, k=source.randint(6, 12))
        mistakes = index % 3
        typed = " ".join(_mistype(word, mistakes, source) for word in words).capitalize()
        dataset.append(Item(key=f"{index:03d}", value=typed, truth=" ".join(words), strata={"mistakes": str(mistakes)}))
    return dataset


def word_accuracy(output: str, truth: str) -> float:
    """Return the fraction of correct words."""
    right = sum(a == b for a, b in zip(output.split(), truth.split(), strict=False))
    return right / len(truth.split())


def _mistype(word: str, mistakes: int, source: random.Random) -> str:
    letters = list(word)
    for _ in range(mistakes):
        place = source.randrange(len(letters))
        letters[place] = source.choice("abcdefghijklmnopqrstuvwxyz")
    return "".join(letters)
