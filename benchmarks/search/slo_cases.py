"""Cases of searches: SLO triples from loose to just infeasible."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.search.arena import Arena
from circinus.arrays import BoolArray, FloatArray

LOOSEST = 0.9
"""Share of the achievable values that each of the loosest limits admits."""
SCATTER = 0.2
"""Deviation of the limits of a triple from the level of the triple."""
INFEASIBLE_SHARE = 0.2
STEP = 0.02
"""Share by which one limit of an infeasible triple lies beyond the best value within the other two."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Case:
    """SLOs of one query; all three must hold, at the least cost."""

    latency_s: float
    threshold: float
    """Limit of the mean score: a minimum, or a maximum where smaller scores are better."""
    cost_usd_per_h: float
    sign: float
    """1 where greater scores are better, else -1."""

    def accurate(self, means: FloatArray) -> BoolArray:
        """Return whether means keep the threshold."""
        return np.asarray(self.sign * means >= self.sign * self.threshold)

    def affordable(self, latency_s: FloatArray, cost_usd_per_h: FloatArray) -> BoolArray:
        """Return whether latency and cost keep their limits; NaN (unknown) and infinite values (no memory) do not."""
        within = (latency_s <= self.latency_s) & (cost_usd_per_h <= self.cost_usd_per_h)
        return np.asarray(within & np.isfinite(latency_s))

    def feasible(self, arena: Arena) -> BoolArray:
        """Return (k, p) whether plans keep all three SLOs in truth."""
        return self.accurate(arena.means)[:, None] & self.affordable(arena.latency_s, arena.cost_usd_per_h)

    def optimum_usd_per_h(self, arena: Arena) -> float:
        """Return the least cost of a feasible plan, infinite without one."""
        return float(np.where(self.feasible(arena), arena.cost_usd_per_h, np.inf).min())


def cases(arena: Arena, rng: np.random.Generator, count: int = 40) -> tuple[Case, ...]:
    """Return triples from loose to tight, the last fifth of them just infeasible.

    The threshold of a feasible triple is a quantile of the distinct means of configurations that fit somewhere, the
    latency limit a quantile of the plans that keep the threshold, and the cost limit a quantile of the plans that keep
    both. Infeasible triples start as tight ones; then one limit, of each kind in turn, is set `STEP` beyond the best
    value within the other two.

    Args:
        arena: drawn arena, whose true means are used.
        rng: draws the deviation of each limit from the level of its triple.
        count: number of triples.
    """
    infeasible = round(count * INFEASIBLE_SHARE)
    levels = np.linspace(LOOSEST, 0.0, count - infeasible)
    triples = [_at(arena, _scattered(level, rng)) for level in levels]
    for number in range(infeasible):
        level = SCATTER * (1.0 - number / infeasible)
        triples.append(_beyond(arena, _at(arena, _scattered(level, rng)), kind=number % 3))
    return tuple(triples)


def _scattered(level: float, rng: np.random.Generator) -> FloatArray:
    return np.asarray(np.clip(level + rng.uniform(-SCATTER, SCATTER, 3), 0.0, 1.0))


def _at(arena: Arena, levels: FloatArray) -> Case:
    """Return the triple of three levels from 0 (tightest) to 1 (everything passes)."""
    sign, placeable = arena.space.sign, arena.space.fits
    # Rounded, so that configurations that differ only by a knob without effect count once.
    achieved = np.unique(np.round(arena.means[placeable.any(axis=1)], 9))
    threshold = sign * float(np.quantile(sign * achieved, 1.0 - levels[0])) - sign * _ROUNDING
    case = Case(np.inf, threshold, np.inf, sign)
    latency_s = float(np.quantile(arena.latency_s[case.feasible(arena)], levels[1]))
    case = replace(case, latency_s=latency_s)
    cost = float(np.quantile(arena.cost_usd_per_h[case.feasible(arena)], levels[2]))
    return replace(case, cost_usd_per_h=cost)


def _beyond(arena: Arena, case: Case, kind: int) -> Case:
    """Make a triple infeasible by a step: kind 0 in latency, 1 in accuracy, 2 in cost."""
    sign = case.sign
    if kind == 0:
        within = replace(case, latency_s=np.inf).feasible(arena)
        return replace(case, latency_s=(1 - STEP) * float(arena.latency_s[within].min()))
    if kind == 1:
        affordable = case.affordable(arena.latency_s, arena.cost_usd_per_h).any(axis=1)
        best = sign * float((sign * arena.means[affordable]).max())
        return replace(case, threshold=best + sign * STEP * abs(best))
    within = replace(case, cost_usd_per_h=np.inf).feasible(arena)
    return replace(case, cost_usd_per_h=(1 - STEP) * float(arena.cost_usd_per_h[within].min()))
