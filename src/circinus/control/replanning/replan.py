"""Plans for other nodes than there were."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from circinus.control.ladders.standby import plan_standby
from circinus.control.managed_plans import ManagedPlans
from circinus.errors import PlanningError
from circinus.matching import Incumbent, Matching, plan_all_queries
from circinus.profiling import PipelineProfile
from circinus.specification import Query, Specification

Profiles = Mapping[str, PipelineProfile]

_CHANGE_SHARE = 0.1
"""Of what a query costs in the mean: what another plan for one that can stay must save."""

_RELAXED_WEIGHT = 1e-3
"""Times its weight that a query counts whose objectives are not kept anyway."""


@dataclass(frozen=True)
class ReplanResult:
    """Plans for what is there now."""

    controlled: ManagedPlans
    unpinned: tuple[str, ...] = ()
    """Queries that must run as given, and cannot on what is left."""
    relaxed: tuple[str, ...] = ()
    """Queries whose objectives cannot be promised any more, with what can: `lots (accuracy >= 0.9 -> 0.82)`."""


def replan_for_nodes(
    controlled: ManagedPlans, nodes: Mapping[str, int], profiles: Profiles, *, relax: Collection[str] = ()
) -> ReplanResult:
    """Plans for the same queries on other nodes; those that can stay as they are do, unless much is gained.

    Args:
        controlled: the plans in force.
        nodes: pool -> nodes that live.
        profiles: pipeline -> what was measured of it, of all that queries use.
        relax: pipelines that were measured again. Queries of theirs that run go on running, with the plan that needs
            the least change of their objectives, where these cannot be promised any more: to be answered worse is
            better than not at all.

    Raises:
        PlanningError: nobody can be served.
    """
    specified = controlled.specification.infrastructure
    assert specified is not None, "plans are made for one"
    pools = tuple(pool.model_copy(update={"nodes": nodes.get(pool.name, 0)}) for pool in specified.pools)
    there = specified.model_copy(update={"pools": pools})
    served = controlled.matching.assignments
    price = _CHANGE_SHARE * controlled.matching.cost_usd_per_h / max(1, len(served))
    running = Incumbent.of(controlled.matching, change_usd_per_h=price)
    specification = replace(controlled.specification, infrastructure=there)
    lower = [query.name for query in controlled.queries.values() if query.pipeline in relax]
    matching, unpinned = _planned(specification, profiles, running, lower)
    relaxed, words = _relaxed(controlled, matching)
    if relaxed:
        queries = tuple(relaxed.get(query.name, query) for query in specification.queries)
        matching, unpinned = _planned(replace(specification, queries=queries), profiles, running)
    if not matching.assignments:
        reasons = "; ".join(f"{found.query}: {found.reason}" for found in matching.rejections[:3])
        raise PlanningError(f"no query can be served on the remaining nodes ({reasons})", code="plan.no_served_query")
    ready = matching.deployments
    if controlled.peak > 1:
        before = {found.deployment: found.replicas for found in controlled.deployments}
        ready = plan_standby(matching, there, controlled.peak, profiles, controlled.standby_pools, before).deployments
    fewer = {pool.name: nodes.get(pool.name, 0) for pool in specified.pools if nodes.get(pool.name, 0) != pool.nodes}
    served_now = {found.query for found in matching.assignments}
    lowered = tuple(said for name, said in words.items() if name in served_now)
    return ReplanResult(
        replace(controlled, matching=matching, deployments=ready, node_overrides=fewer), unpinned, lowered
    )


def _relaxed(controlled: ManagedPlans, matching: Matching) -> tuple[dict[str, Query], dict[str, str]]:
    """Those that got no plan, with objectives that some plan was found to keep, and what changed in words. They make
    room for all others."""
    found, words = {}, {}
    for rejection in matching.rejections:
        if rejection.relaxation is not None:
            query = controlled.queries[rejection.query]
            slos, weight = rejection.relaxation.slos, _RELAXED_WEIGHT * query.weight
            found[query.name] = query.model_copy(update={"slos": slos, "weight": weight})
            words[query.name] = f"{query.name} ({rejection.relaxation.change})"
    return found, words


def _planned(
    specification: Specification, profiles: Profiles, running: Incumbent, lower: Collection[str] = ()
) -> tuple[Matching, tuple[str, ...]]:
    """All plans; where pinned queries cannot run, without the least important of them. For those in `lower` is found,
    where they get no plan, what they could be promised instead: for nobody else, as plans must not wait for that."""
    pinned = sorted((q for q in specification.queries if q.pin), key=lambda q: (q.priority, q.weight, q.name))
    dropped: list[str] = []
    while True:
        queries = [query for query in specification.queries if query.name not in dropped]
        try:
            matching, _ = plan_all_queries(
                replace(specification, queries=tuple(queries)), profiles, incumbent=running, explain_rejections=lower
            )
        except PlanningError as error:
            if len(dropped) == len(pinned):
                raise
            dropped.append(_hopeless(pinned, specification, dropped, str(error)))
        else:
            return matching, tuple(dropped)


def _hopeless(pinned: Sequence[Query], specification: Specification, dropped: Sequence[str], said: str) -> str:
    """Which pinned query to leave out next: one on a pool that is gone, one that the message names, or the least
    important."""
    assert specification.infrastructure is not None
    gone = {pool.name for pool in specification.infrastructure.pools if pool.nodes == 0}
    left = [query for query in pinned if query.name not in dropped]
    on_gone = [query for query in left if any(pin.pool in gone for pin in query.pin or ())]
    named = [query for query in left if query.name in said]
    return (on_gone or named or left)[0].name


@dataclass(frozen=True)
class ReplanDependencies:
    """Everything about making other plans that a controller must be told. All but `changed`, `end` and `took` may
    block."""

    profiles: Callable[[ManagedPlans], Profiles]
    """Of all pipelines that the queries of some plans use."""
    changed: Callable[[], bool] = lambda: False
    """Whether files that plans come from are others than when they gave the plans that were last taken over."""
    latest: Callable[[ManagedPlans], ManagedPlans] = lambda controlled: controlled
    """The plans that files say now, given those in force."""
    prepare: Callable[[ManagedPlans], None] = lambda controlled: None
    """Whatever plans need before they can be deployed, such as recordings."""
    cancel: Callable[[], None] = lambda: None
    """Nothing that is being made is wanted any more, nor to be written."""
    acknowledge: Callable[[], None] = lambda: None
    """What `latest` last gave was taken over, or was what files said before: until then it can be lost on the way."""
