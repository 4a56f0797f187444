"""Betting martingales against H0: mean <= m (Waudby-Smith & Ramdas 2024)."""

from __future__ import annotations

import numpy as np

from circinus.arrays import FloatArray

UNLIMITED = 10**9
"""Population of which every sample is a negligible part, for instance requests to come."""
FRACTIONS: FloatArray = np.array([1.0, 0.75, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03, 0.015])
"""Fractions of the wealth that are bet on the score at its fair price; the largest safe bet is 1."""
PARTS: FloatArray = FRACTIONS / FRACTIONS.sum()
"""Initial wealth by fraction, more for bold bets, which pay off within few items."""


class BettingMartingales:
    """Wealth, starting from 1, of betting against each of m tested means; each extension only processes new items.

    The wealth assigned to fraction c bets the share c on the next score, at the price that is fair if the population
    has the tested mean, which without replacement is the mean of the remaining items; the rest is multiplied by side
    bets, whose mean over the remaining items is 1. The wealth is then a martingale if the mean is the tested one, and a
    supermartingale if it is smaller, so that by Ville's inequality the wealth ever reaches 1/risk with probability at
    most risk. It decreases in the tested mean.

    Fractions and fixed parts of the wealth: hedged grid-Kelly bets of Waudby-Smith & Ramdas, "Estimating means of
    bounded random variables by betting", JRSS B 86 (2024), with their section 5 for drawing without replacement.
    """

    def __init__(self, population: int, means: FloatArray) -> None:
        """Start without items.

        Args:
            population: number of all items; `UNLIMITED` makes the price constant.
            means: (m,) tested means in [0, 1].
        """
        self._population, self._means = population, means
        self._wealth: FloatArray = np.tile(PARTS[:, None], (1, len(means)))
        self.max_wealth: FloatArray = np.ones(len(means))
        """(m,) maximum wealth so far, at least the initial 1."""
        self.items = 0
        self.sums: FloatArray = np.zeros(1)
        """(1 or m,) sums of the scores."""

    def extend(self, scores: FloatArray, side_bets: FloatArray | None = None) -> None:
        """Bet on the next items.

        Args:
            scores: (1 or m, n) scores in [0, 1], uniformly at random without replacement, or for an unlimited
                population weighted scores of at least 0; one row for all means, or one sample for each.
            side_bets: (fractions, 1 or m, n) payoffs of at least 0; 1 everywhere by default.
        """
        drawn = scores.shape[1]
        if not drawn:
            return
        remaining = self._population - np.arange(self.items, self.items + drawn)
        earlier = self.sums[:, None] + (np.cumsum(scores, axis=1) - scores)
        fair = self._means[:, None]
        if self._population != UNLIMITED:
            fair = (self._population * fair - earlier) / remaining
        # Without a fair price (the mean is certainly exceeded, or only zeros remain) the bet is returned.
        payoffs = np.where(fair > 0, scores / np.maximum(fair, 1e-12), 1.0)
        unbet = (1.0 - FRACTIONS)[:, None, None]
        with np.errstate(over="ignore", invalid="ignore"):  # infinite wealth excludes; infinity times zero is ignored
            wealth = FRACTIONS[:, None, None] * payoffs
            wealth += unbet if side_bets is None else unbet * side_bets
            np.cumprod(wealth, axis=2, out=wealth)
            wealth *= self._wealth[:, :, None]
            self.max_wealth = np.fmax(self.max_wealth, np.fmax.reduce(wealth.sum(axis=0), axis=1))
        self._wealth = wealth[:, :, -1]
        self.items, self.sums = self.items + drawn, self.sums + scores.sum(axis=1)
