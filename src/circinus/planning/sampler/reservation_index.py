"""Selection of the next configuration for one query, measured or not, on arrays.

The search for the cheapest configuration that meets the SLOs is a problem of opening boxes: each takes seconds to open
and contains a plan, or none. The optimal order is known (Weitzman, "Optimal search for the best alternative",
Econometrica 47, 1979): the box with the lowest *reservation cost* first, the cost of a plan in hand at which opening
just breaks even. An unmeasured configuration is a box of unknown cost: its reservation cost is low if it may turn out
cheap, and high if it is unlikely to meet the SLO or takes long.

Without a plan in hand the query is not served, whatever a plan costs: the box that is expected to contain a plan
soonest comes first. In spaces too large to list it is the most probable one (`Pursuit`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.planning.sampler.surrogate import Belief
from circinus.statistics.mean_decision import items_until_decided


@dataclass(frozen=True)
class StoppingRule:
    """Thresholds from which a measurement is worthwhile."""

    saving: float = 0.05
    """Minimum saving as a share of the cost of a query's plan."""
    probability: float = 0.05
    """Probability of the minimum saving from which a measurement is worthwhile."""
    probability_without_plan: float = 0.005
    """The same for a query without a plan in a situation; missing its only plan costs more than missing a cheaper one.
    """
    probability_of_first_plan: float = 0.005
    """The same for a query without a plan in any situation."""
    expected_saving_share: float = 0.15
    """Expected saving from which one is worthwhile, as a share of `saving`: an improbable plan may save much."""

    @property
    def min_feasibility(self) -> float:
        """Probability of meeting the accuracy SLO up to which no measurement is worthwhile, whatever the plan costs."""
        without_plan = min(self.probability_without_plan, self.probability_of_first_plan)
        return min(self.probability, without_plan, self.expected_saving_share * self.saving)


class Pursuit(Enum):
    """Order in which a query pursues configurations; with a plan, those of `MOST_PROBABLE` and `SOONEST` are the same.

    Listed configurations come by probability of a first plan per second. In a space too large to list there are always
    further configurations that are improbable and soon rejected. They have the most probability per second, but are
    not independent: the few measured items may be easier or harder than all items.
    """

    SOONEST = "soonest"
    """By probability of a first plan per second."""
    MOST_PROBABLE = "most probable"
    """By probability of a first plan."""
    SETTLE = "settle"
    """As `MOST_PROBABLE`, but the measured configurations first, also for a cheaper plan."""


_SIMILAR = 0.8
"""Share of the highest probability from which a cheaper configuration that is decided sooner comes first."""
_Z = 2.0
"""Standard deviations beyond a threshold at which an estimate is considered decided."""


@dataclass(frozen=True, eq=False)
class CandidateBeliefs:
    """Measurements and predictions of k configurations for one query."""

    feasibility: FloatArray
    """(k,) probability of meeting the accuracy SLO; 0 if excluded."""
    is_certain: BoolArray
    """(k,) whether the configuration certainly meets the accuracy SLO."""
    is_measured: BoolArray
    """(k,) whether the configuration is measured."""
    look_s: FloatArray
    """(k,) seconds up to the first checkpoint, which reveals the cost; 0 if measured."""
    settle_s: FloatArray
    """(k,) seconds after the first checkpoint until the accuracy SLO is decided."""

    @property
    def decision_s(self) -> FloatArray:
        """(k,) seconds until the accuracy SLO is decided."""
        return np.maximum(np.where(self.is_measured, 0.0, self.look_s) + self.settle_s, 1e-9)


@dataclass(frozen=True)
class IndexChoice:
    """Selected configuration and its statistics."""

    configuration: int | None
    """Index of the configuration, or None if none is worthwhile."""
    probability: FloatArray
    """(k,) probability that a configuration, not certain yet, makes the plan cheaper by more than the minimum saving.
    """
    is_worthwhile: BoolArray
    """(k,) whether measuring a configuration is worthwhile."""
    gain: FloatArray
    """(k,) expected gain: the probability of a first plan, or the share of the cost saved."""


