"""Estimates of plans for matching: re-estimates under merged load, and plans on running deployments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import replace
from itertools import islice, product

from circinus.errors import PlanningError
from circinus.estimation import MergedLoad, PlanCandidate, QueryEstimators
from circinus.estimation.compiled_plan import CompiledPlan
from circinus.estimation.latest_start import latest_starts_s
from circinus.matching.candidate_source import CandidateSource
from circinus.matching.plan_set import Matching, with_starts
from circinus.matching.plan_space import PlanSpace, pools_of
from circinus.matching.settings import MATCHING
from circinus.planning import Frontier, plan_query
from circinus.planning.frontier import query_kind
from circinus.planning.planner import CompiledProfiles, sized_plans
from circinus.planning.pool_eligibility import matches_pins
from circinus.planning.search_space import shared_targets
from circinus.planning.settings import DEFAULT_SETTINGS, RunningLoad, SearchSettings
from circinus.profiling import ConfigurationProfile, PipelineProfile
from circinus.specification import (
    Configuration,
    Deployment,
    Network,
    Query,
    QueryPlan,
    SloKind,
    Specification,
)


class PlanEstimates(CandidateSource):
    """Cached estimates of plans from profiles.

    An estimator is prepared once for each kind of query and configuration; each plan of a kind is estimated once before
    matching. Queries of a kind differ in name, weight, priority and tenant only.
    """

    def __init__(
        self,
        specification: Specification,
        profiles: Mapping[str, PipelineProfile],
        compiled: CompiledProfiles | None = None,
        search: SearchSettings = DEFAULT_SETTINGS,
    ) -> None:
        self._search = search
        self._network = Network(specification.required_infrastructure)
        self._pipelines, self._pipeline_profiles = specification.pipelines, profiles
        self._queries: dict[str, Query] = {query.name: query for query in specification.queries}
        self._profiles: dict[tuple[str, Configuration], ConfigurationProfile] = {
            (name, configuration.configuration): configuration
            for name, profile in profiles.items()
            for configuration in profile.usable
        }
        self._populations = {name: profile.score_population for name, profile in profiles.items()}
        self._kinds = {name: repr(query_kind(query)) for name, query in self._queries.items()}
        """Query -> key of its estimates, which queries of a kind share."""
        self._latest_starts_s: dict[tuple[str, QueryPlan], Mapping[str, float]] = {}
        self._estimators = {self._kinds[name]: self._query_estimators(query) for name, query in self._queries.items()}
        """Kind -> its estimators."""
        self._isolated_estimates: dict[tuple[str, QueryPlan], PlanCandidate | None] = {}
        self._reestimated: dict[tuple[str, QueryPlan, object, object], PlanCandidate] = {}
        self._composed: dict[tuple[str, object, bool, bool, int], Sequence[PlanCandidate]] = {}
        self._replanned: dict[tuple[Query, SearchSettings], Frontier] = {}
        self._all_plans: dict[tuple[Query, Sequence[float], bool], Sequence[PlanCandidate]] = {}
        self._excluded: set[tuple[str, QueryPlan | None]] = set()
        self._excluded_parts: set[tuple[str, QueryPlan | None]] = set()
        self.compiled: CompiledProfiles = {} if compiled is None else compiled
        """Cache of `plan_query` on these profiles."""

    def adopt(self, frontiers: Mapping[str, Frontier]) -> None:
        """Take over the estimates and estimators of frontiers, which were searched for on the same profiles."""
        for name, frontier in frontiers.items():
            if frontier.estimators is not None:
                kind = self._kinds[name]
                self._estimators[kind] = frontier.estimators
                self._isolated_estimates.update(((kind, candidate.plan), candidate) for candidate in frontier.plans)

    def exclude(self, query: str, plan: QueryPlan | None) -> None:
        """Exclude a plan of a query from candidates; None excludes all its plans."""
        self._excluded.add((query, plan))

    def exclude_part(self, query: str, plan: QueryPlan | None) -> None:
        """Exclude a plan from the split plans of a query; None excludes all its split plans."""
        self._excluded_parts.add((query, plan))

    def may_be_part(self, query: str, plan: QueryPlan) -> bool:
        """Return whether a plan may take a part of a query's requests."""
        return not self._excluded_parts & {(query, plan), (query, None)}

    def without_excluded(self, candidates: Iterable[PlanCandidate]) -> tuple[PlanCandidate, ...]:
        """Return the candidates that are not excluded."""
        return tuple(candidate for candidate in candidates if not self.is_excluded(candidate.query, candidate.plan))

    def is_excluded(self, query: str, plan: QueryPlan) -> bool:
        """Return whether a plan of a query, or one of its parts, is excluded."""
        if plan.is_split and not all(self.may_be_part(query, part.plan) for part in plan.parts):
            return True
        return (query, plan) in self._excluded or (query, None) in self._excluded

    def without_exclusions(self) -> PlanEstimates:
        """Return the estimates of all plans; cached ones are shared."""
        other = copy(self)
        other._excluded, other._excluded_parts = set(), set()
        return other

    def with_query(self, query: Query) -> PlanEstimates:
        """Return the estimates with a query in place of the one of its name, and without exclusions.

        Cached estimates of other queries are shared.
        """
        other = self.without_exclusions()
        if query != self._queries.get(query.name):
            other._queries = self._queries | {query.name: query}
            kind = repr(query_kind(query))
            other._kinds = self._kinds | {query.name: kind}
            if kind not in self._estimators:
                other._estimators = self._estimators | {kind: self._estimators_for(query)}
                other._isolated_estimates = self._isolated_estimates.copy()
        return other

    def replan(self, query: Query, search: SearchSettings) -> Frontier:
        """Return the frontier of a query with other SLOs, without excluded plans and without explanations."""
        profile, unexplained = (
            self._pipeline_profiles[query.pipeline],
            replace(search, near_misses=0, max_margin_plans=0),
        )
        key = query_kind(query), unexplained
        if key not in self._replanned:
            if len(self._replanned) >= MATCHING.max_cached_frontiers:
                self._replanned.clear()
            pipeline, estimators = self._pipelines[query.pipeline], self._estimators_for(query)
            frontier = plan_query(query, pipeline, profile, self._network, unexplained, self.compiled, estimators)
            self._replanned[key] = replace(frontier, unlisted=None, estimators=None)
        frontier = self._replanned[key].for_query(query)
        return replace(frontier, candidates=self.without_excluded(frontier.candidates))

    def sized_plans(self, query: Query, running: RunningLoad) -> tuple[PlanCandidate, ...]:
        """Return candidates for meeting a query's SLOs at the final sizes beside a running load (`sized_plans`)."""
        pipeline, profile = self._pipelines[query.pipeline], self._pipeline_profiles[query.pipeline]
        settings, estimators = replace(self._search, running=running), self._estimators[self._kinds[query.name]]
        found = sized_plans(query, pipeline, profile, self._network, settings, self.compiled, estimators)
        return self.without_excluded(found)

    def running_plan(self, query: Query, plan: QueryPlan) -> PlanCandidate | None:
        """Return the estimate of a running plan in isolation, or None if the query may not keep it.

        A plan that misses the latency SLO at its utilization targets may stay: as sized, its deployments may be
        utilized less.
        """
        pipeline = self._pipelines[query.pipeline]
        tiers = {pool.name: pool.tier for pool in self._network.pools_for(query.source)}

        def may_run(deployment: Deployment) -> bool:
            operator, allocation = pipeline.operator(deployment.operator), deployment.allocation
            return (
                deployment.pool in tiers
                and (operator.allowed_tiers is None or tiers[deployment.pool] in operator.allowed_tiers)
                and query.pinned_pool(operator.name) in (None, deployment.pool)
                and allocation.cpus in operator.cpus
                and allocation.batch_size in operator.batch_sizes
            )

        parts = [part.plan for part in plan.parts]
        undivided = [operator.name for operator in pipeline.operators if not (operator.split and query.split)]
        may_stay = (
            all((plan.pipeline, part.configuration) in self._profiles for part in parts)
            and all(matches_pins(query, part.configuration) for part in parts)
            and all(map(may_run, plan.deployments))
            and all(len({part.deployment_of(name) for part in parts}) == 1 for name in undivided)
        )
        return self.sized_candidate(query, plan) if may_stay else None

    def reestimate(self, candidate: PlanCandidate, conditions: MergedLoad) -> PlanCandidate:
        """Return the candidate's estimate under the merged load; cached by the loads that the plan meets."""
        key = (
            self._kinds[candidate.query],
            candidate.plan,
            tuple(conditions.deployments.get(use.deployment) for use in candidate.deployments),
            tuple(conditions.links.get(use.link) for use in candidate.links),
        )
        if key not in self._reestimated:
            if len(self._reestimated) >= MATCHING.max_cached_estimates:
                self._reestimated.clear()
            self._reestimated[key] = self._estimated(candidate.query, candidate.plan, conditions)
        return self._reestimated[key].for_query(candidate.query)

    def estimate_of(self, query: str, plan: QueryPlan) -> PlanCandidate:
        """Return the estimate of a query's plan in isolation.

        Raises:
            PlanningError: the query or the plan's configuration has no profile, or the query alone overloads a link.
        """
        unprofiled = [
            part.plan.configuration
            for part in plan.parts
            if query not in self._queries or (plan.pipeline, part.plan.configuration) not in self._profiles
        ]
        if unprofiled:
            raise PlanningError(
                f"no profile of the plan's configuration {unprofiled[0]}",
                code="plan.unprofiled_configuration",
                location=f"query {query}",
                hint="Run `circinus plan` again.",
            )
        return self._estimated(query, plan)

    def fixed_operators(self, query: Query) -> tuple[str, ...]:
        """Return the operators of a query all of whose requests go to the same deployment."""
        return tuple(operator.name for operator in self._pipelines[query.pipeline].operators if not operator.split)

    def with_latest_starts(self, matching: Matching) -> Matching:
        """Return the matching with the latest starts of all plans and rungs whose configuration has a profile."""
        return with_starts(matching, self._starts_s)

    def _starts_s(self, candidate: PlanCandidate) -> Mapping[str, float] | None:
        """Return the latest start of each operator, or None without a profile or a latency SLO."""
        query, plan = self._queries[candidate.query], candidate.plan
        profile = self._profiles.get((plan.pipeline, plan.configuration))
        if profile is None or query.slos.latency is None:
            return None
        key = self._kinds[query.name], plan
        if key not in self._latest_starts_s:
            starts_s = latest_starts_s(query, self._pipelines[plan.pipeline], plan, profile, self._network)
            self._latest_starts_s[key] = starts_s
        return self._latest_starts_s[key]

    def on_deployments(
        self,
        query: Query,
        running: Iterable[Deployment],
        *,
        any_latency: bool = False,
        as_parts: bool = False,
        max_plans: int = MATCHING.max_composed_plans,
    ) -> Sequence[PlanCandidate]:
        """Return the plans of `query` that use running deployments only and meet its SLOs.

        A frontier compares plans by their demand, regardless of sharing: it may have pruned plans that cost next to
        nothing on deployments that run anyway.

        Args:
            query: one of the specification's.
            running: deployments of any pipelines; those that the query cannot use are skipped.
            any_latency: whether to return plans that miss the latency SLO at their utilization targets, too: as sized,
                the deployments may be utilized less.
            as_parts: whether to return parts of a split plan, which may miss an accuracy SLO that is about the mean.
            max_plans: maximum number of parts.
        """
        pipeline = self._pipelines[query.pipeline]
        max_target = self._network.infrastructure.utilization_limit
        choices = tuple(
            tuple(
                deployment
                for deployment in running
                if (deployment.pipeline, deployment.operator) == (pipeline.name, operator.name)
                and deployment.pool in pools
                and deployment.allocation.cpus in operator.cpus
                and deployment.allocation.batch_size in operator.batch_sizes
                and deployment.allocation.utilization_target <= max_target
            )
            for operator, pools in zip(pipeline.operators, pools_of(query, pipeline, self._network), strict=True)
        )
        key = self._kinds[query.name], choices, any_latency, as_parts, max_plans
        if key not in self._composed:
            if len(self._composed) >= MATCHING.max_cached_compositions:
                self._composed.clear()
            self._composed[key] = tuple(self._composed_plans(query, choices, any_latency, as_parts, max_plans))
        return self.without_excluded(candidate.for_query(query.name) for candidate in self._composed[key])

    def _composed_plans(
        self, query: Query, choices: Sequence[Sequence[Deployment]], any_latency: bool, as_parts: bool, max_plans: int
    ) -> Iterator[PlanCandidate]:
        """Yield the plans of `on_deployments`, excluded or not, on some deployments for each operator."""
        plans = (
            QueryPlan(
                pipeline=query.pipeline,
                configuration=Configuration.of({d.operator: d.knobs for d in deployments}),
                placement=tuple(sorted((d.operator, d.pool) for d in deployments)),
                allocations=tuple(sorted((d.operator, d.allocation) for d in deployments)),
            )
            for deployments in product(*choices)
        )
        accurate = (p for p in plans if self._is_accurate(query, p.configuration, as_part=as_parts))
        if as_parts:
            isolated = (self._part(query, plan) for plan in islice(accurate, MATCHING.max_composed_plans))
            yield from islice((c for c in isolated if c is not None and self._is_possible_part(query, c)), max_plans)
            return
        permitted = {SloKind.LATENCY} if any_latency else set[SloKind]()
        candidates = (self._isolated(query, plan) for plan in islice(accurate, MATCHING.max_composed_plans))
        yield from (c for c in candidates if c is not None and set(c.estimate.violations(query.slos)) <= permitted)

    def all_plans(
        self,
        queries: Sequence[Query],
        should_stop: Callable[[], bool],
        *,
        max_plans: int = MATCHING.max_enumerated_plans,
        as_parts: bool = False,
    ) -> Mapping[str, Sequence[PlanCandidate]] | None:
        """Return all plans of queries that meet their SLOs, dominated or not; None if they are too many to estimate.

        Queries that differ in name, weight, priority and tenant only share the estimates.

        Args:
            queries: of the specification.
            should_stop: whether the time is over.
            max_plans: maximum number of plans of each query to estimate.
            as_parts: see `on_deployments`.
        """
        targets = shared_targets(queries, self._network.infrastructure)
        spaces = dict[str, PlanSpace]()
        for query in queries:
            accurate = self.accurate_configurations(query, as_part=as_parts)
            spaces[query.name] = PlanSpace.of(
                query, self._pipelines[query.pipeline], self._network, accurate, targets[query.name]
            )
        if max((space.size for space in spaces.values()), default=0) > max_plans:
            return None
        plans = {}
        for query in queries:
            key = query_kind(query), targets[query.name], as_parts
            if key not in self._all_plans:
                estimates = list[PlanCandidate | None]()
                for plan in spaces[query.name].plans():
                    if should_stop():
                        return None
                    estimates.append(self._part(query, plan) if as_parts else self._isolated(query, plan))
                is_met = self._is_possible_part if as_parts else self._is_feasible
                self._all_plans[key] = [e for e in estimates if e is not None and is_met(query, e)]
            plans[query.name] = self.without_excluded(c.for_query(query.name) for c in self._all_plans[key])
        return plans

    def parts(
        self, queries: Sequence[Query], deployments: Sequence[Deployment], should_stop: Callable[[], bool]
    ) -> tuple[Mapping[str, Sequence[PlanCandidate]], bool]:
        """Return plans for parts of queries' requests, and whether they are all.

        Those on `deployments` are returned if all are too many or take too long.
        """
        max_plans = MATCHING.max_part_plans // len(queries)
        plans = self.all_plans(queries, should_stop, max_plans=max_plans, as_parts=True)
        if plans is not None:
            return plans, True
        composed = dict[str, Sequence[PlanCandidate]]()
        for query in queries:
            if should_stop():
                break
            composed[query.name] = self.on_deployments(query, deployments, as_parts=True, max_plans=max_plans)
        return composed, False

    def accurate_configurations(self, query: Query, *, as_part: bool = False) -> list[Configuration]:
        """Return the configurations within a query's pins that are guaranteed to meet its accuracy SLO."""
        own = (configuration for pipeline, configuration in self._profiles if pipeline == query.pipeline)
        return [c for c in own if self._is_accurate(query, c, as_part=as_part)]

    def kind_of(self, query: str) -> str:
        """Return a key that queries share which differ in name, weight, priority and tenant only."""
        return self._kinds[query]

    def compiled_plan(self, query: str, plan: QueryPlan) -> CompiledPlan:
        """Return a plan of a query for estimates at many sizes; see `estimate_of` for what it raises."""
        profile = self._profiles[plan.pipeline, plan.configuration]
        return self._estimators[self._kinds[query]].of(profile).compiled(plan)

    def _is_accurate(self, query: Query, configuration: Configuration, *, as_part: bool = False) -> bool:
        profile = self._profiles.get((query.pipeline, configuration))
        if profile is None or not matches_pins(query, configuration):
            return False
        slo = query.slos.accuracy
        return slo is None or (as_part and query.accuracy_of == "mean") or slo.is_met_by(slo.worst(profile.accuracy))

    def feasible_estimate(self, query: Query, plan: QueryPlan) -> PlanCandidate | None:
        """Return the estimate of a query's plan in isolation, or None if it violates an SLO or is excluded."""
        if self.is_excluded(query.name, plan):
            return None
        candidate = self._isolated(query, plan)
        return None if candidate is None or candidate.estimate.violations(query.slos) else candidate

    def sized_candidate(self, query: Query, plan: QueryPlan) -> PlanCandidate | None:
        """Return the estimate of a query's plan in isolation, or None if it violates an SLO other than latency.

        At the final sizes, deployments may be utilized less than in isolation, where they are at their targets.
        """
        candidate = None if self.is_excluded(query.name, plan) else self._isolated(query, plan)
        if candidate is None or set(candidate.estimate.violations(query.slos)) - {SloKind.LATENCY}:
            return None
        return candidate

    @staticmethod
    def _is_feasible(query: Query, candidate: PlanCandidate) -> bool:
        return not candidate.estimate.violations(query.slos)

    @staticmethod
    def _is_possible_part(query: Query, candidate: PlanCandidate) -> bool:
        return SloKind.LATENCY not in candidate.estimate.violations(query.slos)

    def _isolated(self, query: Query, plan: QueryPlan) -> PlanCandidate | None:
        """Return the cached estimate of a query's plan in isolation, or None if the query overloads a link."""
        key = (self._kinds[query.name], plan)
        if key not in self._isolated_estimates:
            try:
                candidate = self._estimated(query.name, plan)
            except PlanningError:
                candidate = None
            self._isolated_estimates[key] = candidate
        isolated = self._isolated_estimates[key]
        return None if isolated is None else isolated.for_query(query.name)

    def _part(self, query: Query, plan: QueryPlan) -> PlanCandidate | None:
        """Return the estimate of a plan for any share of a query's requests, of which a link may hold a part only."""
        candidate = self._isolated(query, plan)
        if candidate is None:
            with suppress(PlanningError):
                estimators = self._estimators[self._kinds[query.name]]
                part = estimators.candidate(plan, lambda c: self._profiles[query.pipeline, c], as_part=True)
                return part.for_query(query.name)
        return candidate

    def _estimated(self, query: str, plan: QueryPlan, conditions: MergedLoad | None = None) -> PlanCandidate:
        pipeline = self._queries[query].pipeline
        estimators = self._estimators[self._kinds[query]]
        try:
            return estimators.candidate(plan, lambda c: self._profiles[pipeline, c], conditions).for_query(query)
        except PlanningError as error:  # the estimators may be those of another query of the kind
            error.location = f"query {query}" if error.location.startswith("query ") else error.location
            raise

    def _estimators_for(self, query: Query) -> QueryEstimators:
        """Return the estimators of a query; they share latencies with those of the query of its name, if possible."""
        current = self._queries.get(query.name)
        if current is None or query != current.model_copy(update={"slos": query.slos}):
            return self._query_estimators(query)
        estimators = self._estimators[self._kinds[query.name]]
        return estimators if query == current else estimators.with_slos(query.slos)

    def _query_estimators(self, query: Query) -> QueryEstimators:
        return QueryEstimators(
            query,
            self._pipelines[query.pipeline],
            self._network,
            population=self._populations.get(query.pipeline),
        )
