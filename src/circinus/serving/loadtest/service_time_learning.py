"""What a run of traffic teaches of service times, and from which deployments nothing is to be learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from circinus.matching import Matching, SizedDeployment
from circinus.profiling import DECLARED, MIN_ITEMS, PredictedServiceTime, PredictedServiceTimes, ServiceTimeObservation
from circinus.serving.engine import DeploymentStatus, EngineStatus, Response
from circinus.serving.loadtest.load_report import ServiceTimeReport, SkippedDeployment, clustered_log_ratio
from circinus.serving.loadtest.open_loop import RequestOutcome
from circinus.serving.replicas.replay_executor import interpolated_batch_ratio
from circinus.specification import Deployment, QueryPlan, Specification

MIN_REQUESTS = 30
"""Requests that anything is learnt from; and `LEAST_ITEMS` different items, as for all else: a standard error from
fewer clusters is itself hardly known."""

WARMUP_BATCHES = 3
"""The first batches of a replica are not learnt from. The very first pays for what is made on first use (kernels,
buffers, thread pools, pages of the model), the next ones for what is compiled or grown once inputs have been seen. It
is counted in batches, not in seconds: a replica without work does not get warmer."""


@dataclass(frozen=True, eq=False)
class PredictionsAtRun:
    """What service times are held against."""

    services: Mapping[str, PredictedServiceTimes]
    """By pipeline; one without a profile is missing."""
    at: datetime
    """When the run begins."""


@dataclass(frozen=True)
class LoadRun:
    """A run of traffic as it went."""

    answers: Sequence[RequestOutcome]
    """Of all requests, those of the warm-up too, in the order in which they were due."""
    warm_up_s: float
    late: bool
    """Whether requests could not be sent on time."""
    before: EngineStatus
    after: EngineStatus


def observe_service_times(
    specification: Specification, matching: Matching, run: LoadRun, expected: PredictionsAtRun
) -> ServiceTimeReport:
    """An observation of every deployment that served requests, or the reason why there is none.

    Whether a request failed because of this operator or another one on its way is not asked: what waited beside it, and
    what was processed again, may have been disturbed at either.

    Args:
        specification: what was planned for.
        matching: what ran.
        run: how it went.
        expected: what the profile says.
    """
    plans = {assignment.query: assignment.chosen.plan for assignment in matching.assignments}
    before = {status.deployment: status for status in run.before.deployments}
    after = {status.deployment: status for status in run.after.deployments}
    observations: list[ServiceTimeObservation] = []
    refused: list[SkippedDeployment] = []
    for sized in matching.deployments:
        deployment = sized.deployment
        users = {q for q, plan in plans.items() if _uses(plan, deployment)}
        answers = [answer for answer in run.answers if answer.query in users]
        reason = _disturbed(run, answers, before.get(deployment), after.get(deployment))
        found: ServiceTimeObservation | str
        found = reason or _observation(specification, sized, plans, answers, before[deployment], run, expected)
        if isinstance(found, str):
            refused.append(SkippedDeployment(deployment, found))
        else:
            observations.append(found)
    return ServiceTimeReport(tuple(observations), tuple(refused))


def _uses(plan: QueryPlan, deployment: Deployment) -> bool:
    return plan.pipeline == deployment.pipeline and plan.deployment_of(deployment.operator) == deployment


def _disturbed(
    run: LoadRun, answers: Sequence[RequestOutcome], before: DeploymentStatus | None, after: DeploymentStatus | None
) -> str:
    """Why the times of a deployment are not its usual ones; empty where they are."""
    if run.late:
        return "the machine was too busy to send requests on time"
    if run.before.state != run.after.state or before is None or after is None:
        return "the engine does not list it, or what it runs was changed during the run"
    if after.restarts != before.restarts:
        return "a replica ended during the run and was started again"
    if not before.replicas_ready == before.replicas_wanted == after.replicas_wanted == after.replicas_ready:
        return "replicas were started or missing during the run"
    if (after.min_batches_served or 0) < (before.min_batches_served or 0):
        return "a replica was replaced during the run"
    failed = sum(answer.response is None for answer in answers)
    if failed:
        return f"{failed} of its {len(answers)} requests failed or were not answered"
    return ""


def _observation(
    specification: Specification,
    sized: SizedDeployment,
    plans: Mapping[str, QueryPlan],
    answers: Sequence[RequestOutcome],
    before: DeploymentStatus,
    run: LoadRun,
    expected: PredictionsAtRun,
) -> ServiceTimeObservation | str:
    """What a deployment's requests show, or why they show too little; all of them were answered."""
    deployment, allocation = sized.deployment, sized.deployment.allocation
    known = expected.services.get(deployment.pipeline)
    used = {query: (deployment.operator, plans[query].configuration) for query in {a.query for a in answers}}
    services = {query: known.services.get(key) if known is not None else None for query, key in used.items()}
    if known is None or None in services.values():
        return "the profile store does not have its operator under this plan any more"
    if any(
        service is not None and (allocation.cpus, allocation.batch_size) not in service.measured_allocations
        for service in services.values()
    ):
        return "its allocation was not profiled, so that no time is predicted for it but a cautious one"
    cold = _cold_requests(before, sized.replicas, allocation.batch_size)
    assert specification.infrastructure is not None  # nothing runs without one
    hardware = specification.infrastructure.pool(deployment.pool).hardware
    # An operator with its knobs has one speed on each class, whatever comes before it.
    known_speeds = next((service.speeds for service in services.values() if service is not None), DECLARED)
    speed = known_speeds.guaranteed(hardware)
    items, observed_s, predicted_s = [], [], []
    for answer in answers[cold:]:
        service, response = services[answer.query], answer.response
        assert service is not None
        assert response is not None
        alone_s = _predicted_s(service, answer.item_key, response, deployment)
        if answer.scheduled_s >= run.warm_up_s and alone_s is not None:
            items.append(answer.item_key)
            observed_s.append(response.stage_s[deployment.operator])
            predicted_s.append(alone_s / speed)
    different = len(set(items))
    if len(items) < MIN_REQUESTS or different < MIN_ITEMS:
        return (
            f"found {len(items)} requests with {different} different items after the warm-up"
            + (f" and the first {cold}, which its replicas may have been cold for" if cold else "")
            + f", expected {MIN_REQUESTS} with {MIN_ITEMS}; send for longer"
        )
    if sum(observed_s) <= 0 or sum(predicted_s) <= 0:
        return "it takes no time that could be compared"
    log_ratio, standard_error = clustered_log_ratio(observed_s, predicted_s, items)
    assert standard_error is not None  # there are several items
    uses = specification.pipelines[deployment.pipeline].operator(deployment.operator).uses
    return ServiceTimeObservation(
        at=expected.at.isoformat(timespec="milliseconds"),
        mode=str(run.before.mode),
        plan=run.before.state,
        pipeline=deployment.pipeline,
        operator=deployment.operator,
        uses=uses,
        version=known.code_versions.get(uses, ""),
        knobs=deployment.knobs,
        hardware_class=hardware.name,
        speed=speed,
        profiled_on=known.machine,
        cpus=allocation.cpus,
        batch_size=allocation.batch_size,
        log_ratio=log_ratio,
        standard_error=standard_error,
        requests=len(items),
        items=different,
    )


def _cold_requests(before: DeploymentStatus, replicas: int, batch_size: int) -> int:
    """How many requests may meet a replica in one of its first batches: free replicas take turns."""
    done = before.min_batches_served or 0  # an engine that does not count may have started them just now
    return max(WARMUP_BATCHES - done, 0) * replicas * batch_size


def _predicted_s(
    service: PredictedServiceTime, item_key: str, response: Response, deployment: Deployment
) -> float | None:
    """Seconds at speed 1 of a batch as full as the request's was, of items like its own.

    A batch shares its time evenly, so that the time over the request's share is the number of its items. None where
    it had fewer items than any batch that was profiled: what is predicted of it is a guess, which is cautious.
    """
    operator, allocation = deployment.operator, deployment.allocation
    stage_s, busy_s = response.stage_s[operator], response.replica_s[operator]
    fill = min(max(round(stage_s / busy_s), 1), allocation.batch_size) if busy_s > 0 else 1
    measured = [size for cpus, size in service.measured_allocations if cpus == allocation.cpus]
    if fill < min(measured):
        return None
    ratios = {size: service.batch_ratio[allocation.cpus, size] for size in measured}
    return service.single_item_s(item_key) * interpolated_batch_ratio(ratios, fill)