def select_configuration(
    candidates: CandidateBeliefs,
    usd_per_h: FloatArray,
    stopping: StoppingRule,
    saving_s: float,
    pursuit: Pursuit = Pursuit.SOONEST,
) -> IndexChoice:
    """Return the configuration to measure next: of the soonest first plan, or then of the lowest reservation cost.

    Of equal ones it is the first; there is none if no measurement is worthwhile.

    Args:
        candidates: measurements and predictions of k configurations.
        usd_per_h: (k, d) draws of the cost of the cheapest plan within the limits; infinite without a plan.
        stopping: thresholds.
        saving_s: seconds that a saving of `stopping.saving` of the plan's cost is worth.
        pursuit: order without a plan.
    """
    feasibility = np.where(candidates.is_certain, 0.0, candidates.feasibility)
    best = float(np.where(candidates.is_certain[:, None], usd_per_h, np.inf).min(initial=np.inf))
    if np.isfinite(best):
        return _select_cheapest(candidates, feasibility, usd_per_h, best, stopping, saving_s, pursuit)
    probability = feasibility * np.isfinite(usd_per_h).mean(axis=1)
    is_worthwhile = probability > stopping.probability_without_plan
    if not is_worthwhile.any():
        return IndexChoice(None, probability, is_worthwhile, probability)
    value = probability / candidates.decision_s
    if pursuit is Pursuit.SOONEST:
        return IndexChoice(_first(value, is_worthwhile), probability, is_worthwhile, probability)
    begun = candidates.is_measured & (probability > stopping.probability)
    eligible = begun if pursuit is Pursuit.SETTLE and begun.any() else is_worthwhile
    similar = eligible & (probability >= _SIMILAR * probability[eligible].max())
    value = value / np.maximum(usd_per_h.min(axis=1), 1e-12)
    return IndexChoice(_first(value, similar), probability, is_worthwhile, probability)


def _first(value: FloatArray, eligible: BoolArray) -> int:
    """Return the index of the highest (k,) value of the eligible ones."""
    return int(np.where(eligible, value, -np.inf).argmax())


def _select_cheapest(
    candidates: CandidateBeliefs,
    feasibility: FloatArray,
    cost: FloatArray,
    best: float,
    stopping: StoppingRule,
    saving_s: float,
    pursuit: Pursuit,
) -> IndexChoice:
    """Return the configuration with the lowest reservation cost where a plan in hand costs `best`."""
    is_cheaper = cost < (1.0 - stopping.saving) * best
    probability = feasibility * is_cheaper.mean(axis=1)
    gain = feasibility * np.where(is_cheaper, best - cost, 0.0).mean(axis=1) / max(best, 1e-12)
    is_worthwhile = (probability > stopping.probability) | (gain > stopping.expected_saving_share * stopping.saving)
    if not is_worthwhile.any():
        return IndexChoice(None, probability, is_worthwhile, gain)
    eligible, begun = is_worthwhile, is_worthwhile & candidates.is_measured
    if pursuit is Pursuit.SETTLE and begun.any():
        eligible = begun
    per_s = stopping.saving * best / max(saving_s, 1e-9)
    index = np.full(len(feasibility), np.inf)
    index[eligible] = _reservation(cost[eligible], feasibility[eligible], candidates, eligible, per_s)
    return IndexChoice(int(index.argmin()), probability, is_worthwhile, gain)


def _reservation(
    cost: FloatArray, feasibility: FloatArray, candidates: CandidateBeliefs, among: BoolArray, usd_per_s: float
) -> FloatArray:
    """Return (m,) reservation costs z, at which feasibility * E[max(z - cost, 0)] equals the cost of opening.

    The cost of an unmeasured configuration includes the time to decide it: the first checkpoint pays only through what
    follows.
    """
    ordered = np.sort(cost + (usd_per_s * candidates.settle_s[among] / feasibility)[:, None], axis=1)
    price = np.where(candidates.is_measured[among], 0.0, usd_per_s * candidates.look_s[among]) / feasibility
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
    feasibility: FloatArray,
    threshold: float,
    variance: float,
    score_range: float,
    risk: float,
    population: int,
) -> FloatArray:
    """Return (k,) expected numbers of items until configurations are decided at a threshold, as a guide only.

    A configuration that meets the threshold is decided by its bound, one that misses it when it becomes improbable.

    Args:
        belief: belief of k mean scores.
        feasibility: (k,) probabilities of meeting the threshold.
        threshold: threshold of the SLO.
        variance: variance of single scores around their prediction.
        score_range: greatest score minus the least.
        risk: risk of a wrong decision.
        population: number of items of the population that mean scores are of.
    """
    margin = np.maximum(np.abs(belief.mean - threshold), belief.deviation / 2)
    improbable_items = _Z**2 * variance / margin**2
    return np.asarray(
        feasibility * items_until_decided(margin, variance, score_range, risk, population)
        + (1 - feasibility) * improbable_items / (1 + improbable_items / population)
    )
