"""Learning of service times, in virtual time; each guard has a run that would be learned from without it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from served_scenario import (
    ITEMS,
    MODULE,
    OTHER_PLAN,
    PLAN,
    ObedientEngine,
    matching,
    part_in_turns,
    query,
    specification,
    split_matching,
)

from circinus.matching import Matching
from circinus.operators import Item
from circinus.profiling import (
    DECLARED,
    Machine,
    MeasuredSpeed,
    OperatorProfile,
    PredictedServiceTime,
    PredictedServiceTimes,
    ServiceTimeObservation,
    Speeds,
)
from circinus.serving import DeploymentStatus, EngineStatus, Mode, Request, Response
from circinus.serving.loadtest.load_report import ServiceTimeReport
from circinus.serving.loadtest.load_test import LoadSpec, run_load_test
from circinus.serving.loadtest.service_time_learning import PredictionsAtRun
from circinus.serving.settings import SERVING
from circinus.specification import Allocation, Specification
from circinus.statistics.interval import Interval
from virtual_time import run

AT = datetime(2025, 6, 1, tzinfo=UTC)
DEPLOYMENT = PLAN.deployment_of("add")
SPEED = 0.5  # of the pool
PROFILED_S = {item.key: 0.01 * (1 + number) for number, item in enumerate(ITEMS)}
REPLICAS = 3
TRAFFIC = LoadSpec(duration_s=30.0, warm_up_s=5.0)
WARM = DeploymentStatus(DEPLOYMENT, REPLICAS, REPLICAS, 0, 1000, 0, min_batches_served=300)


def takes(factor: float) -> Callable[[Request, int], float]:
    """Return service times `factor` times as long as profiled."""
    return lambda request, before: factor * PROFILED_S[request.item_key] / SPEED


@dataclass
class Watched(ObedientEngine):
    """An obedient engine with a status before, `statuses[0]`, and after, `statuses[1]`."""

    statuses: tuple[tuple[DeploymentStatus, ...], tuple[DeploymentStatus, ...]] = ((WARM,), (WARM,))
    states: tuple[str, str] = ("state", "state")
    status_calls: int = 0

    async def status(self) -> EngineStatus:
        index, self.status_calls = min(self.status_calls, 1), self.status_calls + 1
        return EngineStatus(self.mode, self.statuses[index], self.queries, self.states[index])


def service(
    item_s: Mapping[str, float] = PROFILED_S,
    ratios: Mapping[tuple[float, int], float] | None = None,
    speeds: Speeds = DECLARED,
) -> PredictedServiceTime:
    ratios, seconds = ratios or {(0.1, 1): 1.0}, np.array(list(PROFILED_S.values()))
    prefix = PLAN.configuration
    profile = OperatorProfile("add", prefix, seconds, seconds, 1e6, 0.0, ratios, frozenset(ratios), speeds=speeds)
    return PredictedServiceTime(item_s, profile)


def expected(service_time: PredictedServiceTime | None) -> PredictionsAtRun:
    services_by_key = {} if service_time is None else {("add", PLAN.configuration): service_time}
    services = PredictedServiceTimes(Machine("CPU", 4), {f"{MODULE}:add": "v"}, services_by_key)
    return PredictionsAtRun({"p": services}, AT)


def learnt(
    engine: ObedientEngine,
    profile: PredictedServiceTime | None = None,
    traffic: LoadSpec = TRAFFIC,
    given: Specification | None = None,
    chosen: Matching | None = None,
    items: Any = ITEMS,
    rate_per_s: float = 10.0,
) -> ServiceTimeReport:
    given = given or specification(*(query(name, rate_per_s=rate_per_s) for name in engine.queries))
    chosen = chosen or matching(list(engine.queries))
    report = run(run_load_test(engine, given, chosen, {"p": items}, traffic, None, expected(profile or service())))
    assert report.learning is not None
    return report.learning


def observed(learning: ServiceTimeReport) -> ServiceTimeObservation:
    assert not learning.refused
    (observation,) = learning.observations
    return observation


def refused(learning: ServiceTimeReport) -> str:
    assert not learning.observations
    (skipped,) = learning.refused
    assert skipped.deployment == DEPLOYMENT
    return skipped.reason


def test_every_part_of_a_split_plan_is_compared_with_its_own_profile() -> None:
    warm = replace(WARM, deployment=OTHER_PLAN.deployment_of("add"), target_replicas=1, replicas_ready=1)
    engine = Watched(("a",), service_s=lambda request, _: 1.5 * (1 + part_in_turns(request)), part=part_in_turns)
    engine.statuses = ((WARM, warm), (WARM, warm))
    engine.fails = lambda request: request.item_key == "number-0"
    items = [Item(f"number-{value}", float(value), float(value + 1)) for value in range(50)]
    small, large = service({item.key: 0.5 for item in items}), service({item.key: 2.0 for item in items}, {(0.2, 1): 1})
    services = {("add", PLAN.configuration): small, ("add", OTHER_PLAN.configuration): large}
    predictions = expected(small)
    predictions = replace(predictions, services={"p": replace(predictions.services["p"], services=services)})
    given, chosen = specification(query("a", rate_per_s=10.0)), split_matching(["a"])
    for first in (1, 0):
        engine.status_calls = 0
        report = run(run_load_test(engine, given, chosen, {"p": items[first:]}, TRAFFIC, None, predictions))
        assert report.learning is not None
        ratios = {seen.cpus: math.exp(seen.log_ratio) for seen in report.learning.observations}
        if first:
            assert ratios == pytest.approx({0.1: 1.5 * SPEED / 0.5, 0.2: 3.0 * SPEED / 2.0})
        else:  # the part of a failed request is unknown, so that it may have disturbed both
            assert (ratios, len(report.learning.refused)) == ({}, 2)


def test_the_ratio_to_the_profile_is_observed() -> None:
    engine = Watched(("a", "b"), service_s=takes(1.5))
    observation = observed(learnt(engine))
    assert observation.log_ratio == pytest.approx(math.log(1.5))
    assert observation.standard_error == pytest.approx(0.0, abs=1e-9)
    assert observation.requests == sum(time_s >= TRAFFIC.warm_up_s for time_s, _ in engine.received)
    assert observation == ServiceTimeObservation(
        at="2025-06-01T00:00:00.000+00:00",
        mode="real",
        plan="state",
        pipeline="p",
        operator="add",
        uses=f"{MODULE}:add",
        version="v",
        knobs=DEPLOYMENT.knobs,
        hardware_class="slow",
        speed=SPEED,
        profiled_on=Machine("CPU", 4),
        cpus=0.1,
        batch_size=1,
        log_ratio=observation.log_ratio,
        standard_error=observation.standard_error,
        requests=observation.requests,
        items=len(ITEMS),
    )


def test_traffic_is_held_against_the_speed_that_was_measured() -> None:
    speeds = Speeds({"slow": MeasuredSpeed(Interval(0.3, 0.25, 0.4), 24)})
    observation = observed(learnt(Watched(("a",), service_s=takes(1.5)), service(speeds=speeds)))
    assert observation.speed == 0.25
    assert observation.log_ratio == pytest.approx(math.log(1.5 * 0.25 / SPEED))


def test_slow_items_do_not_look_like_a_slow_machine() -> None:
    """Profiled times of the items are used if available, else the mean of the profile."""
    slow = ITEMS[2:]
    observation = observed(learnt(Watched(("q",), service_s=takes(1.0)), items=slow))
    assert observation.log_ratio == pytest.approx(0.0, abs=1e-12)
    unknown = observed(learnt(Watched(("q",), service_s=takes(1.0)), service(item_s={}), items=slow))
    mean_s = [np.mean([PROFILED_S[item.key] for item in items]) for items in (slow, ITEMS)]
    assert unknown.log_ratio == pytest.approx(math.log(mean_s[0] / mean_s[1]), abs=0.05)
    assert unknown.standard_error > 0.05


def test_nobody_asked_nothing_is_learnt() -> None:
    engine = Watched(("q",), service_s=takes(1.0))
    report = run(run_load_test(engine, specification(query("q")), matching(["q"]), {"p": ITEMS}, TRAFFIC))
    assert report.learning is None


def test_a_promise_is_made_with_the_speed_that_is_sure() -> None:
    """The ratio is relative to the estimator's prediction."""
    given = specification(query("q"))
    assert given.infrastructure is not None
    (pool,) = given.infrastructure.pools
    hardware = pool.hardware.model_copy(update={"relative_speed_bounds": (0.4, 0.6)})
    pools = (pool.model_copy(update={"hardware": hardware}),)
    given = replace(given, infrastructure=given.infrastructure.model_copy(update={"pools": pools}))
    observation = observed(learnt(Watched(("q",), service_s=takes(1.0)), given=given))
    assert observation.log_ratio == pytest.approx(math.log(0.4 / SPEED))
    assert observation.speed == 0.4


