"""What somebody owns who bets that a mean is greater than it is said to be."""

from __future__ import annotations

import numpy as np

from circinus.arrays import FloatArray

FRACTIONS: FloatArray = np.array([1.0, 0.75, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03, 0.015])
"""Shares of the capital that buy the score at its fair price, the greatest safe bet being 1."""
PARTS: FloatArray = FRACTIONS / FRACTIONS.sum()
"""More capital on the bold bets: it pays on the few items that one wants to get along with."""


def max_wealth(
    scores: FloatArray, population: int, means: FloatArray, side_bets: FloatArray | None = None
) -> FloatArray:
    """The most that was ever owned, from 1, by betting against each of `means`.

    Of the capital put on fraction c, the share c buys the next score at the price that is fair if the population has
    the mean that is bet against, which without replacement is the mean of what is left; the rest pays back itself
    times `side_bets`, whose mean over the items left is 1. The expected capital of tomorrow is then today's if the
    mean is the one bet against, and less if the mean is smaller, so that by Ville's inequality the capital ever
    reaches 1/risk with probability at most risk. It falls in the mean that is bet against.

    Fractions and fixed parts of the capital: hedged grid-Kelly bets of Waudby-Smith & Ramdas, "Estimating means of
    bounded random variables by betting", JRSS B 86 (2024), with their section 5 for drawing without replacement.

    Args:
        scores: (k, n) in [0, 1], uniformly at random without replacement.
        population: number of all items, at least n.
        means: (k,) in [0, 1].
        side_bets: (fractions, k, n) of at least 0; 1 everywhere by default.

    Returns:
        (k,) of at least 1, which is owned before the first item.
    """
    drawn = scores.shape[1]
    left = population - np.arange(drawn)
    fair = (population * means[:, None] - (np.cumsum(scores, axis=1) - scores)) / left
    # No price is left to buy at where the mean is exceeded for certain, or all that is left is 0: money back.
    payoff = np.where(fair > 0, scores / np.maximum(fair, 1e-12), 1.0)
    capital = np.zeros_like(scores)
    with np.errstate(over="ignore", invalid="ignore"):  # infinite capital excludes; infinity times zero is passed over
        for number, (fraction, part) in enumerate(zip(FRACTIONS, PARTS, strict=True)):
            kept = (1.0 - fraction) if side_bets is None else (1.0 - fraction) * side_bets[number]
            capital += part * np.cumprod(kept + fraction * payoff, axis=1)
    greatest: FloatArray = np.fmax.reduce(capital, axis=1, initial=1.0)
    return greatest
