"""Choosing which configurations to measure at all, for all queries on a pipeline together."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.planning.sampler.acquisition import (
    AcquisitionResult,
    QueryBelief,
    SharedInputs,
    acquisition_function,
    select_next_configuration,
)
from circinus.planning.sampler.candidate_generation import candidates
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.expected_costs import ExpectedCosts
from circinus.planning.sampler.feasibility import awaiting_plan, classify_feasibility, population_size, slo_feasibility
from circinus.planning.sampler.initial_design import covering_array, covering_design
from circinus.planning.sampler.mean_estimation import estimate_mean_scores
from circinus.planning.sampler.plan_costs import PlanCostCache, min_plan_costs
from circinus.planning.sampler.prior_selection import MeanPrior
from circinus.planning.sampler.profile_prediction import ProfilePredictor
from circinus.planning.sampler.reservation_index import StoppingRule, expected_items_to_decide
from circinus.planning.sampler.surrogate import Belief
from circinus.planning.sampler.transfer_learning import TransferSources, missing_from_design, warm_start_design
from circinus.profiling import (
    MIN_ITEMS,
    ConfigurationProfile,
    PipelineProfile,
    SamplerDecision,
    SloRequirement,
    StoppingCertificate,
    Suggestion,
)
from circinus.profiling.confidence_sequences import per_sequence_alpha
from circinus.profiling.race.configuration_order import max_measured_configurations
from circinus.profiling.race.sampler import Seconds
from circinus.profiling.race.slo_requirements import distribution_free_sample_size
from circinus.profiling.store.transfer_sources import SourceScores
from circinus.specification import Configuration, Network, Query, Specification

_DEFAULT = StoppingRule()
MAX_ENUMERATED = 600
"""Configurations up to which all are looked at in every step."""
_TRIED = 32
"""Configurations at random that are tried where all others failed."""
_CANDIDATES = 256
"""Configurations that are looked at besides those measured where there are more."""


class PlanCostSampler:
    """Measures what most likely makes plans cheaper, per second.

    Of accuracies it believes what a Gaussian process over the knobs says of those measured; what plans cost it computes
    from the profiles of operators, measured or predicted. Each query pursues what has the least reservation cost, begun
    or not, and what most weight waits for comes first (`pursue_together`). It follows from what is known alone.

    Every configuration is looked at where they can be listed, else the most promising ones.
    """

    def __init__(self, specification: Specification, pipeline_name: str, stopping: StoppingRule = _DEFAULT) -> None:
        """Prepare for the queries on a pipeline.

        Args:
            specification: with an infrastructure and at least one query on the pipeline.
            pipeline_name: which pipeline.
            stopping: when to stop.

        Raises:
            ValueError: there is no infrastructure or no query.
        """
        queries = tuple(query for query in specification.queries if query.pipeline == pipeline_name)
        if specification.infrastructure is None or not queries:
            raise ValueError(f"pipeline {pipeline_name}: found no infrastructure or no query, expected both")
        self._pipeline = specification.pipelines[pipeline_name]
        self._network = Network(specification.infrastructure)
        self._queries, self._weights = _alike(queries)
        self._space = ConfigurationSpace.of(self._pipeline)
        self._elsewhere = TransferSources(self._pipeline, self._space)
        self._predictor = ProfilePredictor(self._pipeline, self._space)
        self._stopping = stopping
        self._least = min(self._space.size, len(self._space.columns) + 2)
        self._everything = self._space.enumerate() if self._space.size <= MAX_ENUMERATED else None
        self._prepare_costs()

    def initial_design(self, earlier: Sequence[SourceScores] = ()) -> Sequence[Configuration]:
        """Configurations to begin with: those that seem best elsewhere, else every choice of every knob at least once.

        Args:
            earlier: what was scored elsewhere; `assess` uses it too.
        """
        self._elsewhere = TransferSources(self._pipeline, self._space, tuple(earlier))
        self._predictor = ProfilePredictor(self._pipeline, self._space, self._elsewhere.operators)
        self._prepare_costs()
        return self._best_elsewhere() or self._every_choice

    def _prepare_costs(self) -> None:
        self._sure_costs = PlanCostCache(self._pipeline, self._queries, self._network)
        self._expected_costs = ExpectedCosts(self._pipeline, self._queries, self._network, self._predictor)

    @cached_property
    def _every_choice(self) -> tuple[Configuration, ...]:
        return self._space.decode(covering_array(self._space))

    def _best_elsewhere(self) -> tuple[Configuration, ...]:
        """By scores and costs of the source that has most; none where that says nothing of what plans cost."""
        profile, none = self._elsewhere.profile(), np.zeros(0)
        if profile is None:
            return ()
        scored = self._space.encode([found.configuration for found in profile.configurations])
        codes = scored if self._everything is None else self._everything
        before = self._elsewhere.prior(codes[:0], none, none, codes)
        predictor = ProfilePredictor(self._pipeline, self._space)
        if before.candidates is None or not predictor.learn(profile):
            return ()
        listed = self._space.decode(codes)
        costs = min_plan_costs(self._pipeline, self._queries, predictor.predict(profile, listed), self._network, listed)
        rows = warm_start_design(before.candidates, costs, [query.slos.accuracy for query in self._queries])
        return tuple(listed[row] for row in rows)

    def suggest(self, known: PipelineProfile, seconds: Seconds) -> SamplerDecision:
        """What is worth measuring; see `Explorer`."""
        if not self._predictor.learn(known):
            return self._begin(known, seconds)
        measured_of = {found.configuration: found for found in known.configurations}
        failed = {failure.configuration for failure in known.failed}
        prior, common_variance = self._learnt(known)
        codes = self._looked_at(known, prior)
        listed = self._space.decode(codes)
        belief = prior.belief(codes)
        belief = replace(belief, deviation=np.sqrt(belief.deviation**2 + common_variance))
        begun = np.array([c in measured_of for c in listed], dtype=bool)
        outlooks, among = self._outlooks(known, listed, belief, begun, seconds)
        stopping = self._stopping
        if len(measured_of) < self._least:
            stopping = replace(
                stopping, probability_without_plan=0.0
            )  # too little is known to say that a query has no plan
        saving_s = population_size(known) * float(np.median([_item_s(found) for found in known.configurations]))
        joint = select_next_configuration(outlooks, among, stopping, saving_s)
        while self._made_exact(joint, known, listed, begun):
            expected = self._expected_costs.of(known, listed)
            costs = zip(expected.usd_per_h, expected.floor_usd_per_h, strict=True)
            outlooks = [
                replace(outlook, usd_per_h=usd_per_h, floor_usd_per_h=floor_usd_per_h)
                for outlook, (usd_per_h, floor_usd_per_h) in zip(outlooks, costs, strict=True)
            ]
            joint = select_next_configuration(outlooks, among, stopping, saving_s)
        found = None if joint.configuration is None else listed[joint.configuration]
        worth_per_s, every_choice = joint.worth_per_s, self._owed(prior, {*measured_of, *failed}, seconds)
        if every_choice is not None:
            found, worth_per_s = every_choice, math.inf
        # What cannot be measured any more may be better for all one knows.
        unmeasurable = any(math.isinf(seconds(c, 1)) and c not in failed for c in listed if c not in measured_of)
        certificate = StoppingCertificate(
            unmeasured=known.unmeasured,
            considered=sum(c not in measured_of and c not in failed for c in listed),
            probability=joint.probability,
            saving=stopping.saving,
            conclusive=found is None and len(known.usable) == len(known.configurations) and not unmeasurable,
            next=found if found not in measured_of else None,
            prior=prior.reason if self._elsewhere.sources else "",
        )
        idle = self._pointless(joint, listed, {found.configuration for found in known.usable})
        return SamplerDecision(None if found is None else Suggestion(found, worth_per_s), certificate, idle)

    def _outlooks(
        self,
        known: PipelineProfile,
        listed: Sequence[Configuration],
        belief: Belief,
        begun: BoolArray,
        seconds: Seconds,
    ) -> tuple[list[QueryBelief], SharedInputs]:
        """What each query may expect of each configuration."""
        measured_of = {found.configuration: found for found in known.configurations}
        population, first = population_size(known), min(MIN_ITEMS, population_size(known))
        sure, out = classify_feasibility(self._queries, listed, measured_of, population)
        expected = self._expected_costs.of(known, listed)
        exact = self._sure_costs.of(known, listed, sure)
        waiting = awaiting_plan(self._queries, listed, measured_of, sure, exact, population)
        planless = sure & ~np.array([np.isfinite(costs).any(axis=1) for costs in exact]).T
        sure, out = sure & ~planless, out | planless & ~waiting
        look_s = np.array([0.0 if b else seconds(c, first) for c, b in zip(listed, begun, strict=True)])
        item_s = np.array([seconds(c, population + 1) - seconds(c, population) for c in listed])
        items = np.array([len(measured_of[c].items) if c in measured_of else first for c in listed])
        closed = np.isinf(look_s) | ~np.isfinite(item_s)
        low, high = self._pipeline.metric.range
        variance = float(np.median([_variance(found.scores, high - low) for found in known.configurations]))
        risk = per_sequence_alpha(known.risk, max_measured_configurations(self._pipeline))
        found = []
        for q, query in enumerate(self._queries):
            slo = query.slos.accuracy
            kept = np.where(closed | out[:, q], 0.0, slo_feasibility(belief, slo))
            if slo is None:
                settled = np.full(len(listed), float(first))
            else:
                with np.errstate(divide="ignore", invalid="ignore"):
                    settled = expected_items_to_decide(
                        belief, kept, slo.threshold, variance, high - low, risk, population
                    )
            certain = min(distribution_free_sample_size(query), population)
            settled, kept = np.where(waiting[:, q], certain, settled), np.where(waiting[:, q] & ~closed, 1.0, kept)
            more = np.clip(np.ceil(settled) - items, 1.0, population)
            settle_s = np.where(closed, np.inf, item_s * more)
            found.append(
                QueryBelief(
                    feasibility=kept,
                    sure=sure[:, q],
                    usd_per_h=expected.usd_per_h[q],
                    floor_usd_per_h=expected.floor_usd_per_h[q],
                    sure_usd_per_h=exact[q],
                    decision_s=settle_s,
                    weight=self._weights[q],
                )
            )
        return found, SharedInputs(begun, expected.spread, look_s)

    def _made_exact(
        self, joint: AcquisitionResult, known: PipelineProfile, listed: Sequence[Configuration], begun: BoolArray
    ) -> bool:
        """Whether what is pursued, if it was begun, costs something else than it seemed."""
        chosen = joint.configuration
        return chosen is not None and bool(begun[chosen]) and self._expected_costs.refine(known, listed[chosen])

    def _begin(self, known: PipelineProfile, seconds: Seconds) -> SamplerDecision:
        """Nothing can be said of anything.

        Where nothing that was tried can be measured, others are: such as have all knob values of every operator between
        them, or some at random where there are too many to list.
        """
        failed = {failure.configuration for failure in known.failed}
        found = None
        if not known.configurations:
            if self._everything is None:
                others = self._space.decode(self._space.random(np.random.default_rng(0), _TRIED))
            else:
                others = covering_design(self._space.decode(self._everything))
            found = next((c for c in others if c not in failed and math.isfinite(seconds(c, 1))), None)
        certificate = StoppingCertificate(
            known.unmeasured, 0, None, self._stopping.saving, conclusive=False, next=found
        )
        return SamplerDecision(None if found is None else Suggestion(found, 1.0), certificate, {})

    def _owed(self, prior: MeanPrior, known: Collection[Configuration], seconds: Seconds) -> Configuration | None:
        """Where all sources were dropped: what would have been measured first without any."""
        if prior.name is not None or not self._elsewhere.sources:
            return None
        return missing_from_design([found for found in self._every_choice if math.isfinite(seconds(found, 1))], known)

    def _learnt(self, known: PipelineProfile) -> tuple[MeanPrior, float]:
        """What the scores measured say of mean scores; and the variance of what all have in common."""
        low, high = self._pipeline.metric.range
        population = known.dataset_items - known.held_out_items
        evidence = estimate_mean_scores([found.scores for found in known.configurations], population, high - low)
        codes = self._space.encode([found.configuration for found in known.configurations])
        prior = self._elsewhere.prior(
            codes, evidence.means, evidence.variances, codes, additive=self._everything is None
        )
        return prior, evidence.common_variance

    def _looked_at(self, known: PipelineProfile, prior: MeanPrior) -> IntArray:
        """(k, d) all codes, or those measured and the most promising ones."""
        if self._everything is not None:
            return self._everything
        measured = self._space.encode([found.configuration for found in known.configurations])
        failed = self._space.encode([failure.configuration for failure in known.failed])
        promise = acquisition_function(self._queries, self._weights, known, prior, self._predictor)
        rng = np.random.default_rng(len(measured))
        promising = candidates(
            self._space, prior.fits[None], measured, _CANDIDATES, rng, promise=promise, without=failed
        )
        return np.concatenate([measured, promising])

    def _pointless(
        self, joint: AcquisitionResult, listed: Sequence[Configuration], usable: Collection[Configuration]
    ) -> dict[SloRequirement, frozenset[Configuration]]:
        """An objective is pointless to ask where it is for every query behind it; not of what is known on few items."""
        found: dict[SloRequirement, frozenset[Configuration]] = {}
        for query, idle in zip(self._queries, joint.pointless, strict=True):
            objective = SloRequirement(query.slos.accuracy, query.slos.latency)
            those = frozenset(usable).intersection(listed[number] for number in np.flatnonzero(idle).tolist())
            found[objective] = found[objective] & those if objective in found else those
        return found


def _item_s(found: ConfigurationProfile) -> float:
    return sum(float(operator.service_s.mean()) for operator in found.operators.values())


def _variance(scores: FloatArray, width: float) -> float:
    """Of single scores; one more that is a quarter of the range off: a few equal ones are no proof of certainty."""
    return float(((scores - scores.mean()) ** 2).sum() + width**2 / 16) / (len(scores) + 1)


def _alike(queries: Sequence[Query]) -> tuple[tuple[Query, ...], tuple[float, ...]]:
    """One of each group of queries that have the same plans, and the groups' weights."""
    found: dict[Query, float] = {}
    for query in queries:
        key = query.model_copy(update={"name": "any", "weight": 1.0, "priority": 0, "tenant": None})
        found[key] = found.get(key, 0.0) + query.weight
    return tuple(found), tuple(found.values())


def make_sampler(specification: Specification, pipeline_name: str) -> PlanCostSampler | None:
    """An explorer for a pipeline; None where plans say nothing: no infrastructure, or no query on it."""
    if specification.infrastructure is None or all(q.pipeline != pipeline_name for q in specification.queries):
        return None
    return PlanCostSampler(specification, pipeline_name)
