"""Replanning of the current queries for other numbers of nodes."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from circinus.control.ladders.standby import plan_standby
from circinus.control.managed_plans import ManagedPlans
from circinus.errors import PlanningError
from circinus.matching import Incumbent, Matching, plan_all_queries
from circinus.matching.admission import AdmissionPlanner
from circinus.profiling import PipelineProfile
from circinus.specification import Query, Specification
from circinus.specification.formatting import with_metric

Profiles = Mapping[str, PipelineProfile]

_CHANGE_SHARE = 0.1
"""Minimum saving that justifies another plan for a query that can stay, as a share of the mean cost per query."""

_MAX_DISPLACED = 3
"""Maximum number of displaced queries that are explained, at up to some tenths of a second each."""

_RELAXED_WEIGHT = 1e-3
"""Factor on the weight of a query whose SLOs cannot be met."""


@dataclass(frozen=True)
class ReplanResult:
    """Plans for the present nodes."""

    controlled: ManagedPlans
    unpinned: tuple[str, ...] = ()
    """Pinned queries that cannot run on the remaining nodes."""
    relaxed: tuple[str, ...] = ()
    """Queries with relaxed SLOs, such as `lots (accuracy >= 0.9 -> 0.82)`."""
    explain_displaced: Callable[[], tuple[str, ...]] = lambda: ()
    """Function that returns some queries whose plan changes although it uses no pool that lost nodes, with the reason:
    a promise may rest on replicas that other queries share. Recovery plans need not wait for it."""


def replan_for_nodes(
    controlled: ManagedPlans, nodes: Mapping[str, int], profiles: Profiles, *, relax: Collection[str] = ()
) -> ReplanResult:
    """Plan the current queries for other nodes; running plans change only if much is gained.

    Running queries of the re-profiled pipelines in `relax` continue with the plan that needs the smallest
    relaxation if their SLOs cannot be met any more, because degraded answers are better than none.

    Raises:
        PlanningError: no query can be served.
    """
    specified = controlled.specification.required_infrastructure
    pools = tuple(pool.model_copy(update={"nodes": nodes.get(pool.name, 0)}) for pool in specified.pools)
    present = specified.model_copy(update={"pools": pools})
    served = controlled.matching.assignments
    price = _CHANGE_SHARE * controlled.matching.cost_usd_per_h / max(1, len(served))
    running = Incumbent.of(controlled.matching, change_usd_per_h=price)
    specification = replace(controlled.specification, infrastructure=present)
    explain = [query.name for query in controlled.queries.values() if query.pipeline in relax]
    matching, unpinned = _plan_all(specification, profiles, running, explain)
    relaxed, descriptions = _relaxed_queries(controlled, matching)
    if relaxed:
        queries = tuple(relaxed.get(query.name, query) for query in specification.queries)
        matching, unpinned = _plan_all(replace(specification, queries=queries), profiles, running)
    if not matching.assignments:
        metrics = specification.metric_names
        reasons = "; ".join(f"{r.query}: {with_metric(r.reason, metrics[r.query])}" for r in matching.rejections[:3])
        raise PlanningError(f"no query can be served on the remaining nodes ({reasons})", code="plan.no_served_query")
    ready = matching.deployments
    if controlled.peak > 1:
        running_replicas = {entry.deployment: entry.replicas for entry in controlled.deployments}
        ready = plan_standby(
            matching, present, controlled.peak, profiles, controlled.standby_pools, running_replicas
        ).deployments
    overrides = {
        pool.name: nodes.get(pool.name, 0) for pool in specified.pools if nodes.get(pool.name, 0) != pool.nodes
    }
    still_served = matching.served
    lowered = tuple(description for name, description in descriptions.items() if name in still_served)
    return ReplanResult(
        replace(controlled, matching=matching, deployments=ready, node_overrides=overrides),
        unpinned,
        lowered,
        partial(_displaced, controlled, matching, specification, profiles),
    )


def _displaced(
    controlled: ManagedPlans, matching: Matching, specification: Specification, profiles: Profiles
) -> tuple[str, ...]:
    """Return some queries that change though their pools lost no nodes, with what their plan would miss now."""
    present = {pool.name: pool.nodes for pool in specification.required_infrastructure.pools}
    shrunk = {pool for pool, nodes in controlled.nodes.items() if present[pool] < nodes}
    plans = {assignment.query: assignment.chosen.plan for assignment in matching.assignments}
    changed = [
        (before.query, before.chosen.plan)
        for before in controlled.matching.assignments
        if shrunk and plans.get(before.query) not in (None, before.chosen.plan)
        if shrunk.isdisjoint(used.pool for used in before.chosen.plan.deployments)
    ]
    queries, found = {query.name: query for query in specification.queries}, []
    for name, plan in changed[:_MAX_DISPLACED]:
        others = tuple(assignment for assignment in matching.assignments if assignment.query != name)
        planner = AdmissionPlanner.of(specification, profiles, replace(matching, assignments=others))
        admission, _ = planner.admit(queries[name], only=plan, max_simulations=0)
        reason = "another plan lets more queries run or costs less"
        if admission.rejection is not None:
            reason = admission.rejection.reason
        found.append(f"{name} ({reason})")
    return tuple(found)


def _relaxed_queries(controlled: ManagedPlans, matching: Matching) -> tuple[dict[str, Query], dict[str, str]]:
    """Return rejected queries with relaxed SLOs and low weight, to yield to all others, and the changes as text."""
    queries, descriptions = {}, {}
    for rejection in matching.rejections:
        if rejection.relaxation is not None:
            query = controlled.queries[rejection.query]
            slos, weight = rejection.relaxation.slos, _RELAXED_WEIGHT * query.weight
            queries[query.name] = query.model_copy(update={"slos": slos, "weight": weight})
            descriptions[query.name] = f"{query.name} ({rejection.relaxation.change})"
    return queries, descriptions


def _plan_all(
    specification: Specification, profiles: Profiles, running: Incumbent, explain: Collection[str] = ()
) -> tuple[Matching, tuple[str, ...]]:
    """Plan all queries, without the least important pinned queries if not all can run.

    Relaxations are computed only for queries in `explain`, so that plans do not wait for others.
    """
    pinned = sorted((q for q in specification.queries if q.pin), key=lambda q: (q.priority, q.weight, q.name))
    omitted: list[str] = []
    while True:
        queries = [query for query in specification.queries if query.name not in omitted]
        try:
            matching, _ = plan_all_queries(
                replace(specification, queries=tuple(queries)), profiles, incumbent=running, explain_rejections=explain
            )
        except PlanningError as error:
            if len(omitted) == len(pinned):
                raise
            omitted.append(_next_omitted(pinned, specification, omitted, error.location))
        else:
            return matching, tuple(omitted)


def _next_omitted(pinned: Sequence[Query], specification: Specification, omitted: Sequence[str], location: str) -> str:
    """Return the pinned query to omit next: on a lost pool, else at the error's location, else the least important."""
    lost_pools = {pool.name for pool in specification.required_infrastructure.pools if pool.nodes == 0}
    remaining = [query for query in pinned if query.name not in omitted]
    on_lost_pools = [query for query in remaining if any(pin.pool in lost_pools for pin in query.pin or ())]
    names = _located_queries(location)
    located = [query for query in remaining if query.name in names]
    return (on_lost_pools or located or remaining)[0].name