@dataclass
class Batching(Watched):
    """An engine whose k-th batch has `fills[k]` requests, one batch after the other."""

    fills: tuple[int, ...] = (1, 2, 4)
    ratios: Mapping[int, float] = field(default_factory=dict)
    factor: float = 1.0
    batch_s: list[float] = field(default_factory=list)

    async def submit(self, request: Request) -> Response:
        """Answer in a batch drawn from all items: the times of its other items are independent of the request's."""
        response = await super().submit(request)
        number = len(self.batch_s)
        fill = self.fills[number % len(self.fills)]
        mates_s = np.random.default_rng(number).choice(list(PROFILED_S.values()), size=fill - 1)
        mean_s = (PROFILED_S[request.item_key] + float(mates_s.sum())) / fill
        stage_s = self.factor * mean_s * self.ratios[fill] / SPEED
        self.batch_s.append(stage_s)
        timings = replace(response.timings, stage_s={"add": stage_s}, replica_s={"add": stage_s / fill})
        return replace(response, timings=timings)


def in_batches(size: int) -> tuple[Specification, Matching]:
    """Return `specification` and `matching` of one query, with batches."""
    given, chosen = specification(query("q")), matching(["q"])
    plan = replace(PLAN, allocations=(("add", Allocation(0.1, size, 0.5)),))
    (assignment,), (sized,) = chosen.assignments, chosen.deployments
    assignment = replace(assignment, chosen=replace(assignment.chosen, plan=plan))
    sized = replace(sized, deployment=plan.deployment_of("add"))
    return given, replace(chosen, assignments=(assignment,), deployments=(sized,))


