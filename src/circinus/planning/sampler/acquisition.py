"""Selection of the next configuration for all queries together, on arrays.

A query's best plan depends on what other queries leave of pools and links, so each of its *situations* is a search of
its own. Each search votes for the configuration that it would measure next, by the weight of the query and the expected
gain: a first plan counts whole, a cheaper one by the share of the cost that it saves. The configuration with the most
votes per second wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.planning.sampler.candidate_generation import CodeScore
from circinus.planning.sampler.feasibility import classify_feasibility, slo_feasibility
from circinus.planning.sampler.prior_selection import MeanPrior
from circinus.planning.sampler.profile_prediction import CAUTION, ProfilePredictor
from circinus.planning.sampler.reservation_index import CandidateBeliefs, Pursuit, StoppingRule, select_configuration
from circinus.profiling import MIN_ITEMS, PipelineProfile
from circinus.specification import KnobValues, Query

_MIN_S = 1e-9
_DEFAULT_SLOWDOWN = 2.0
"""Reference service time without a plan, as a multiple of the slowest measured configuration's."""


def acquisition_function(
    queries: Sequence[Query],
    weights: Sequence[float],
    profile: PipelineProfile,
    prior: MeanPrior,
    predictor: ProfilePredictor,
) -> CodeScore:
    """Return a function that scores codes: weighted SLO probabilities, discounted by service time.

    The service time of all operators stands in for the cost, which is slower to compute; it is relative to that of the
    query's best configuration so far.
    """
    measured_of = {measured.configuration: measured for measured in profile.configurations}
    service_s = [measured.mean_service_s for measured in profile.configurations]
    certain, _ = classify_feasibility(queries, list(measured_of), measured_of, profile.population)
    best_s = np.where(certain, np.array(service_s)[:, None], np.inf).min(axis=0)
    best_s = np.maximum(np.where(np.isfinite(best_s), best_s, _DEFAULT_SLOWDOWN * max(service_s)), _MIN_S)

    def score(codes: IntArray) -> FloatArray:
        belief = prior.belief(codes)
        total_s = predictor.total_service_s(codes, CAUTION)
        scores = np.zeros(len(codes))
        for query, weight, incumbent_s in zip(queries, weights, best_s, strict=True):
            scores += weight * slo_feasibility(belief, query.slos.accuracy) * np.exp(-total_s / incumbent_s)
        return scores

    return score


_DRAWS = 7
_NORMAL = np.array([NormalDist().inv_cdf((n + 0.5) / _DRAWS) for n in range(_DRAWS)])


@dataclass(frozen=True, eq=False)
class QueryBelief(CandidateBeliefs):
    """Measurements and predictions of k configurations for one query in s situations."""

    usd_per_h: FloatArray
    """(k, s) median cost of the cheapest plan; infinite without a plan."""
    log_std: FloatArray
    """(k,) standard deviation of the log cost above the floor."""
    floor_usd_per_h: FloatArray
    """(k, s) minimum cost of a plan, regardless of the service times."""
    certain_usd_per_h: FloatArray
    """(k, s) cost of the cheapest plan of certain configurations; infinite for the other configurations."""
    weight: float

    @property
    def has_plan(self) -> bool:
        """True if a certain configuration has a plan in any situation."""
        return bool(np.isfinite(self.certain_usd_per_h).any())

    def is_hopeless(self, probability: float) -> bool:
        """Return whether there is no plan, and no configuration yields one with more than a probability."""
        possible = self.feasibility[:, None] * np.isfinite(self.usd_per_h)
        return not self.has_plan and not (possible > probability).any()


@dataclass(frozen=True, eq=False)
class AcquisitionResult:
    """Selected configurations and stopping statistics."""

    ranking: IntArray
    """Indexes of the worthwhile configurations, those with the most votes first."""
    value_per_s: FloatArray
    """(k,) expected gain of a configuration by the weight of the queries that vote for it, per second until it is
    decided."""
    probability: float
    """Maximum probability that an unmeasured configuration makes a query's plan cheaper by more than the minimum
    saving."""
    pruned: tuple[BoolArray, ...]
    """(k,) measured configurations whose accuracy SLO need not be decided, by query."""


def select_next_configuration(
    beliefs: Sequence[QueryBelief], stopping: StoppingRule, saving_s: float, pursuit: Pursuit = Pursuit.SOONEST
) -> AcquisitionResult:
    """Return the configurations by gain per second; of equal ones the first, and the largest gain where none votes.

    A saving of `stopping.saving` of a plan's cost is worth `saving_s`. Queries without a plan follow `pursuit`.
    """
    votes, chances = np.zeros((2, len(beliefs[0].is_measured)))
    probability, pruned = 0.0, []
    for belief in beliefs:
        draws = np.exp(belief.log_std[:, None] * _NORMAL)
        share = belief.weight / belief.usd_per_h.shape[1]
        promising = np.zeros(len(votes), dtype=bool)
        rule = stopping
        if not belief.has_plan:
            rule = replace(stopping, probability_without_plan=stopping.probability_of_first_plan)
        for situation in range(belief.usd_per_h.shape[1]):
            drawn = np.maximum(belief.usd_per_h[:, situation, None] * draws, belief.floor_usd_per_h[:, situation, None])
            cost = np.where(belief.is_certain[:, None], belief.certain_usd_per_h[:, situation, None], drawn)
            choice = select_configuration(belief, cost, rule, saving_s, pursuit)
            promising |= choice.is_worthwhile
            chances += np.where(choice.is_worthwhile, share * choice.gain, 0.0)
            unmeasured = np.where(belief.is_measured, 0.0, choice.probability)
            probability = max(probability, float(unmeasured.max(initial=0.0)))
            if choice.configuration is not None:
                k = choice.configuration
                votes[k] += share * choice.gain[k] / belief.decision_s[k]
        pruned.append(belief.is_measured & ~promising & ~_best(belief))
    ranking = np.lexsort((np.where(votes > 0, 0.0, -chances), -votes))
    ranking = ranking[(votes[ranking] > 0) | (chances[ranking] > 0)]
    return AcquisitionResult(ranking, votes, probability, tuple(pruned))


def _best(belief: QueryBelief) -> BoolArray:
    """Return (k,) certain configurations whose plan is the cheapest in any situation."""
    best = belief.certain_usd_per_h.min(axis=0, initial=np.inf)
    cheapest: BoolArray = ((belief.certain_usd_per_h <= best) & np.isfinite(best)).any(axis=1)
    return cheapest


def settling_share(profile: PipelineProfile) -> float:
    """Return the share of the time that was spent on more than a first look at configurations.

    A first look includes the start of replicas.
    """
    first_items = min(MIN_ITEMS, profile.population)
    looks_s, settling_s = 0.0, 0.0
    starts_s: dict[tuple[str, KnobValues], float] = {}
    for measured in profile.configurations:
        item_s, further_items = measured.mean_service_s, max(len(measured.items) - first_items, 0)
        looks_s += item_s * (len(measured.items) - further_items)
        settling_s += item_s * further_items
        starts_s |= {(name, measured.configuration[name]): o.startup_s or 0.0 for name, o in measured.operators.items()}
    return float(settling_s / max(settling_s + looks_s + sum(starts_s.values()), 1e-9))