def _located_queries(location: str) -> frozenset[str]:
    """Return the queries of an error's location, `query NAME` or `queries NAME, NAME and NAME`."""
    kind, _, names = location.partition(" ")
    return frozenset(re.split(", | and ", names)) if kind in ("query", "queries") else frozenset()


@dataclass(frozen=True)
class ReplanDependencies:
    """Replanning functions that the controller calls. All except `changed`, `cancel` and `acknowledge` may block."""

    profiles: Callable[[ManagedPlans], Profiles]
    """Profiles of all pipelines that the queries of some plans use."""
    changed: Callable[[], bool] = lambda: False
    """True if plan files changed since the last acknowledged plans."""
    latest: Callable[[ManagedPlans], ManagedPlans] = lambda controlled: controlled
    """Plans in the files, given the current plans."""
    prepare: Callable[[ManagedPlans], Sequence[str]] = lambda controlled: ()
    """Preparation of plans for deployment, such as recordings; returns new warnings."""
    cancel: Callable[[], None] = lambda: None
    """Cancellation of running planning; its result must not be written."""
    acknowledge: Callable[[], None] = lambda: None
    """Acknowledgement that the result of `latest` was adopted or unchanged; until then it may be lost."""
    follows_nodes: bool = True
    """Whether changes of nodes cause other plans."""


NO_REPLANNING = ReplanDependencies(profiles=lambda controlled: {}, follows_nodes=False)
"""Replanning that never changes plans."""
