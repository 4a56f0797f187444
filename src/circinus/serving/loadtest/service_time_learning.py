"""Learning of service times from a load test, and the reasons to skip a deployment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from circinus.matching import Matching, SizedDeployment
from circinus.profiling import DECLARED, MIN_ITEMS, PredictedServiceTime, PredictedServiceTimes, ServiceTimeObservation
from circinus.serving.engine import DeploymentStatus, EngineStatus, Response
from circinus.serving.loadtest.load_report import ServiceTimeReport, SkippedDeployment
from circinus.serving.loadtest.open_loop import RequestOutcome
from circinus.serving.replicas.replay_executor import interpolated_batch_ratio
from circinus.serving.settings import SERVING
from circinus.specification import Deployment, HardwareClass, QueryPlan, Specification
from circinus.statistics.clustered_ratio import clustered_ratio


@dataclass(frozen=True, eq=False)
class PredictionsAtRun:
    """Predicted service times that a run is compared with."""

    services: Mapping[str, PredictedServiceTimes]
    """Predictions by pipeline; pipelines without a profile are missing."""
    at: datetime
    """Start of the run."""


@dataclass(frozen=True)
class LoadRun:
    """Outcome of a run of traffic."""

    answers: Sequence[RequestOutcome]
    """Outcomes of all requests in order of schedule, including the warm-up."""
    warm_up_s: float
    late: bool
    """True if requests could not be sent on time."""
    before: EngineStatus
    after: EngineStatus


def observe_service_times(
    specification: Specification, matching: Matching, run: LoadRun, expected: PredictionsAtRun
) -> ServiceTimeReport:
    """Return an observation of each deployment that served requests, or the reason to skip it.

    A failed request disturbs all operators on its route, whichever failed: items that shared a batch with it, or were
    processed again.

    Args:
        specification: specification of the plan.
        matching: the running plans.
        run: outcome of the run.
        expected: predictions of the profile.
    """
    plans = {
        (assignment.query, index): part.plan
        for assignment in matching.assignments
        for index, part in enumerate(assignment.chosen.plan.parts)
    }
    before = {status.deployment: status for status in run.before.deployments}
    after = {status.deployment: status for status in run.after.deployments}
    observations: list[ServiceTimeObservation] = []
    refused: list[SkippedDeployment] = []
    for sized in matching.deployments:
        deployment = sized.deployment
        users = {part for part, plan in plans.items() if _uses(plan, deployment)}
        queries = {query for query, _ in users}
        answers = [
            answer
            for answer in run.answers
            if answer.query in queries and (answer.response is None or _part(answer.query, answer.response) in users)
        ]
        reason = _disturbance(run, answers, before.get(deployment), after.get(deployment))
        result: ServiceTimeObservation | str
        result = reason or _observation(specification, sized, plans, answers, before[deployment], run, expected)
        if isinstance(result, str):
            refused.append(SkippedDeployment(deployment, result))
        else:
            observations.append(result)
    return ServiceTimeReport(tuple(observations), tuple(refused))


def _uses(plan: QueryPlan, deployment: Deployment) -> bool:
    return plan.pipeline == deployment.pipeline and plan.deployment_of(deployment.operator) == deployment


def _part(query: str, response: Response) -> tuple[str, int]:
    """Return the query of a response and the index of the part of its plan that answered."""
    return query, response.timings.part


def _disturbance(
    run: LoadRun, answers: Sequence[RequestOutcome], before: DeploymentStatus | None, after: DeploymentStatus | None
) -> str:
    """Return why the service times of a deployment are unusual, or "" if they are not."""
    if run.before.state != run.after.state:
        return "the plan was replaced during the run"
    if run.late:
        return "the machine was too busy to send requests on time"
    if before is None or after is None:
        return "the engine does not list it"
    if after.restarts != before.restarts:
        return "a replica ended and was restarted during the run"
    if not before.replicas_ready == before.target_replicas == after.target_replicas == after.replicas_ready:
        return "replicas were started or missing during the run"
    if (after.min_batches_served or 0) < (before.min_batches_served or 0):
        return "a replica was replaced during the run"
    failed = sum(answer.response is None for answer in answers)
    if failed:
        return f"{failed} of its {len(answers)} requests failed, were dropped or had no answer"
    return ""


def _observation(
    specification: Specification,
    sized: SizedDeployment,
    plans: Mapping[tuple[str, int], QueryPlan],
    answers: Sequence[RequestOutcome],
    before: DeploymentStatus,
    run: LoadRun,
    expected: PredictionsAtRun,
) -> ServiceTimeObservation | str:
    """Return the observation of a deployment whose requests were all answered, or the reason to skip it.

    Args:
        specification: specification of the plan.
        sized: the deployment with its size.
        plans: (query, index of a part) -> plan of the part.
        answers: outcomes of the requests that took the deployment.
        before: its status before the run.
        run: outcome of the run.
        expected: predictions of the profile.
    """
    deployment, allocation = sized.deployment, sized.deployment.allocation
    hardware = specification.required_infrastructure.pool(deployment.pool).hardware
    predictions = expected.services.get(deployment.pipeline)
    responses = [(answer, answer.response) for answer in answers if answer.response is not None]
    services = {
        part: None
        if predictions is None
        else predictions.services.get((deployment.operator, plans[part].configuration))
        for part in {_part(answer.query, response) for answer, response in responses}
    }
    if predictions is None or None in services.values():
        return "the profile store no longer has its operator under this plan"
    if any(
        service is not None
        and (allocation.cpus, allocation.batch_size) not in service.profile.measured_allocations_on(hardware)
        for service in services.values()
    ):
        return "its allocation was not profiled, so only a conservative prediction exists"
    cold = _cold_requests(before, sized.replicas, allocation.batch_size)
    # The speed of an operator on a class depends on its knobs, not on its prefix.
    speeds = next((service.profile.speeds for service in services.values() if service is not None), DECLARED)
    speed = speeds.guaranteed(hardware)
    items, observed_s, predicted_s = [], [], []
    for answer, response in responses[cold:]:
        service = services[_part(answer.query, response)]
        assert service is not None
        expected_s = _predicted_s(service, answer.item_key, response, deployment, hardware)
        if answer.scheduled_s >= run.warm_up_s and expected_s is not None:
            items.append(answer.item_key)
            observed_s.append(response.timings.stage_s.get(deployment.operator, 0.0))
            predicted_s.append(expected_s / speed)
    distinct = len(set(items))
    if len(items) < SERVING.observation_requests or distinct < MIN_ITEMS:
        return (
            f"{len(items)} requests with {distinct} distinct items were measured after the warm-up"
            + (f" and {cold} requests to cold replicas" if cold else "")
            + f", but {SERVING.observation_requests} with {MIN_ITEMS} are needed; increase the duration"
        )
    if sum(observed_s) <= 0 or sum(predicted_s) <= 0:
        return "its service times are zero"
    # Of totals, not a mean of ratios: the observed time of a request is that of its whole batch, whose other items are
    # unknown, so that a mean of logarithms would be biased upwards. Totals count each item of each batch once on both
    # sides. If batches have several items, the error is too large: a batch is nearer to the mean than its items.
    ratio, standard_error = clustered_ratio(observed_s, predicted_s, items)
    assert standard_error is not None  # there are several items
    uses = specification.pipelines[deployment.pipeline].operator(deployment.operator).uses
    return ServiceTimeObservation(
        at=expected.at.isoformat(timespec="milliseconds"),
        mode=str(run.before.mode),
        plan=run.before.state,
        pipeline=deployment.pipeline,
        operator=deployment.operator,
        uses=uses,
        version=predictions.code_versions.get(uses, ""),
        knobs=deployment.knobs,
        hardware_class=hardware.name,
        speed=speed,
        profiled_on=predictions.machine,
        cpus=allocation.cpus,
        batch_size=allocation.batch_size,
        log_ratio=math.log(ratio),
        standard_error=standard_error / ratio,
        requests=len(items),
        items=distinct,
    )


def _cold_requests(before: DeploymentStatus, replicas: int, batch_size: int) -> int:
    """Return the number of requests that may reach a replica in its first batches; free replicas take turns."""
    done = before.min_batches_served or 0  # without counts, replicas may have just started
    return max(SERVING.warm_up_batches - done, 0) * replicas * batch_size


def _predicted_s(
    service: PredictedServiceTime,
    item_key: str,
    response: Response,
    deployment: Deployment,
    hardware: HardwareClass,
) -> float | None:
    """Return seconds at speed 1 of a batch with the size of the request's batch, of items like its own.

    Batch time ratios are those on `hardware`. The time of a batch is split evenly, so the time over the request's share
    is the batch size. None if the batch was smaller than any profiled one, for which only a conservative prediction
    exists.
    """
    operator, allocation = deployment.operator, deployment.allocation
    stage_s, busy_s = (s.get(operator, 0.0) for s in (response.timings.stage_s, response.timings.replica_s))
    fill = min(max(round(stage_s / busy_s), 1), allocation.batch_size) if busy_s > 0 else 1
    profile = service.profile
    measured = [size for cpus, size in profile.measured_allocations_on(hardware) if cpus == allocation.cpus]
    if fill < min(measured):
        return None
    ratios = {size: profile.batch_ratio_on(hardware)[allocation.cpus, size] for size in measured}
    return service.single_item_s(item_key) * interpolated_batch_ratio(ratios, fill)
