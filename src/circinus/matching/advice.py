"""Advice for rejected queries: changes under which a query was really planned and served.

A change that was not followed successfully is no advice. The search takes some tens of admissions and a few plans of
all queries, so that it runs for selected queries only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache, reduce

from circinus.errors import PlanningError
from circinus.matching.admission import AdmissionPlanner
from circinus.matching.admission_decision import Admission
from circinus.matching.explanation.slo_relaxation import changed_slos, describe_changes, relative_change, with_slos
from circinus.matching.incumbent import Incumbent
from circinus.matching.plan_all import plan_all_queries
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.plan_set import Advice, Matching, Rejection, Relaxation
from circinus.matching.settings import DEFAULT_MATCH_SETTINGS, MATCHING, MatchSettings
from circinus.matching.tolerances import WEIGHT_TOLERANCE
from circinus.planning.settings import DEFAULT_SETTINGS, SearchSettings
from circinus.profiling import PipelineProfile
from circinus.specification import Network, Query, Slos, Specification

_RISKS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
"""Risks at which a rejected query is planned."""

_PROBED_RISKS = 2
"""Number of the highest risks of which one must admit the query before lower ones are tried."""

_MAX_ADDED_NODES, _MAX_POOLS = 3, 4
"""Maximum number of additional nodes that are tried, and of pools that get them, the fullest first."""

_POOL = re.compile(r"pool (.+): ")
"""Resource of a pool."""


def admit_query(
    specification: Specification,
    profiles: Mapping[str, PipelineProfile],
    matching: Matching,
    name: str,
    *,
    search: SearchSettings = DEFAULT_SETTINGS,
) -> tuple[Admission, Matching]:
    """Plan one more query of a specification together with the running matching.

    If formulas are inaccurate for a new estimate, all plans are simulated together, which takes about a second; plans
    that make any query too slow in the simulation are excluded. A rejection has the smallest relaxation that was found,
    and says whether a plan of all queries would serve this one, too; both take some seconds.

    Args:
        specification: with an infrastructure, the query, and all served queries.
        profiles: pipeline name -> profile, of all pipelines in use.
        matching: the running plans.
        name: the query, which the matching does not serve.
        search: settings of the plan search.

    Returns:
        The admission, and the matching with the query if it was admitted, else unchanged.

    Raises:
        PlanningError: no infrastructure, a missing profile, or a running plan without profile.
    """
    (query,) = [query for query in specification.queries if query.name == name]
    planner = AdmissionPlanner.of(specification, profiles, matching, search)
    admission, admitted = planner.admit(query)
    if admission.rejection is not None:
        rejection = planner.relaxed(query, admission.rejection, admission.rejection)
        other = _on_other_plans(planner, query, rejection.relaxation, DEFAULT_MATCH_SETTINGS)
        admission = replace(admission, rejection=replace(rejection, advice=() if other is None else (other,)))
    return admission, admitted


def advise(
    planner: AdmissionPlanner, rejection: Rejection, settings: MatchSettings = DEFAULT_MATCH_SETTINGS
) -> Rejection:
    """Return the rejection with its smallest SLO relaxation and with advice on other plans, risk and nodes.

    For a query that would be admitted as it is, this is the only advice.

    Args:
        planner: with the matching that rejects the query; its `check_time` ends the search with what was found.
        rejection: of the query.
        settings: of the plans of all queries.

    Raises:
        TimeoutError: the time ended before the search for a relaxation.
    """
    (query,) = [query for query in planner.specification.queries if query.name == rejection.query]
    relaxed = planner.with_relaxation(replace(rejection, advice=()))
    if relaxed.advice:
        return relaxed
    found = list[Advice | None]()
    with suppress(TimeoutError):  # each advice was followed successfully, also if a later search ends early
        found.append(_on_other_plans(planner, query, relaxed.relaxation, settings))
        found.append(_on_risk(planner, query))
        found.append(_on_nodes(planner, query, settings))
    return replace(relaxed, advice=tuple(advice for advice in found if advice is not None))


def _on_other_plans(
    planner: AdmissionPlanner, query: Query, relaxation: Relaxation | None, settings: MatchSettings
) -> Advice | None:
    """Return the query's SLOs, or a smaller relaxation of one of them, with which a plan of all queries serves it, too.

    The nearest limit is tried under which the query has a plan by itself: the running plans may leave no room for such
    a plan, but other plans of their queries may.

    Args:
        planner: with the running plans.
        query: is rejected.
        relaxation: admits it beside the running plans.
        settings: of the plans of all queries.
    """
    if len(planner.specification.queries) > MATCHING.max_exact_queries:
        return None
    slos, largest = query.slos, math.inf
    if relaxation is not None:
        changed = changed_slos(slos, relaxation.slos)
        largest = sum(relative_change(slos, relaxation.slos, (kind,)) for kind in changed)
    isolated = planner.plans.replan(query, planner.search)
    may_be_served = bool(isolated.candidates) and _bound_has_room(planner.matching, query)
    tried = [(0.0, slos)] if may_be_served else list[tuple[float, Slos]]()
    for single in isolated.relaxations:
        relaxed = slos.replaced(single.slo, slos.by_kind[single.slo].relaxed_to(single.limit))
        tried.append((relative_change(slos, relaxed, (single.slo,)), relaxed))
    change, relaxed = min(tried, key=lambda entry: entry[0], default=(math.inf, slos))
    if change >= largest:
        return None
    planner.check_time()
    queries = tuple(with_slos(q, relaxed) if q.name == query.name else q for q in planner.specification.queries)
    specification, running = replace(planner.specification, queries=queries), Incumbent.of(planner.matching)
    with suppress(PlanningError):  # pinned queries may not fit
        matching, _ = plan_all_queries(
            specification,
            planner.profiles,
            search=planner.search,
            settings=settings,
            incumbent=running,
            explain_rejections=(),
        )
        if matching.served >= {query.name, *planner.matching.served}:
            sentence = "`circinus plan` would serve it as it is, and all that are now, on other plans"
            if relaxed != slos:
                change_text = describe_changes(slos, relaxed)
                sentence = f"with {change_text}, `circinus plan` would serve it and all that are now, on other plans"
            return Advice(sentence, slos=relaxed)
    return None


def _bound_has_room(matching: Matching, query: Query) -> bool:
    """Return whether the bound on the weight leaves room for a rejected query; new queries are not counted in it."""
    is_counted = any(rejection.query == query.name for rejection in matching.rejections)
    needed = matching.satisfied_weight + query.weight * (1 - WEIGHT_TOLERANCE)
    return not is_counted or matching.weight_bound >= needed


def _on_risk(planner: AdmissionPlanner, query: Query) -> Advice | None:
    risks = [risk for risk in _RISKS if risk > query.risk]

    @cache
    def may_be_admitted(risk: float) -> bool:
        return planner.admitted(_at_risk(query, risk), short=True) is not None

    if not any(map(may_be_admitted, risks[-_PROBED_RISKS:])):
        return None
    for risk in filter(may_be_admitted, risks):
        if planner.admitted(_at_risk(query, risk)) is not None:
            sentence = f"it would be admitted at a risk of {risk:g} (`spec.risk`) instead of {query.risk:g}"
            return Advice(sentence, risk=risk)
    return None


def _at_risk(query: Query, risk: float) -> Query:
    return query.model_copy(update={"risk": risk})


def _on_nodes(planner: AdmissionPlanner, query: Query, settings: MatchSettings) -> Advice | None:
    """Return the smallest number of nodes in one pool with which the next plan serves this query, too.

    Whatever the query was rejected for, a plan on other pools or with more replicas may meet its SLOs.
    """
    specification, used = planner.specification, dict[str, float]()
    for price in planner.matching.prices:
        if match := _POOL.match(price.resource):
            used[match[1]] = max(price.used, used.get(match[1], 0.0))
    open_pools = [pool.name for pool in Network(specification.required_infrastructure).pools_for(query.source)]
    largest = reduce(lambda larger, pool: with_nodes(larger, pool, _MAX_ADDED_NODES), open_pools, specification)
    with_largest = PlanEstimates(largest, planner.profiles, planner.plans.compiled)
    plans = replace(planner, plans=with_largest).isolated_plans(query)
    pools = {use.deployment.pool for candidate in plans for use in candidate.deployments}
    fullest = sorted(pools, key=lambda pool: (-used.get(pool, 0.0), pool))[:_MAX_POOLS]
    most = reduce(lambda larger, pool: with_nodes(larger, pool, _MAX_ADDED_NODES), fullest, specification)
    if not fullest or not _may_admit(planner, most, query):
        return None
    for added in range(1, _MAX_ADDED_NODES + 1):
        for pool in fullest:
            larger = with_nodes(specification, pool, added)
            if not _may_admit(planner, larger, query):
                continue
            matching, _ = plan_all_queries(
                larger,
                planner.profiles,
                search=planner.search,
                settings=settings,
                incumbent=Incumbent.of(planner.matching),
                explain_rejections=(),
            )
            if matching.served >= {query.name, *planner.matching.served}:
                nodes = "1 more node" if added == 1 else f"{added} more nodes"
                sentence = f"it would be served, as all that are now, with {nodes} in pool {pool}"
                return Advice(sentence, pool=pool, nodes=added)
    return None


def _may_admit(planner: AdmissionPlanner, specification: Specification, query: Query) -> bool:
    """Return whether other infrastructure may admit a query beside the running plans, which may not run on it."""
    plans = PlanEstimates(specification, planner.profiles, planner.plans.compiled, planner.search)
    try:
        other = AdmissionPlanner.of(specification, planner.profiles, planner.matching, planner.search, plans)
    except PlanningError:  # more nodes of a spot pool need more spare replicas, which only a new plan has
        return True
    return replace(other, check_time=planner.check_time).admitted(query, short=True) is not None


def with_nodes(specification: Specification, pool: str, added: int) -> Specification:
    """Return the specification with more nodes in a pool."""
    infrastructure = specification.required_infrastructure
    pools = tuple(
        p.model_copy(update={"nodes": p.nodes + added}) if p.name == pool else p for p in infrastructure.pools
    )
    return replace(specification, infrastructure=infrastructure.model_copy(update={"pools": pools}))
