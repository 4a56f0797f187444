"""Sampler that selects configurations to measure by their effect on plan costs, for all queries on a pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.planning.sampler.acquisition import (
    AcquisitionResult,
    QueryBelief,
    acquisition_function,
    select_next_configuration,
    settling_share,
)
from circinus.planning.sampler.candidate_generation import candidates
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.expected_costs import ExpectedCosts
from circinus.planning.sampler.feasibility import awaiting_plan, classify_feasibility, few_items, slo_feasibility
from circinus.planning.sampler.initial_design import covering_array, covering_codes
from circinus.planning.sampler.mean_estimation import estimate_mean_scores
from circinus.planning.sampler.placeable_codes import placeable_codes
from circinus.planning.sampler.plan_costs import PlanCostCache, min_plan_costs
from circinus.planning.sampler.pool_kinds import one_pool_of_each_kind
from circinus.planning.sampler.prior_selection import MeanPrior
from circinus.planning.sampler.profile_prediction import ProfilePredictor
from circinus.planning.sampler.reservation_index import Pursuit, StoppingRule, expected_items_to_decide
from circinus.planning.sampler.surrogate import Belief
from circinus.planning.sampler.transfer_learning import TransferSources, missing_from_design, warm_start_design
from circinus.planning.settings import DOUBTFUL_EXCESS
from circinus.profiling import (
    MIN_ITEMS,
    PipelineProfile,
    SamplerDecision,
    StoppingCertificate,
    Suggestion,
)
from circinus.profiling.race.configuration_order import max_measured_configurations
from circinus.profiling.race.run_confidence import per_sequence_alpha
from circinus.profiling.race.sampler import DecisionTimeoutError, Seconds
from circinus.profiling.race.slo_requirements import distribution_free_sample_size
from circinus.profiling.store.transfer_sources import SourceScores
from circinus.specification import Configuration, Network, Query, Slos, Specification
from circinus.statistics.mean_decision import shrunk_variance

MAX_ENUMERATED = 600
"""Maximum number of configurations of a space that is evaluated completely in every step."""
_MIN_UNLISTED = 200
"""Minimum number of configurations of a larger space to measure before a query is left without a plan: that none of
200 meets its SLOs is likely only if at most about 1 % of the space does."""
_FALLBACK_COUNT = 32
"""Number of random configurations to try if all others failed."""
_CANDIDATES = 256
"""Number of unmeasured configurations to evaluate in larger spaces, if all queries have a certain configuration."""
_FEWER_WITHOUT_PLAN = 4
"""Ratio of this number to that for a first plan, and of the latter to that while begun configurations are settled."""
_SETTLING_SHARE = 0.5
"""Minimum share of the time for settling begun configurations, where a query has no plan and most of the space is
unknown: otherwise something more promising is always begun and nothing settled, whatever budget there is."""
_FEWER = 4
"""Ratio of the numbers of candidates before and after a decision that took too long."""


class PlanCostSampler:
    """Sampler that measures the configurations with the largest expected gain for the queries' plans, per second.

    Accuracies are predicted by a Gaussian process over the knobs; plan costs are computed from the profiles of
    operators, measured or predicted. Each query prefers the configuration of its soonest first plan, and then that of
    lowest reservation cost, measured or not. The configuration with the largest gain by weight of the queries comes
    first (`select_next_configuration`). Decisions depend on the profile alone.

    Formulas overestimate latencies. If nothing is worth measuring for a query without a plan, plans count as well that
    miss its latency SLO so narrowly that a simulation decides.

    Every configuration is evaluated if the space can be enumerated, otherwise the most promising ones.
    """

    def __init__(self, specification: Specification, pipeline_name: str) -> None:
        """Prepare for the queries on a pipeline.

        Raises:
            ValueError: there is no infrastructure or no query.
        """
        queries = tuple(query for query in specification.queries if query.pipeline == pipeline_name)
        if specification.infrastructure is None or not queries:
            raise ValueError(f"pipeline {pipeline_name}: there is no infrastructure or no query")
        self._pipeline = specification.pipelines[pipeline_name]
        network = Network(specification.infrastructure)
        self._queries, self._weights = _merged_queries(queries)
        self._searched = (*self._queries, *map(_with_doubtful_latency, self._queries))
        self._networks = tuple(one_pool_of_each_kind(network, query) for query in self._queries)
        self._space = ConfigurationSpace.of(self._pipeline)
        self._sources = TransferSources(self._pipeline, self._space)
        self._predictor = ProfilePredictor(self._pipeline, self._space)
        self._stopping = StoppingRule()
        pools = {pool.name: pool for query in queries for pool in network.pools_for(query.source)}
        self._all_codes = placeable_codes(self._space, self._pipeline, pools.values(), MAX_ENUMERATED)
        size = self._space.size if self._all_codes is None else len(self._all_codes)
        self._placeable = self._all_codes if size < self._space.size else None
        # Beliefs about a space of which nearly nothing was seen are no evidence that it has no plan.
        self._min_configurations = min(
            size, len(self._space.columns) + 2 if self._all_codes is not None else _MIN_UNLISTED
        )
        self._candidates = _CANDIDATES
        self._prepare_costs()

    def initial_design(self, earlier: Sequence[SourceScores] = ()) -> Sequence[Configuration]:
        """Return the best configurations of a source, or otherwise every choice of every knob at least once."""
        self._sources = TransferSources(self._pipeline, self._space, tuple(earlier))
        self._predictor = ProfilePredictor(self._pipeline, self._space, self._sources.operators)
        self._prepare_costs()
        return self._source_design() or self._default_design

    def _prepare_costs(self) -> None:
        networks = (*self._networks, *self._networks)
        self._certain_costs = PlanCostCache(self._pipeline, self._searched, networks)
        self._expected_costs = ExpectedCosts(self._pipeline, self._searched, networks, self._predictor)

    @cached_property
    def _default_design(self) -> tuple[Configuration, ...]:
        design = covering_array(self._space) if self._placeable is None else covering_codes(self._placeable)
        return self._space.decode(design)

    def _source_design(self) -> tuple[Configuration, ...]:
        """Return the best configurations by scores and costs of the largest source; none if it has no costs."""
        profile = self._sources.profile()
        if profile is None:
            return ()
        scored = self._space.encode([measured.configuration for measured in profile.configurations])
        codes = scored if self._all_codes is None else self._all_codes
        scores, predictor = self._sources.initial_scores(codes), ProfilePredictor(self._pipeline, self._space)
        if scores is None or not predictor.learn(profile):
            return ()
        configurations = self._space.decode(codes)
        costs = min_plan_costs(
            self._pipeline, self._queries, predictor.predict(profile, configurations), self._networks, configurations
        )
        rows = warm_start_design(scores, costs, [query.slos.accuracy for query in self._queries])
        return tuple(configurations[row] for row in rows)

    def suggest(
        self, profile: PipelineProfile, seconds: Seconds, check_time: Callable[[], None] = lambda: None
    ) -> SamplerDecision:
        """Return the decision about the next measurements; see `ConfigurationSampler`.

        A decision that takes too long leaves fewer candidates for the next one, in spaces that are not enumerated.
        """
        try:
            return self._suggest(profile, seconds, check_time)
        except DecisionTimeoutError:
            self._candidates = max(self._candidates // _FEWER, 1)
            raise

    def _suggest(self, profile: PipelineProfile, seconds: Seconds, check_time: Callable[[], None]) -> SamplerDecision:
        if not self._predictor.learn(profile):
            return self._initial_decision(profile, seconds)
        measured_of = {measured.configuration: measured for measured in profile.configurations}
        failed = {failure.configuration for failure in profile.failed}
        check_time()
        prior, common_variance = self._fitted_prior(profile)
        check_time()
        stopping = self._stopping
        is_early = len(measured_of) < self._min_configurations
        if is_early:  # too few to conclude that a query has no plan
            stopping = replace(stopping, probability_of_first_plan=0.0)
        for pursuit in self._pursuits(profile):
            codes = self._candidate_codes(profile, prior, pursuit)
            configurations = self._space.decode(codes)
            belief = prior.belief(codes)
            belief = replace(belief, deviation=np.sqrt(belief.deviation**2 + common_variance))
            evaluated = np.array([c in measured_of for c in configurations], dtype=bool)
            beliefs, requested, acquisition = self._selected(
                profile, configurations, belief, evaluated, stopping, pursuit, seconds, check_time
            )
            if evaluated[acquisition.ranking].any():
                break  # else nothing begun is worth settling
        without_plan = not all(query_belief.has_plan for query_belief in beliefs)
        suggestions = [
            Suggestion(configurations[index], float(acquisition.value_per_s[index])) for index in acquisition.ranking
        ]
        if not suggestions and is_early and without_plan:
            # No plan is predicted for any candidate, and predictions may be wrong.
            further = (c for c in configurations if c not in measured_of and math.isfinite(seconds(c, 1)))
            suggestions = [Suggestion(c, 1.0) for c in islice(further, 1)]
        pending = self._pending_design(prior, {*measured_of, *failed}, seconds)
        if pending is not None:
            suggestions.insert(0, Suggestion(pending, math.inf))
        selected = suggestions[0].configuration if suggestions else None
        # A configuration that cannot be measured any more may be better.
        unmeasurable = any(
            math.isinf(seconds(c, 1)) and c not in failed for c in configurations if c not in measured_of
        )
        certificate = StoppingCertificate(
            unmeasured=profile.unmeasured,
            considered=sum(c not in measured_of and c not in failed for c in configurations),
            probability=max(acquisition.probability, _uncosted_probability(beliefs, requested)),
            saving=stopping.saving,
            conclusive=selected is None and len(profile.usable) == len(profile.configurations) and not unmeasurable,
            next=selected if selected not in measured_of else None,
            prior=prior.reason if self._sources.sources else "",
        )
        pruned = self._pruned(acquisition, configurations, {measured.configuration for measured in profile.usable})
        return SamplerDecision(suggestions, certificate, pruned)

    def _pursuits(self, profile: PipelineProfile) -> tuple[Pursuit, ...]:
        """Return what is pursued, in turn, until a begun configuration is worthwhile."""
        if self._all_codes is not None:
            return (Pursuit.SOONEST,)
        if settling_share(profile) < _SETTLING_SHARE:
            return Pursuit.SETTLE, Pursuit.MOST_PROBABLE
        return (Pursuit.MOST_PROBABLE,)

    def _selected(
        self,
        profile: PipelineProfile,
        configurations: Sequence[Configuration],
        belief: Belief,
        evaluated: BoolArray,
        stopping: StoppingRule,
        pursuit: Pursuit,
        seconds: Seconds,
        check_time: Callable[[], None],
    ) -> tuple[Sequence[QueryBelief], BoolArray, AcquisitionResult]:
        """Return the beliefs of each query, the (k, q) mask of expected costs that matter, and the selection."""
        relaxed = np.zeros(len(self._queries), dtype=bool)
        arguments = profile, configurations, belief, evaluated, stopping.min_feasibility, seconds, check_time
        beliefs, requested = self._query_beliefs(*arguments, relaxed)
        is_hopeless = [own.is_hopeless(stopping.probability_of_first_plan) for own in beliefs]
        relaxed = np.array(is_hopeless) & [query.slos.latency is not None for query in self._queries]
        if relaxed.any():
            beliefs, requested = self._query_beliefs(*arguments, relaxed)
        item_s = float(np.median([measured.mean_service_s for measured in profile.configurations]))
        saving_s = profile.population * item_s
        acquisition = select_next_configuration(beliefs, stopping, saving_s, pursuit)
        without_plan = bool(relaxed.any()) or not all(own.has_plan for own in beliefs)
        chosen = self._chosen(relaxed)
        while (
            len(acquisition.ranking)
            and evaluated[index := int(acquisition.ranking[0])]
            and self._expected_costs.refine(profile, configurations[index], requested[index], check_time)
        ):
            expected = self._expected_costs.of(profile, configurations, requested=requested, without_plan=without_plan)
            beliefs = [
                replace(own, usd_per_h=expected.usd_per_h[q], floor_usd_per_h=expected.floor_usd_per_h[q])
                for own, q in zip(beliefs, chosen, strict=True)
            ]
            acquisition = select_next_configuration(beliefs, stopping, saving_s, pursuit)
        return beliefs, requested[:, chosen], acquisition

    def _chosen(self, relaxed: BoolArray) -> IntArray:
        """Return (q,) indexes of `_searched`: the queries, or those with doubtful latencies instead."""
        return np.arange(len(relaxed)) + len(relaxed) * relaxed

    def _query_beliefs(
        self,
        profile: PipelineProfile,
        configurations: Sequence[Configuration],
        belief: Belief,
        evaluated: BoolArray,
        min_feasibility: float,
        seconds: Seconds,
        check_time: Callable[[], None],
        relaxed: BoolArray,
    ) -> tuple[list[QueryBelief], BoolArray]:
        """Return the beliefs of each query, and the (k, searched) mask of the expected costs that matter.

        Args:
            relaxed: (q,) whether plans of a query count that miss its latency SLO narrowly.
        """
        chosen = self._chosen(relaxed)
        active = np.zeros(len(self._searched), dtype=bool)
        active[chosen] = True
        measured_of = {measured.configuration: measured for measured in profile.configurations}
        population, first_items = profile.population, min(MIN_ITEMS, profile.population)
        certain, excluded = classify_feasibility(self._searched, configurations, measured_of, population)
        few = few_items(self._searched, configurations, measured_of, population)
        # A configuration waiting for a plan has none yet if it has none even with optimistic times.
        possible = certain & active & ~(few & self._expected_costs.without_plan(configurations))
        exact = self._certain_costs.of(profile, configurations, possible, check_time)
        without_plan = bool(relaxed.any()) or not all(np.isfinite(exact[q]).any() for q in chosen)
        waiting = awaiting_plan(certain & few, exact)
        planless = certain & ~np.array([np.isfinite(own).any(axis=1) for own in exact]).T
        certain, excluded = certain & ~planless, excluded | planless & ~waiting
        first_evaluation_s = np.array(
            [0.0 if b else seconds(c, first_items) for c, b in zip(configurations, evaluated, strict=True)]
        )
        item_s = np.array([seconds(c, population + 1) - seconds(c, population) for c in configurations])
        items = np.array([len(measured_of[c].items) if c in measured_of else first_items for c in configurations])
        closed = np.isinf(first_evaluation_s) | ~np.isfinite(item_s)
        slos = [query.slos.accuracy for query in self._searched]
        met = np.array([slo_feasibility(belief, slo) for slo in slos]).T
        met = np.where(closed[:, None] | excluded, 0.0, met)
        feasibility = np.where(waiting & ~closed[:, None], 1.0, met)
        requested = ~certain & active & (feasibility > min_feasibility)
        expected = self._expected_costs.of(
            profile, configurations, check_time, requested=requested, without_plan=without_plan
        )
        low, high = self._pipeline.metric.range
        variance = float(np.median([_variance(measured.scores, high - low) for measured in profile.configurations]))
        risk = per_sequence_alpha(profile.risk, max_measured_configurations(self._pipeline))
        beliefs = []
        for q, weight in zip(chosen, self._weights, strict=True):
            query, slo = self._searched[q], slos[q]
            if slo is None:
                decision_items = np.full(len(configurations), float(first_items))
            else:
                with np.errstate(divide="ignore", invalid="ignore"):
                    decision_items = expected_items_to_decide(
                        belief, met[:, q], slo.threshold, variance, high - low, risk, profile.score_population
                    )
            sufficient_items = min(distribution_free_sample_size(query), population)
            decision_items = np.where(waiting[:, q], sufficient_items, decision_items)
            remaining_items = np.clip(np.ceil(decision_items) - items, first_items, population)
            beliefs.append(
                QueryBelief(
                    feasibility=feasibility[:, q],
                    is_certain=certain[:, q],
                    is_measured=evaluated,
                    look_s=first_evaluation_s,
                    settle_s=np.where(closed, np.inf, item_s * remaining_items),
                    usd_per_h=expected.usd_per_h[q],
                    log_std=expected.log_std,
                    floor_usd_per_h=expected.floor_usd_per_h[q],
                    certain_usd_per_h=exact[q],
                    weight=weight,
                )
            )
        return beliefs, requested

    def _initial_decision(self, profile: PipelineProfile, seconds: Seconds) -> SamplerDecision:
        """Return the decision before any operator model exists.

        If no configuration tried so far can be measured, random ones follow.
        """
        failed = {failure.configuration for failure in profile.failed}
        selected = None
        if not profile.configurations:
            random = self._space.random(np.random.default_rng(0), _FALLBACK_COUNT)
            alternatives = self._space.decode(random if self._placeable is None else self._placeable)
            selected = next((c for c in alternatives if c not in failed and math.isfinite(seconds(c, 1))), None)
        certificate = StoppingCertificate(
            profile.unmeasured, 0, None, self._stopping.saving, conclusive=False, next=selected
        )
        return SamplerDecision([] if selected is None else [Suggestion(selected, 1.0)], certificate, {})

    def _pending_design(
        self, prior: MeanPrior, measured: Collection[Configuration], seconds: Seconds
    ) -> Configuration | None:
        """Return the next configuration of the default initial design, if all sources were dropped."""
        if prior.name is not None or not self._sources.sources:
            return None
        return missing_from_design([c for c in self._default_design if math.isfinite(seconds(c, 1))], measured)

    def _fitted_prior(self, profile: PipelineProfile) -> tuple[MeanPrior, float]:
        """Return the prior fitted to the measured scores, and the variance of their common error."""
        low, high = self._pipeline.metric.range
        evidence = estimate_mean_scores(
            [measured.scores for measured in profile.configurations], profile.score_population, high - low
        )
        codes = self._space.encode([measured.configuration for measured in profile.configurations])
        prior = self._sources.prior(codes, evidence.means, evidence.variances, additive=self._all_codes is None)
        return prior, evidence.common_variance

    def _candidate_codes(self, profile: PipelineProfile, prior: MeanPrior, pursuit: Pursuit) -> IntArray:
        """Return (k, d) all codes, or the measured and the most promising ones."""
        if self._all_codes is not None:
            return self._all_codes
        measured = self._space.encode([c.configuration for c in profile.configurations])
        failed = self._space.encode([failure.configuration for failure in profile.failed])
        score = acquisition_function(self._queries, self._weights, profile, prior, self._predictor)
        rng = np.random.default_rng(len(measured))
        measured_of = {c.configuration: c for c in profile.configurations}
        certain, _ = classify_feasibility(self._queries, list(measured_of), measured_of, profile.population)
        count = self._candidates
        if not certain.any(axis=0).all():
            count //= _FEWER_WITHOUT_PLAN ** (2 if pursuit is Pursuit.SETTLE else 1)
        promising = candidates(self._space, score, measured, max(count, 1), rng, without=failed)
        return np.concatenate([measured, promising])

    def _pruned(
        self, acquisition: AcquisitionResult, configurations: Sequence[Configuration], usable: Collection[Configuration]
    ) -> dict[Slos, frozenset[Configuration]]:
        """Return the measured configurations that need not be decided, for each SLO requirement.

        Every query with the requirement must agree. Configurations on few items are not included.
        """
        pruned: dict[Slos, frozenset[Configuration]] = {}
        for query, is_pruned in zip(self._queries, acquisition.pruned, strict=True):
            requirement = query.slos.without_cost
            subset = frozenset(usable).intersection(
                configurations[number] for number in np.flatnonzero(is_pruned).tolist()
            )
            pruned[requirement] = pruned[requirement] & subset if requirement in pruned else subset
        return pruned


def _uncosted_probability(beliefs: Sequence[QueryBelief], requested: BoolArray) -> float:
    """Return the maximum probability that an unmeasured configuration without an expected cost meets an SLO."""
    feasibility = np.array([belief.feasibility for belief in beliefs]).T
    is_uncosted = ~requested & ~beliefs[0].is_measured[:, None]
    return float(feasibility[is_uncosted].max(initial=0.0))


def _variance(scores: FloatArray, width: float) -> float:
    return shrunk_variance(float(((scores - scores.mean()) ** 2).sum()), len(scores), width)


def _merged_queries(queries: Sequence[Query]) -> tuple[tuple[Query, ...], tuple[float, ...]]:
    """Return one query of each group with identical plans, and the groups' weights."""
    weights: dict[Query, float] = {}
    for query in queries:
        key = query.model_copy(update={"name": "any", "weight": 1.0, "priority": 0, "tenant": None})
        weights[key] = weights.get(key, 0.0) + query.weight
    return tuple(weights), tuple(weights.values())


def _with_doubtful_latency(query: Query) -> Query:
    """Return the query with the highest latency by formula that a simulation may find to be within its SLO."""
    latency = query.slos.latency
    if latency is None:
        return query
    higher = latency.model_copy(update={"limit_s": latency.limit_s * (1.0 + DOUBTFUL_EXCESS)})
    return query.model_copy(update={"slos": query.slos.model_copy(update={"latency": higher})})


def make_sampler(specification: Specification, pipeline_name: str) -> PlanCostSampler | None:
    """Return a sampler for a pipeline, or None without an infrastructure or a query on the pipeline."""
    if specification.infrastructure is None or all(q.pipeline != pipeline_name for q in specification.queries):
        return None
    return PlanCostSampler(specification, pipeline_name)
