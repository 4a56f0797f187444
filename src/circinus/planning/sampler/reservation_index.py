"""Which configuration to pursue next for one query, begun or not: on arrays alone.

Looking for the cheapest configuration that keeps the objectives is opening boxes: each costs seconds to open and holds
a plan, or none. What to open first is known (Weitzman, "Optimal search for the best alternative", Econometrica 47,
1979): the box with the least *reservation cost*, that cost of a plan in hand at which opening it just pays. A
configuration that was not begun is a box whose cost is not known either, so that its reservation cost is low where it
may turn out cheap, and high where it hardly keeps the objective or takes long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.planning.sampler.surrogate import Belief


@dataclass(frozen=True)
class StoppingRule:
    """What is too little."""

    saving: float = 0.05
    """Share of its plan's cost that a query is to save at least."""
    probability: float = 0.05
    """What saves more with at most this probability is not pursued."""
    probability_without_plan: float = 0.005
    """The same as long as there is no plan: to miss the only one costs more than to miss a cheaper one."""


_Z = 2.0
"""Standard deviations that an estimate is to be beyond a threshold until it is hardly believed to keep it."""


@dataclass(frozen=True, eq=False)
class CandidateBeliefs:
    """What is known and believed of k configurations and one query."""

    keeps: FloatArray
    """(k,) probability that a configuration keeps the accuracy objective; 0 where that is out of the question."""
    sure: BoolArray
    """(k,) surely keeps it."""
    begun: BoolArray
    """(k,) measured."""
    usd_per_h: FloatArray
    """(k, d) draws of what its cheapest plan within the limits costs; infinite: there is none."""
    look_s: FloatArray
    """(k,) seconds of a first look, after which its cost is known."""
    settle_s: FloatArray
    """(k,) seconds from then until it is known whether it keeps the objective."""


@dataclass(frozen=True)
class IndexChoice:
    """What is worth pursuing."""

    configuration: int | None
    """None: nothing."""
    probability: FloatArray
    """(k,) with which each configuration that is not sure makes the plan cheaper by more than enough."""
    least: float
    """Of such a probability that is not too little."""


def select_by_reservation_cost(prospects: CandidateBeliefs, stopping: StoppingRule, saving_s: float) -> IndexChoice:
    """The configuration with the least reservation cost, of equals the first, or none.

    Args:
        prospects: of the configurations.
        stopping: what is too little.
        saving_s: seconds that saving the share `stopping.saving` of the plan's cost is worth.
    """
    cost, keeps = prospects.usd_per_h, np.where(prospects.sure, 0.0, prospects.keeps)
    best = float(np.where(prospects.sure[:, None], cost, np.inf).min(initial=np.inf))
    has_plan = np.isfinite(best)
    cheaper = cost < (1.0 - stopping.saving) * best if has_plan else np.isfinite(cost)
    probability = keeps * cheaper.mean(axis=1)
    least = stopping.probability if has_plan else stopping.probability_without_plan
    open_ = probability > least
    if not open_.any():
        return IndexChoice(None, probability, least)
    scale = best if has_plan else float(np.min(cost[open_]))
    per_s = stopping.saving * scale / max(saving_s, 1e-9)
    index = np.full(len(keeps), np.inf)
    index[open_] = _reservation(cost[open_], keeps[open_], prospects, open_, per_s)
    return IndexChoice(int(index.argmin()), probability, least)


def _reservation(
    cost: FloatArray, keeps: FloatArray, prospects: CandidateBeliefs, among: BoolArray, usd_per_s: float
) -> FloatArray:
    """(m,) the cost z of a plan in hand at which keeps * E[max(z - cost, 0)] is what opening costs.

    Of a configuration that was not begun its cost is what settling it adds, too: looking pays only for what follows.
    """
    ordered = np.sort(cost + (usd_per_s * prospects.settle_s[among] / keeps)[:, None], axis=1)
    price = np.where(prospects.begun[among], 0.0, usd_per_s * prospects.look_s[among]) / keeps
    draws = ordered.shape[1]
    # Between two neighbouring draws the gain is linear: sum of (z - cost) over the draws below.
    with np.errstate(invalid="ignore"):
        sums = np.cumsum(ordered, axis=1)
        z = (draws * price[:, None] + sums) / np.arange(1, draws + 1)
        upper = np.concatenate([ordered[:, 1:], np.full((len(ordered), 1), np.inf)], axis=1)
    inside = np.isfinite(z) & (z <= upper)
    return np.asarray(z[np.arange(len(z)), inside.argmax(axis=1)])


def expected_items_to_decide(
    belief: Belief,
    kept: FloatArray,
    threshold: float,
    variance: float,
    score_range: float,
    risk: float,
    population: int,
) -> FloatArray:
    """(k,) items on which it is expected to be known whether configurations keep a threshold. Only a guide.

    If they do, until that is sure by Bernstein's inequality; if they do not, until it is hardly believed any more.

    Args:
        belief: of k mean scores.
        kept: (k,) probabilities that they keep the threshold.
        threshold: of the objective.
        variance: of single scores about what is predicted of them.
        score_range: greatest score less the least.
        risk: of wrongly being sure.
        population: number of all items.
    """
    margin = np.maximum(np.abs(belief.mean - threshold), belief.deviation / 2)
    sure = math.log(1 / risk) * (2 * variance / margin**2 + 2 / 3 * score_range / margin)
    unlikely = _Z**2 * variance / margin**2
    return np.asarray(kept * sure / (1 + sure / population) + (1 - kept) * unlikely / (1 + unlikely / population))
