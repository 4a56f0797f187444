"""Comparison of the product with each baseline, seed by seed, at equal profiled seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness.results import Figure
from benchmarks.search.synthetic_runs import OURS, SyntheticRun

EQUAL_COST = 1.01
"""Ratio of two plans' costs up to which they count as equal."""
SIGNIFICANCE = 0.05
MOST = 0.5
"""Share of the families and sizes in which the product is to be better than every baseline."""


@dataclass(frozen=True)
class Comparison:
    """Outcomes of the product and of one baseline in a family and size, on the same seeds.

    A found plan wins over none, and of two plans the cheaper one.
    """

    family: str
    exponent: int
    baseline: str
    wins: int
    losses: int
    ties: int

    @property
    def p_value(self) -> float:
        """Two-sided sign test of wins and losses (Conover, Practical Nonparametric Statistics, 1999, section 3.4)."""
        count = self.wins + self.losses
        tail = sum(math.comb(count, k) for k in range(min(self.wins, self.losses) + 1)) / 2.0**count
        return min(2.0 * tail, 1.0)

    @property
    def is_close(self) -> bool:
        """True if the seeds are too few to tell which one is better; never if they differ nowhere."""
        return self.p_value > SIGNIFICANCE and self.wins + self.losses > 0

    @property
    def no_worse(self) -> bool:
        """True if there are at least as many wins as losses."""
        return self.wins >= self.losses

    @property
    def better(self) -> bool:
        """True if there are more wins than losses, beyond chance."""
        return self.wins > self.losses and not self.is_close

    def __str__(self) -> str:
        return f"{self.family} 10^{self.exponent} {self.baseline} {self.wins}:{self.losses}"


def comparisons(rows: Sequence[SyntheticRun]) -> list[Comparison]:
    """Return the comparison with each baseline at equal seconds, in each family and size."""
    ours = {(row.family, row.exponent, row.seed): row for row in rows if row.method == OURS}
    outcomes: dict[tuple[str, int, str], list[int]] = {}
    for row in rows:
        if row.method != OURS:
            key = row.family, row.exponent, row.method
            outcomes.setdefault(key, []).append(_outcome(ours[row.family, row.exponent, row.seed], row))
    return [Comparison(*key, signs.count(1), signs.count(-1), signs.count(0)) for key, signs in outcomes.items()]


def _outcome(ours: SyntheticRun, theirs: SyntheticRun) -> int:
    """Return 1 if the product's plan is better, -1 if the baseline's is, and 0 if they are equal."""
    if not (ours.found and theirs.found):
        return ours.found - theirs.found
    ratio = theirs.cost_over_optimum / ours.cost_over_optimum
    return (ratio > EQUAL_COST) - (ratio < 1 / EQUAL_COST)


def comparison_figures(rows: Sequence[SyntheticRun]) -> list[Figure]:
    """Return the shares of the families and sizes in which the product is no worse, and better, than every baseline."""
    cells: dict[tuple[str, int], list[Comparison]] = {}
    for comparison in comparisons(rows):
        cells.setdefault((comparison.family, comparison.exponent), []).append(comparison)
    everything = [comparison for cell in cells.values() for comparison in cell]
    worse = [comparison for comparison in everything if not comparison.no_worse]
    proven = [comparison for comparison in worse if not comparison.is_close]
    close = [comparison for comparison in everything if comparison.is_close]
    equal = [comparison for comparison in everything if comparison.wins == comparison.losses == 0]

    def share(cells_with: Sequence[bool]) -> float:
        return sum(cells_with) / len(cells_with)

    def named(selected: Sequence[Comparison]) -> str:
        return "; ".join(map(str, selected)) or "none"

    return [
        Figure("families and sizes where no baseline is better at equal seconds",
               share([all(comparison.no_worse for comparison in cell) for cell in cells.values()]), 1.0, "higher",
               "share", f"of {len(cells)}; worse, wins:losses: {named(worse)}; beyond chance: {named(proven)}"),
        Figure("families and sizes where every baseline is worse at equal seconds",
               share([all(comparison.better for comparison in cell) for cell in cells.values()]), MOST, "higher",
               "share", f"beyond chance (sign test, p <= {SIGNIFICANCE}); too close to call: {named(close)}; no "
               f"difference on any seed: {named(equal)}"),
    ]  # fmt: skip
