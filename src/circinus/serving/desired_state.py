"""Conversion of a matching into the desired state of an engine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path

from circinus.errors import ServingError
from circinus.estimation import PlanCandidate
from circinus.matching import Matching, SizedDeployment
from circinus.operators.protocol import Emission
from circinus.serving.engine import DesiredDeployment, DesiredState, Mode
from circinus.serving.routes import Route, RouteShare, RouteStage
from circinus.serving.settings import SERVING
from circinus.specification import (
    BurstyArrivals,
    Infrastructure,
    Pipeline,
    Query,
    QueryPlan,
    Specification,
    prefix_configuration,
)


def build_desired_state(
    matching: Matching,
    specification: Specification,
    mode: Mode,
    recordings: Path | None = None,
    operator_versions: Mapping[str, str] | None = None,
    *,
    deployments: Sequence[SizedDeployment] | None = None,
    plans: Mapping[str, PlanCandidate] | None = None,
    peak: float = 1.0,
    audited_share: float = 0.0,
) -> DesiredState:
    """Return the deployments of `matching` with their sizes, and a route for every served query.

    Args:
        matching: plans of the queries, and sized deployments.
        specification: the specification that the matching was made for.
        mode: mode of the replicas.
        recordings: the profile store that a replaying engine answers from; ignored in the mode `real`.
        operator_versions: `uses` reference -> version of the operator's code.
        deployments: deployments to run instead of those of the matching.
        plans: query -> plan of its requests, instead of the assigned plan.
        peak: sustained burst factor to admit over every query's rate, if bursts are handled by degradation.
        audited_share: fraction of the answered requests of every query to keep for audits.

    Raises:
        PlanningError: the specification has no infrastructure.
        ServingError: a replay has no recordings.
    """
    if mode is Mode.REPLAY and recordings is None:
        raise ServingError(
            "a profile store is required",
            code="engine.no_recordings",
            location="mode replay",
            hint="Pass the path of the store.",
        )
    queries = {query.name: query for query in specification.queries}
    versions, infrastructure = operator_versions or {}, specification.required_infrastructure
    return DesiredState(
        mode=mode,
        infrastructure=infrastructure,
        deployments=tuple(
            _desired_deployment(sized, specification.pipelines, infrastructure, versions, mode)
            for sized in (matching.deployments if deployments is None else deployments)
        ),
        routes=tuple(
            build_route(
                queries[assignment.query],
                candidate.plan,
                specification.pipelines[candidate.plan.pipeline],
                *(
                    {stage.operator: stage.latest_start_s for stage in part.estimate.stages}
                    for part in candidate.unsplit
                ),
                peak=peak,
                audited_share=audited_share,
            )
            for assignment in matching.assignments
            for candidate in [(plans or {}).get(assignment.query, assignment.chosen)]
        ),
        module_paths=specification.module_paths,
        recordings=recordings if mode is Mode.REPLAY else None,
    )


def build_route(
    query: Query,
    plan: QueryPlan,
    pipeline: Pipeline,
    *latest_starts_s: Mapping[str, float | None],
    peak: float = 1.0,
    audited_share: float = 0.0,
) -> Route:
    """Return the route of a query under a plan.

    Args:
        query: the query.
        plan: its plan.
        pipeline: its pipeline.
        latest_starts_s: operator -> latest start (`circinus.estimation.latest_start`), for each part of the plan; by
            default there are none.
        peak: see `build_desired_state`.
        audited_share: see `build_desired_state`.
    """
    main, *others = (
        RouteShare(part.share, _stages(part.plan, pipeline, starts_s))
        for part, starts_s in zip(plan.parts, chain(latest_starts_s, repeat({})), strict=False)
    )
    return Route(
        query=query.name,
        pipeline=pipeline.name,
        source=query.source,
        stages=main.stages,
        sinks=pipeline.sinks(),
        late=query.late,
        rate_limit_per_s=SERVING.admission_headroom * query.rate_per_s * max(peak, _burst_factor(query)),
        audit_rate=audited_share,
        tenant=query.tenant or "",
        others=tuple(others),
    )


def _stages(plan: QueryPlan, pipeline: Pipeline, starts_s: Mapping[str, float | None]) -> tuple[RouteStage, ...]:
    """Return the stages of a plan that is not split."""
    finite_s = {operator: start_s for operator, start_s in starts_s.items() if start_s != math.inf}
    return tuple(
        RouteStage(
            operator=operator.name,
            after=operator.parents,
            deployment=plan.deployment_of(operator.name),
            prefix=prefix_configuration(pipeline, plan.configuration, operator.name),
            latest_start_s=finite_s.get(operator.name),
            flow=operator.flow if pipeline.has_fan_outs else None,
        )
        for operator in pipeline.topological_order()
    )


def _burst_factor(query: Query) -> float:
    return query.arrivals.peak if isinstance(query.arrivals, BurstyArrivals) else 1.0


def _desired_deployment(
    sized: SizedDeployment,
    pipelines: Mapping[str, Pipeline],
    infrastructure: Infrastructure,
    versions: Mapping[str, str],
    mode: Mode,
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
        batch_ratio=sized.batch_ratio,
        is_spread=sized.demand.spare_replicas > 0,
        emission=Emission.of(operator),
        batch_limit_s=_batch_limit_s(sized) if mode is Mode.REAL else None,
    )


def _batch_limit_s(sized: SizedDeployment) -> float | None:
    """Return the time limit of a batch; None if the plan has no times of batches."""
    if sized.max_batch_s is None:
        return None
    return max(SERVING.min_batch_limit_s, SERVING.batch_limit_factor * sized.max_batch_s)
