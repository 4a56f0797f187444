"""Wealth of a betting test of H0: mean <= m (Waudby-Smith & Ramdas 2024)."""

from __future__ import annotations

import numpy as np

from circinus.arrays import FloatArray

FRACTIONS: FloatArray = np.array([1.0, 0.75, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03, 0.015])
"""Fractions of the wealth that are bet on the score at its fair price; the largest safe bet is 1."""
PARTS: FloatArray = FRACTIONS / FRACTIONS.sum()
"""Initial wealth by fraction, more for bold bets, which pay off within few items."""


def max_wealth(
    scores: FloatArray, population: int, means: FloatArray, side_bets: FloatArray | None = None
) -> FloatArray:
    """Return the maximum wealth so far, starting from 1, of betting against each of `means`.

    The wealth assigned to fraction c bets the share c on the next score, at the price that is fair if the population
    has the tested mean, which without replacement is the mean of the remaining items; the rest is multiplied by
    `side_bets`, whose mean over the remaining items is 1. The wealth is then a martingale if the mean is the tested
    one, and a supermartingale if it is smaller, so that by Ville's inequality the wealth ever reaches 1/risk with
    probability at most risk. It decreases in the tested mean.

    Fractions and fixed parts of the wealth: hedged grid-Kelly bets of Waudby-Smith & Ramdas, "Estimating means of
    bounded random variables by betting", JRSS B 86 (2024), with their section 5 for drawing without replacement.

    Args:
        scores: (k, n) scores in [0, 1], uniformly at random without replacement.
        population: number of all items, at least n.
        means: (k,) tested means in [0, 1].
        side_bets: (fractions, k, n) payoffs of at least 0; 1 everywhere by default.

    Returns:
        (k,) maximum wealth, at least the initial 1.
    """
    drawn = scores.shape[1]
    remaining = population - np.arange(drawn)
    fair = (population * means[:, None] - (np.cumsum(scores, axis=1) - scores)) / remaining
    # Without a fair price (the mean is certainly exceeded, or only zeros remain) the bet is returned.
    payoff = np.where(fair > 0, scores / np.maximum(fair, 1e-12), 1.0)
    wealth = np.zeros_like(scores)
    with np.errstate(over="ignore", invalid="ignore"):  # infinite wealth excludes; infinity times zero is ignored
        for index, (fraction, part) in enumerate(zip(FRACTIONS, PARTS, strict=True)):
            side = (1.0 - fraction) if side_bets is None else (1.0 - fraction) * side_bets[index]
            wealth += part * np.cumprod(side + fraction * payoff, axis=1)
    maximum: FloatArray = np.fmax.reduce(wealth, axis=1, initial=1.0)
    return maximum
