"""Which configuration to pursue next for all queries together: on arrays alone.

What a query's best plan is depends on what the others leave of the pools, so that each of its *situations* is a search
of its own. Each says what it would pursue next; what most weight waits for, per second, comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.planning.sampler.candidate_generation import Promise
from circinus.planning.sampler.feasibility import classify_feasibility, population_size, slo_feasibility
from circinus.planning.sampler.prior_selection import MeanPrior
from circinus.planning.sampler.profile_prediction import CAUTION, ProfilePredictor
from circinus.planning.sampler.reservation_index import CandidateBeliefs, StoppingRule, select_by_reservation_cost
from circinus.profiling import PipelineProfile
from circinus.specification import Query

_LEAST_S = 1e-9
_DEAR = 2.0
"""What a plan may take where there is none yet, over the dearest measured."""


def acquisition_function(
    queries: Sequence[Query],
    weights: Sequence[float],
    known: PipelineProfile,
    prior: MeanPrior,
    predictor: ProfilePredictor,
) -> Promise:
    """The probability that a configuration keeps each query's accuracy objective, less the more seconds it takes.

    The seconds of all operators stand for the cost, which takes longer to compute; they are compared with those of the
    query's best configuration so far.
    """
    measured_of = {found.configuration: found for found in known.configurations}
    service_s = [sum(float(o.service_s.mean()) for o in found.operators.values()) for found in known.configurations]
    sure, _ = classify_feasibility(queries, list(measured_of), measured_of, population_size(known))
    best_s = np.where(sure, np.array(service_s)[:, None], np.inf).min(axis=0)
    best_s = np.maximum(np.where(np.isfinite(best_s), best_s, _DEAR * max(service_s)), _LEAST_S)

    def promise(codes: IntArray) -> FloatArray:
        belief = prior.belief(codes)
        total_s = predictor.total_service_s(codes, CAUTION)
        found = np.zeros(len(codes))
        for query, weight, incumbent_s in zip(queries, weights, best_s, strict=True):
            found += weight * slo_feasibility(belief, query.slos.accuracy) * np.exp(-total_s / incumbent_s)
        return found

    return promise


_DRAWS = 7
_NORMAL = np.array([NormalDist().inv_cdf((n + 0.5) / _DRAWS) for n in range(_DRAWS)])


@dataclass(frozen=True, eq=False)
class QueryBelief:
    """What is known and believed of k configurations and one query in s situations."""

    feasibility: FloatArray
    """(k,) probability that a configuration keeps the accuracy objective; 0 where that is out of the question."""
    sure: BoolArray
    """(k,) measured, and surely keeps it."""
    usd_per_h: FloatArray
    """(k, s) what the cheapest plan costs, in the middle of what is believed; infinite: there is none."""
    floor_usd_per_h: FloatArray
    """(k, s) what it costs at least, however little the operators take."""
    sure_usd_per_h: FloatArray
    """(k, s) cost of the cheapest plan of the sure ones; infinite for the others."""
    decision_s: FloatArray
    """(k,) seconds, after a first look, until it is known whether a configuration keeps the objective."""
    weight: float


@dataclass(frozen=True, eq=False)
class SharedInputs:
    """What is the same for all queries, of k configurations."""

    evaluated: BoolArray
    """(k,) measured."""
    spread: FloatArray
    """(k,) standard deviation of the logarithm of what plans cost beyond their floor."""
    first_evaluation_s: FloatArray
    """(k,) seconds of a first look; 0 where that was."""


@dataclass(frozen=True, eq=False)
class AcquisitionResult:
    """What is worth pursuing."""

    configuration: int | None
    """None: nothing."""
    worth_per_s: float
    """Weight of the queries that wait for it, over the seconds until they know."""
    probability: float
    """The greatest with which any configuration that was not begun makes a query's plan cheaper by more than enough."""
    pointless: tuple[BoolArray, ...]
    """For each query (k,) configurations begun of which it need not be asked whether they keep the objective."""


def select_next_configuration(
    outlooks: Sequence[QueryBelief], common: SharedInputs, stopping: StoppingRule, saving_s: float
) -> AcquisitionResult:
    """What the queries would pursue, by weight per second; of equals the first.

    Args:
        outlooks: one for each query.
        common: what is the same for all of them.
        stopping: what is too little.
        saving_s: seconds that saving the share `stopping.saving` of a plan's cost is worth.
    """
    votes = np.zeros(len(common.evaluated))
    probability, idle = 0.0, []
    draws = np.exp(common.spread[:, None] * _NORMAL)
    for outlook in outlooks:
        share = outlook.weight / outlook.usd_per_h.shape[1]
        hopeful = np.zeros(len(votes), dtype=bool)
        for situation in range(outlook.usd_per_h.shape[1]):
            drawn = np.maximum(
                outlook.usd_per_h[:, situation, None] * draws, outlook.floor_usd_per_h[:, situation, None]
            )
            prospects = CandidateBeliefs(
                keeps=outlook.feasibility,
                sure=outlook.sure,
                begun=common.evaluated,
                usd_per_h=np.where(outlook.sure[:, None], outlook.sure_usd_per_h[:, situation, None], drawn),
                look_s=common.first_evaluation_s,
                settle_s=outlook.decision_s,
            )
            found = select_by_reservation_cost(prospects, stopping, saving_s)
            hopeful |= found.probability > found.least
            unbegun = np.where(common.evaluated, 0.0, found.probability)
            probability = max(probability, float(unbegun.max(initial=0.0)))
            if found.configuration is not None:
                k = found.configuration
                votes[k] += share / max(common.first_evaluation_s[k] + outlook.decision_s[k], 1e-9)
        idle.append(common.evaluated & ~hopeful & ~_best(outlook))
    chosen = int(votes.argmax()) if votes.any() else None
    return AcquisitionResult(chosen, 0.0 if chosen is None else float(votes[chosen]), probability, tuple(idle))


def _best(outlook: QueryBelief) -> BoolArray:
    """(k,) sure ones whose plan is the cheapest in any situation."""
    best = outlook.sure_usd_per_h.min(axis=0, initial=np.inf)
    found: BoolArray = ((outlook.sure_usd_per_h <= best) & np.isfinite(best)).any(axis=1)
    return found
