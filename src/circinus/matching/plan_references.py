"""Names in a plan file: whether its specification has them, so that no verb looks for one in vain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from circinus.errors import PlanningError
from circinus.specification.network import Network

if TYPE_CHECKING:
    from circinus.estimation import PlanCandidate
    from circinus.estimation.estimate import Estimate
    from circinus.matching.plan_set import Matching
    from circinus.specification import Deployment, Infrastructure, Pipeline, QueryPlan, Specification

_Problem = tuple[str, object]
"""Kind and name of what the specification does not have."""


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
    pools, pipelines = {pool.name for pool in infrastructure.pools}, specification.pipelines
    queries = {query.name: pipelines[query.pipeline] for query in specification.queries}
    for sized in matching.deployments:
        yield from _of_deployment(sized.deployment, pipelines.get(sized.deployment.pipeline), pools)
    for assignment in matching.assignments:
        pipeline = queries.get(assignment.query)
        if pipeline is None:
            yield "query", assignment.query
            continue
        rungs = () if assignment.ladder is None else assignment.ladder.rungs
        for whole in (assignment.chosen, *(rung.candidate for rung in rungs)):
            for candidate in (whole, *whole.parts):
                if candidate.query != assignment.query:
                    yield "query", candidate.query
                yield from _of_candidate(candidate, pipeline, infrastructure, pools)
        for alternative in assignment.alternatives:
            yield from _of_plan(alternative.plan, alternative.estimate, pipeline, pools)
    resources = {f"pool {name}" for name in pools} | {f"link {link.name}" for link in Network(infrastructure).links}
    for price in matching.prices:
        if price.resource.partition(": ")[0] not in resources:
            yield "resource", price.resource


def _of_candidate(
    candidate: PlanCandidate, pipeline: Pipeline, infrastructure: Infrastructure, pools: set[str]
) -> Iterator[_Problem]:
    yield from _of_plan(candidate.plan, candidate.estimate, pipeline, pools)
    for use in candidate.deployments:
        for deployment in (use.deployment, *(upstream for upstream, _ in use.after)):
            yield from _of_deployment(deployment, pipeline, pools)
    sites = {site.name for site in infrastructure.sites}
    for link in candidate.links:
        yield from (("site", site) for site in (link.link.source, link.link.target) if site not in sites)


def _of_plan(plan: QueryPlan, estimate: Estimate, pipeline: Pipeline, pools: set[str]) -> Iterator[_Problem]:
    operators = {operator.name for operator in pipeline.operators}
    for part in (plan, *(share.plan for share in plan.others)):
        if part.pipeline != pipeline.name:
            yield "pipeline", part.pipeline
        for names in (part.configuration, dict(part.placement), dict(part.allocations)):
            yield from (("operator", name) for name in sorted(operators ^ {*names}))
        yield from (("pool", pool) for _, pool in part.placement if pool not in pools)
    for stage in estimate.stages:
        if stage.operator not in operators:
            yield "operator", stage.operator
        if stage.pool not in pools:
            yield "pool", stage.pool


def _of_deployment(deployment: Deployment, pipeline: Pipeline | None, pools: set[str]) -> Iterator[_Problem]:
    if pipeline is None or deployment.pipeline != pipeline.name:
        yield "pipeline", deployment.pipeline
    elif deployment.operator not in {operator.name for operator in pipeline.operators}:
        yield "operator", deployment.operator
    if deployment.pool not in pools:
        yield "pool", deployment.pool
