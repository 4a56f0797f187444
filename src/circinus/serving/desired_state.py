"""From a matching to the state that an engine shall bring about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from circinus.errors import ServingError
from circinus.matching import Matching, SizedDeployment
from circinus.serving.engine import DesiredDeployment, DesiredState, Mode, Route, RouteStage
from circinus.specification import (
    BurstyArrivals,
    Infrastructure,
    Pipeline,
    Query,
    QueryPlan,
    Specification,
    prefix_configuration,
)

_ADMITTED = 1.2
"""Times the rate that a query was planned for at its highest: beyond that its objectives are promised to nobody."""


def build_desired_state(
    matching: Matching,
    specification: Specification,
    mode: Mode,
    recordings: Path | None = None,
    operator_versions: Mapping[str, str] | None = None,
    *,
    deployments: Sequence[SizedDeployment] | None = None,
    plans: Mapping[str, QueryPlan] | None = None,
    peak: float = 1.0,
    audited_share: float = 0.0,
) -> DesiredState:
    """The deployments of `matching` with their sizes, and one route for every query that got a plan.

    Args:
        matching: what the planner chose.
        specification: what it was chosen for.
        mode: how replicas shall answer.
        recordings: the profile store that a replaying engine answers from; ignored in the mode `real`.
        operator_versions: `uses` reference -> version of the operator's code.
        deployments: what runs, instead of those of the matching.
        plans: query -> the plan that its requests follow, instead of the one that it got.
        peak: times its rate that a query may send for long, as somebody takes care of that.
        audited_share: of the answered requests of every query that is kept to be audited.

    Raises:
        ServingError: the specification has no infrastructure, or a replay is asked for without recordings.
    """
    if specification.infrastructure is None:
        raise ServingError(
            "the specification has no infrastructure to deploy on",
            code="specification.no_infrastructure",
            hint="Add a document `kind: Infrastructure`.",
        )
    if mode is Mode.REPLAY and recordings is None:
        raise ServingError(
            "replay needs a profile store",
            code="engine.no_recordings",
            location="mode replay",
            hint="Pass the path of the store.",
        )
    queries = {query.name: query for query in specification.queries}
    versions = operator_versions or {}
    return DesiredState(
        mode=mode,
        infrastructure=specification.infrastructure,
        deployments=tuple(
            _desired_deployment(sized, specification.pipelines, specification.infrastructure, versions)
            for sized in (matching.deployments if deployments is None else deployments)
        ),
        routes=tuple(
            build_route(
                queries[assignment.query],
                (plans or {}).get(assignment.query, assignment.chosen.plan),
                specification.pipelines[assignment.chosen.plan.pipeline],
                peak,
                audited_share,
            )
            for assignment in matching.assignments
        ),
        module_paths=specification.module_paths,
        recordings=recordings if mode is Mode.REPLAY else None,
    )


def build_route(
    query: Query, plan: QueryPlan, pipeline: Pipeline, peak: float = 1.0, audited_share: float = 0.0
) -> Route:
    """The way of the requests of `query` under `plan`; the rest as of `desired_state`."""
    return Route(
        query=query.name,
        pipeline=pipeline.name,
        source=query.source,
        stages=tuple(
            RouteStage(
                operator=operator.name,
                after=operator.after,
                deployment=plan.deployment_of(operator.name),
                prefix=prefix_configuration(pipeline, plan.configuration, operator.name),
            )
            for operator in pipeline.topological_order()
        ),
        sinks=pipeline.sinks(),
        rate_limit_per_s=_ADMITTED * query.rate_per_s * max(peak, _peak(query)),
        audit_rate=audited_share,
    )


def _peak(query: Query) -> float:
    """How many times as often as in the mean its requests come for a while."""
    return query.arrivals.peak if isinstance(query.arrivals, BurstyArrivals) else 1.0


def _desired_deployment(
    sized: SizedDeployment,
    pipelines: Mapping[str, Pipeline],
    infrastructure: Infrastructure,
    versions: Mapping[str, str],
) -> DesiredDeployment:
    deployment = sized.deployment
    operator = pipelines[deployment.pipeline].operator(deployment.operator)
    declared = infrastructure.pool(deployment.pool).hardware.speed
    return DesiredDeployment(
        deployment=deployment,
        uses=operator.uses,
        replicas=sized.replicas,
        cpus=sized.demand.cpus,
        memory_bytes=sized.demand.memory_bytes,
        gpus=sized.demand.gpus,
        relative_speed=declared if sized.relative_speed is None else sized.relative_speed,
        operator_version=versions.get(operator.uses, ""),
        batch_wait_s=operator.batch_wait_s,
    )
