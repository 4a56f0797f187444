"""Advice for rejected queries: changes under which a query was really planned and served.

A change that was not followed successfully is no advice. The search takes some tens of admissions and, for nodes, a few
plans of all queries, so that it runs for selected queries only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from circinus.matching.admission import AdmissionPlanner
from circinus.matching.explanation.slo_relaxation import relax_slo, with_slos
from circinus.matching.optimizer import plan_all_queries
from circinus.matching.plan_set import Advice, Matching, Rejection
from circinus.matching.settings import DEFAULT_MATCH_SETTINGS, MatchSettings
from circinus.profiling import PipelineProfile
from circinus.specification import Query, Specification

_RISKS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
"""Risks at which a rejected query is planned."""

_MAX_ADDED_NODES = 3
"""Maximum number of additional nodes that are tried."""

_FOLLOWED_CHANGES = (0.1, 0.5, 2.0, 9.0)
"""Relative changes of an SLO against which `follow_advice` checks that no single one admits a query."""


def advise(
    planner: AdmissionPlanner, rejection: Rejection, settings: MatchSettings = DEFAULT_MATCH_SETTINGS
) -> Rejection:
    """Return the rejection with its smallest SLO relaxation and with advice on risk and nodes.

    For a query that would be admitted as it is, this is the only advice.

    Args:
        planner: with the matching that rejects the query.
        rejection: of the query.
        settings: of the plans of all queries with more nodes.
    """
    (query,) = [query for query in planner.specification.queries if query.name == rejection.query]
    relaxed = planner.with_relaxation(replace(rejection, advice=()))
    if relaxed.advice:
        return relaxed
    found = (_on_risk(planner, query), _on_nodes(planner, query, rejection, settings))
    return replace(relaxed, advice=tuple(advice for advice in found if advice is not None))


def _on_risk(planner: AdmissionPlanner, query: Query) -> Advice | None:
    for risk in _RISKS:
        if risk <= query.risk or planner.admitted(_at_risk(query, risk), short=True) is None:
            continue
        if planner.admitted(_at_risk(query, risk)) is not None:
            sentence = f"it would be admitted at a risk of {risk:g} (`spec.risk`) instead of {query.risk:g}"
            return Advice(sentence, risk=risk)
    return None


def _at_risk(query: Query, risk: float) -> Query:
    return query.model_copy(update={"risk": risk})


def _on_nodes(planner: AdmissionPlanner, query: Query, rejection: Rejection, settings: MatchSettings) -> Advice | None:
    """Return the smallest number of nodes in one pool with which a plan of all queries serves this one, too."""
    pools = dict.fromkeys(match[1] for name in rejection.binding if (match := re.match(r"pool (.+): ", name)))
    for added in range(1, _MAX_ADDED_NODES + 1):
        for pool in pools:
            larger = with_nodes(planner.specification, pool, added)
            with_more = AdmissionPlanner.of(larger, planner.profiles, planner.matching, planner.search)
            if with_more.admitted(query, short=True) is None:
                continue
            matching, _ = plan_all_queries(larger, planner.profiles, settings=settings, explain_rejections=())
            if _served(matching) >= {query.name, *_served(planner.matching)}:
                nodes = "1 more node" if added == 1 else f"{added} more nodes"
                sentence = f"it would be served, as all that are now, with {nodes} in pool {pool}"
                return Advice(sentence, pool=pool, nodes=added)
    return None


def with_nodes(specification: Specification, pool: str, added: int) -> Specification:
    """Return the specification with more nodes in a pool."""
    infrastructure = specification.required_infrastructure
    pools = tuple(
        p.model_copy(update={"nodes": p.nodes + added}) if p.name == pool else p for p in infrastructure.pools
    )
    return replace(specification, infrastructure=infrastructure.model_copy(update={"pools": pools}))


def _served(matching: Matching) -> set[str]:
    return {assignment.query for assignment in matching.assignments}


@dataclass(frozen=True)
class FollowedAdvice:
    """A sentence about a change, and whether it was true when the change was made."""

    query: str
    sentence: str
    change: str
    followed: bool


def follow_advice(
    specification: Specification,
    profiles: Mapping[str, PipelineProfile],
    *,
    settings: MatchSettings = DEFAULT_MATCH_SETTINGS,
    plan: Callable[..., tuple[Matching, object]] = plan_all_queries,
) -> Iterator[FollowedAdvice]:
    """Plan all queries, and yield each sentence of advice on rejected ones with the result of following it.

    A relaxation or a risk is followed by an admission with a changed specification, nodes by a plan of all queries.
    "No relaxation of a single SLO" is followed by admissions under single changes of each SLO.
    """
    matching, _ = plan(specification, profiles, settings=settings, explain_rejections=())
    planner = AdmissionPlanner.of(specification, profiles, matching)
    queries = {query.name: query for query in specification.queries}
    for rejection in matching.rejections:
        query, advised = queries[rejection.query], advise(planner, rejection, settings)
        if advised.relaxation is not None:
            relaxed = with_slos(query, advised.relaxation.slos)
            change = advised.relaxation.change
            admitted = _follow_admission(specification, profiles, matching, relaxed)
            yield FollowedAdvice(query.name, f"it would be admitted with {change}", change, admitted)
        if advised.unrelaxable:
            changes = [(kind, change) for kind in query.slos.by_kind for change in _FOLLOWED_CHANGES]
            admitted = any(
                _follow_admission(
                    specification, profiles, matching, with_slos(query, relax_slo(query.slos, kind, change))
                )
                for kind, change in changes
            )
            yield FollowedAdvice(query.name, "no relaxation of a single SLO would admit it", "any", not admitted)
        for advice in advised.advice:
            if advice.risk is None and advice.pool is None:
                admitted = _follow_admission(specification, profiles, matching, query)
                yield FollowedAdvice(query.name, advice.sentence, "none", admitted)
            if advice.risk is not None:
                at_risk = _at_risk(query, advice.risk)
                admitted = _follow_admission(specification, profiles, matching, at_risk)
                yield FollowedAdvice(query.name, advice.sentence, f"risk {advice.risk:g}", admitted)
            if advice.pool is not None:
                larger = with_nodes(specification, advice.pool, advice.nodes)
                after, _ = plan(larger, profiles, settings=settings, explain_rejections=())
                kept = _served(after) >= {query.name, *_served(matching)}
                yield FollowedAdvice(query.name, advice.sentence, f"{advice.pool} +{advice.nodes}", kept)


def _follow_admission(
    specification: Specification, profiles: Mapping[str, PipelineProfile], matching: Matching, query: Query
) -> bool:
    """Return whether a query with other fields is admitted, with everything prepared again."""
    queries = tuple(query if other.name == query.name else other for other in specification.queries)
    planner = AdmissionPlanner.of(replace(specification, queries=queries), profiles, matching)
    return planner.admitted(query) is not None