def test_batches_are_held_against_what_so_full_ones_take() -> None:
    """Sizes 1 and 4 are profiled, size 2 is interpolated; different items cause no bias."""
    given, chosen = in_batches(4)
    status = (replace(WARM, deployment=chosen.deployments[0].deployment),)
    engine = Batching(("q",), statuses=(status, status), ratios={1: 1.0, 2: 1.0 + 1.5 / 3, 4: 2.5}, factor=1.2)
    profile = service(ratios={(0.1, 1): 1.0, (0.1, 4): 2.5, (0.2, 2): 99.0})
    traffic = LoadSpec(duration_s=100.0)
    observation = observed(learnt(engine, profile, traffic, given, chosen))
    assert observation.batch_size == 4
    assert observation.log_ratio == pytest.approx(math.log(1.2), abs=0.03)


def test_batches_less_full_than_any_that_was_profiled_are_left_out() -> None:
    given, chosen = in_batches(4)
    status = (replace(WARM, deployment=chosen.deployments[0].deployment),)
    engine = Batching(("q",), statuses=(status, status), ratios={1: 0.3, 4: 2.5}, fills=(1, 4))
    observation = observed(learnt(engine, service(ratios={(0.1, 4): 2.5}), LoadSpec(duration_s=60.0), given, chosen))
    assert observation.requests == pytest.approx(len(engine.received) / 2, abs=1)
    assert observation.log_ratio == pytest.approx(0.0, abs=0.1)


def test_the_warm_up_is_not_learnt_from() -> None:
    slow, usual = takes(9.0), takes(1.0)
    engine = Watched(("q",), service_s=lambda r, before: (slow if before < 30 else usual)(r, before))
    assert observed(learnt(engine, traffic=LoadSpec(duration_s=30.0, warm_up_s=10.0))).log_ratio == pytest.approx(0.0)
    engine = Watched(("q",), service_s=lambda r, before: (slow if before < 30 else usual)(r, before))
    assert observed(learnt(engine, traffic=LoadSpec(duration_s=30.0))).log_ratio > 0.1


