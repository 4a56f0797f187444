"""What matching asks of profiles: a plan estimated again, and further plans on deployments that run already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice, product

from circinus.errors import PlanningError
from circinus.estimation import Estimator, MergedLoad, PlanCandidate
from circinus.matching.plan_set import SizedDeployment
from circinus.planning.pool_eligibility import matches_pins
from circinus.profiling import ConfigurationProfile, OperatorProfile, PipelineProfile
from circinus.specification import (
    Configuration,
    Deployment,
    Infrastructure,
    KnobValues,
    Network,
    Query,
    QueryPlan,
    Specification,
)


def add_startup_times(
    deployments: Sequence[SizedDeployment], profiles: Mapping[str, PipelineProfile], infrastructure: Infrastructure
) -> tuple[SizedDeployment, ...]:
    """The deployments with the seconds that a further replica of each takes, by its operator, knobs and pool, and with
    its speed where that was measured.

    Start-ups that were not measured on a pool's hardware scale with its speed as service times do: with the one that it
    surely has.

    Args:
        deployments: as sized.
        profiles: pipeline name -> what was measured of it; a deployment that none tells of keeps what it says.
        infrastructure: the pools.
    """
    profiled: dict[tuple[str, str, KnobValues], dict[int, OperatorProfile]] = {}
    for name, profile in profiles.items():
        for configuration in profile.configurations:
            for operator, found in configuration.operators.items():
                profiled.setdefault((name, operator, found.prefix[operator]), {})[id(found)] = found
    told = []
    for sized in deployments:
        deployment = sized.deployment
        alike = profiled.get((deployment.pipeline, deployment.operator, deployment.knobs), {}).values()
        hardware = infrastructure.pool(deployment.pool).hardware
        start_ups_s = [startup_s for found in alike if (startup_s := found.startup_on(hardware)) is not None]
        if start_ups_s:
            sized = replace(sized, startup_s=max(start_ups_s))
        speeds = [found.speeds.expected(hardware) for found in alike if hardware.name in found.speeds.measured]
        if speeds:
            # Rounded: a deployment that is said to be another one starts its replicas anew.
            sized = replace(sized, relative_speed=float(f"{min(speeds):.3g}"))
        told.append(sized)
    return tuple(told)


MOST_COMPOSED = 500
"""Most plans on running deployments that are estimated for one query at a time."""

MOST_REMEMBERED = 20_000
"""Estimates that are kept at most."""


class PlanEstimates:
    """Estimates plans from profiles; estimators are prepared once for each query and configuration, and promises are
    computed once for each query and plan."""

    def __init__(
        self, specification: Specification, profiles: Mapping[str, PipelineProfile], usable_link_share: float
    ) -> None:
        if specification.infrastructure is None:
            raise PlanningError("specification: found no infrastructure, expected one to place plans on")
        self._network = Network(specification.infrastructure)
        self._pipelines = specification.pipelines
        self._queries: dict[str, Query] = {query.name: query for query in specification.queries}
        self._profiles: dict[tuple[str, Configuration], ConfigurationProfile] = {
            (name, found.configuration): found for name, profile in profiles.items() for found in profile.usable
        }
        self._populations = {name: profile.dataset_items - profile.held_out_items for name, profile in profiles.items()}
        self._usable_link_share = usable_link_share
        self._estimators: dict[str, dict[Configuration, Estimator]] = {query: {} for query in self._queries}
        self._promises: dict[tuple[str, QueryPlan], PlanCandidate | None] = {}
        self._reestimated: dict[object, PlanCandidate] = {}
        self._refused: set[tuple[str, QueryPlan | None]] = set()

    def exclude(self, query: str, plan: QueryPlan | None) -> None:
        """Promise a plan of a query no longer; None: none of its plans."""
        self._refused.add((query, plan))

    def without_excluded(self, candidates: Iterable[PlanCandidate]) -> tuple[PlanCandidate, ...]:
        """Those that may still be promised."""
        return tuple(one for one in candidates if not self._is_refused(one.query, one.plan))

    def _is_refused(self, query: str, plan: QueryPlan) -> bool:
        return (query, plan) in self._refused or (query, None) in self._refused

    def reestimate(self, candidate: PlanCandidate, conditions: MergedLoad) -> PlanCandidate:
        """The candidate's plan under `conditions`; computed once as long as nothing it meets is loaded otherwise."""
        key = (
            candidate.query,
            candidate.plan,
            tuple(conditions.deployments.get(use.deployment) for use in candidate.deployments),
            tuple(conditions.links.get(use.link) for use in candidate.links),
        )
        if key not in self._reestimated:
            if len(self._reestimated) >= MOST_REMEMBERED:
                self._reestimated.clear()
            estimator = self._estimator(candidate.query, candidate.plan.configuration)
            self._reestimated[key] = estimator.candidate(candidate.plan, conditions)
        return self._reestimated[key]

    def estimate_of(self, query: str, plan: QueryPlan) -> PlanCandidate:
        """A plan of a query as it is promised before all are matched.

        Raises:
            PlanningError: the query or the plan's configuration is not known, or the query alone would fill a link.
        """
        if query not in self._queries or (plan.pipeline, plan.configuration) not in self._profiles:
            raise PlanningError(f"query {query}: found no profile of its plan {plan.configuration}; plan again")
        return self._estimator(query, plan.configuration).candidate(plan)

    def on_deployments(self, query: Query, running: Iterable[Deployment]) -> Sequence[PlanCandidate]:
        """The plans of `query` that use running deployments only and promise its objectives.

        A frontier compares plans by what they take, not by whose deployments they share: these are the plans it may
        have dropped although they cost next to nothing beside the others.

        Args:
            query: one of the specification's.
            running: deployments of any pipelines; those that are not open to the query are left out.
        """
        pipeline = self._pipelines[query.pipeline]
        open_pools = {pool.name: pool.tier for pool in self._network.pools_for(query.source)}
        choices = []
        for operator in pipeline.operators:
            tiers = operator.allowed_tiers
            choices.append(
                [
                    deployment
                    for deployment in running
                    if (deployment.pipeline, deployment.operator) == (pipeline.name, operator.name)
                    and deployment.pool in open_pools
                    and (tiers is None or open_pools[deployment.pool] in tiers)
                    and query.pinned_pool(operator.name) in (None, deployment.pool)
                    and deployment.allocation.cpus in operator.cpus
                    and deployment.allocation.batch_size in operator.batch_sizes
                ]
            )
        plans = (
            QueryPlan(
                pipeline=pipeline.name,
                configuration=Configuration.of({d.operator: d.knobs for d in deployments}),
                placement=tuple(sorted((d.operator, d.pool) for d in deployments)),
                allocations=tuple(sorted((d.operator, d.allocation) for d in deployments)),
            )
            for deployments in product(*choices)
        )
        good_enough = (p for p in plans if matches_pins(query, p.configuration) and self._accurate(query, p))
        found = (self.feasible_estimate(query, plan) for plan in islice(good_enough, MOST_COMPOSED))
        return [candidate for candidate in found if candidate is not None]

    def _accurate(self, query: Query, plan: QueryPlan) -> bool:
        profile = self._profiles.get((plan.pipeline, plan.configuration))
        if profile is None:
            return False
        wanted = query.slos.accuracy
        if wanted is None:
            return True
        return wanted.is_met_by(profile.accuracy.lower if wanted.comparison == ">=" else profile.accuracy.upper)

    def feasible_estimate(self, query: Query, plan: QueryPlan) -> PlanCandidate | None:
        """A plan of a query of the specification, alone; None where it does not promise the query's objectives."""
        if self._is_refused(query.name, plan):
            return None
        key = (query.name, plan)
        if key not in self._promises:
            self._promises[key] = self._promise(query, plan)
        return self._promises[key]

    def _promise(self, query: Query, plan: QueryPlan) -> PlanCandidate | None:
        try:
            candidate = self._estimator(query.name, plan.configuration).candidate(plan)
        except PlanningError:  # a link that this query alone would fill
            return None
        return None if candidate.estimate.violations(query.slos) else candidate

    def _estimator(self, query: str, configuration: Configuration) -> Estimator:
        estimators = self._estimators[query]
        if configuration not in estimators:
            pipeline = self._pipelines[self._queries[query].pipeline]
            estimators[configuration] = Estimator(
                self._queries[query],
                pipeline,
                self._profiles[pipeline.name, configuration],
                self._network,
                usable_link_share=self._usable_link_share,
                alike=next(iter(estimators.values()), None),
                population=self._populations[pipeline.name],
            )
        return estimators[configuration]
