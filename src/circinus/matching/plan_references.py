"""Names in plans of served queries: whether the specification has the pipelines, operators, pools and sites.

Verbs look these up. Not checked are names of links, knobs and tenants, and those in rejections and `nodes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from circinus.errors import PlanningError
from circinus.specification.network import Network

if TYPE_CHECKING:
    from circinus.estimation import PlanCandidate
    from circinus.estimation.estimate import Estimate
    from circinus.matching.plan_set import Matching
    from circinus.specification import Deployment, QueryPlan, Specification

_Problem = tuple[str, object]
"""Kind and name of what the specification does not have."""


@dataclass(frozen=True)
class _Names:
    operators: Mapping[str, Set[str]]
    """Pipeline -> its operators."""
    pools: Set[str]
    sites: Set[str]


def require_references(matching: Matching, specification: Specification, location: str) -> None:
    """Check the names in the plans of served queries, in their deployments and in prices of resources.

    Raises:
        PlanningError: the specification has none of a name, as files of others or edited ones may be.
    """
    for kind, name in _problems(matching, specification):
        raise PlanningError(
            f"the plan file is damaged: found {kind} {name!r}, expected one of its specification",
            code="plan.damaged",
            location=location,
            hint="Run `circinus plan` again.",
        )


def _problems(matching: Matching, specification: Specification) -> Iterator[_Problem]:
    infrastructure = specification.required_infrastructure
    names = _Names(
        {
            name: {operator.name for operator in pipeline.operators}
            for name, pipeline in specification.pipelines.items()
        },
        {pool.name for pool in infrastructure.pools},
        {site.name for site in infrastructure.sites},
    )
    pipelines = {query.name: query.pipeline for query in specification.queries}
    for sized in matching.deployments:
        yield from _of_deployment(sized.deployment, sized.deployment.pipeline, names)
    for assignment in matching.assignments:
        pipeline = pipelines.get(assignment.query)
        if pipeline is None:
            yield "query", assignment.query
            continue
        rungs = () if assignment.ladder is None else assignment.ladder.rungs
        for whole in (assignment.chosen, *(rung.candidate for rung in rungs)):
            for candidate in (whole, *whole.parts):
                if candidate.query != assignment.query:
                    yield "query", candidate.query
                yield from _of_candidate(candidate, pipeline, names)
        for alternative in assignment.alternatives:
            yield from _of_plan(alternative.plan, alternative.estimate, pipeline, names)
    links = {link.name for link in Network(infrastructure).links}
    resources = {f"pool {name}" for name in names.pools} | {f"link {name}" for name in links}
    for price in matching.prices:
        if price.resource.partition(": ")[0] not in resources:
            yield "resource", price.resource


def _of_candidate(candidate: PlanCandidate, pipeline: str, names: _Names) -> Iterator[_Problem]:
    yield from _of_plan(candidate.plan, candidate.estimate, pipeline, names)
    for use in candidate.deployments:
        for deployment in (use.deployment, *(upstream for upstream, _ in use.after)):
            yield from _of_deployment(deployment, pipeline, names)
    for link in candidate.links:
        yield from (("site", site) for site in (link.link.source, link.link.target) if site not in names.sites)


def _of_plan(plan: QueryPlan, estimate: Estimate, pipeline: str, names: _Names) -> Iterator[_Problem]:
    operators = names.operators[pipeline]
    for part in (plan, *(share.plan for share in plan.others)):
        if part.pipeline != pipeline:
            yield "pipeline", part.pipeline
        for keys in (part.configuration, dict(part.placement), dict(part.allocations)):
            yield from (("operator", name) for name in sorted(operators ^ {*keys}))
        yield from (("pool", pool) for _, pool in part.placement if pool not in names.pools)
    for stage in estimate.stages:
        if stage.operator not in operators:
            yield "operator", stage.operator
        if stage.pool not in names.pools:
            yield "pool", stage.pool


def _of_deployment(deployment: Deployment, pipeline: str, names: _Names) -> Iterator[_Problem]:
    if deployment.pipeline != pipeline or pipeline not in names.operators:
        yield "pipeline", deployment.pipeline
    elif deployment.operator not in names.operators[pipeline]:
        yield "operator", deployment.operator
    if deployment.pool not in names.pools:
        yield "pool", deployment.pool