@pytest.mark.parametrize("done", [None, 0, 1, SERVING.warm_up_batches, 50])
def test_the_first_batches_of_every_replica_are_not_learnt_from(done: int | None) -> None:
    """Without counts of batches, replicas may have just started."""
    cold = REPLICAS * max(SERVING.warm_up_batches - (done or 0), 0)
    slow, usual = takes(50.0), takes(1.0)
    engine = Watched(
        ("q",),
        service_s=lambda r, before: (slow if before < cold else usual)(r, before),
        statuses=((replace(WARM, min_batches_served=done),), (WARM,)),
    )
    observation = observed(learnt(engine, traffic=LoadSpec(duration_s=30.0)))
    assert observation.log_ratio == pytest.approx(0.0)
    assert observation.requests == len(engine.received) - cold


def test_late_generators_teach_nothing() -> None:
    class Blocking(Watched):
        async def submit(self, request: Request) -> Response:
            import asyncio

            loop: Any = asyncio.get_running_loop()
            loop._jumping.now_s += 0.2
            return await super().submit(request)

    assert "too busy to send" in refused(learnt(Blocking(("q",), service_s=takes(1.0))))


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ((WARM,), (replace(WARM, restarts=1),), "restarted"),
        ((WARM,), (replace(WARM, min_batches_served=2),), "replaced"),
        ((WARM,), (replace(WARM, replicas_ready=2),), "started or missing"),
        ((replace(WARM, replicas_ready=2),), (WARM,), "started or missing"),
        ((WARM,), (replace(WARM, target_replicas=4, replicas_ready=4),), "started or missing"),
        ((), (WARM,), "does not list it"),
        ((WARM,), (), "does not list it"),
    ],
)
def test_replicas_that_start_teach_nothing(
    before: tuple[DeploymentStatus, ...], after: tuple[DeploymentStatus, ...], reason: str
) -> None:
    assert reason in refused(learnt(Watched(("q",), service_s=takes(1.0), statuses=(before, after))))


def test_earlier_restarts_do_not_matter_once_replicas_are_warm() -> None:
    earlier = replace(WARM, restarts=7)
    engine = Watched(("q",), service_s=takes(1.0), statuses=((earlier,), (earlier,)))
    assert observed(learnt(engine)).log_ratio == pytest.approx(0.0)


def test_a_run_in_which_another_plan_is_applied_teaches_nothing() -> None:
    engine = Watched(("q",), service_s=takes(1.0), states=("state", "another"))
    assert "replaced during the run" in refused(learnt(engine))


@pytest.mark.parametrize("lost", ["failed", "unanswered"])
def test_failures_teach_nothing(lost: str) -> None:
    usual = takes(1.0)
    engine = Watched(
        ("q",),
        service_s=lambda r, before: None if lost == "unanswered" and before == 60 else usual(r, before),
        fails=lambda request: lost == "failed" and request.item_key == "number-3",
    )
    assert "failed, were dropped or had no answer" in refused(learnt(engine))


def test_few_requests_and_few_items_teach_nothing() -> None:
    rate_per_s = (SERVING.observation_requests - 12) / TRAFFIC.duration_s
    reason = refused(learnt(Watched(("q",), service_s=takes(1.0)), rate_per_s=rate_per_s))
    assert f"but {SERVING.observation_requests} with 8 are needed" in reason
    reason = refused(learnt(Watched(("q",), service_s=takes(1.0)), items=ITEMS[:7]))
    assert "with 7 distinct items" in reason


def test_what_is_not_profiled_teaches_nothing() -> None:
    engine = Watched(("q",), service_s=takes(1.0))
    given, chosen = specification(query("q")), matching(["q"])
    for missing in (expected(None), PredictionsAtRun({}, AT)):
        engine = Watched(("q",), service_s=takes(1.0))
        report = run(run_load_test(engine, given, chosen, {"p": ITEMS}, TRAFFIC, None, missing))
        assert report.learning is not None
        assert "no longer has its operator" in refused(report.learning)
    unmeasured = service(ratios={(0.2, 1): 1.0})
    assert "allocation was not profiled" in refused(learnt(Watched(("q",), service_s=takes(1.0)), unmeasured))


def test_the_mode_is_kept() -> None:
    engine = Watched(("q",), service_s=takes(1.0), mode=Mode.REPLAY, answer=lambda request: 0.0)
    assert observed(learnt(engine)).mode == "replay"
