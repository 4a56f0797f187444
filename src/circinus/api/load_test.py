"""Load tests of a deployed plan, and what they teach of service times."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from circinus.api.synchronous import run

if TYPE_CHECKING:
    from circinus.api.engine_options import EngineOptions
    from circinus.api.plan_context import LoadedPlan
    from circinus.api.results import LoadReport
    from circinus.serving.loadtest.load_test import LoadProgress, LoadSpec
    from circinus.serving.loadtest.service_time_learning import PredictionsAtRun


def run_load_test(
    opened: LoadedPlan,
    engine_options: EngineOptions,
    spec: LoadSpec,
    *,
    items: int,
    controlled: bool = False,
    location: str = "the plan",
    on_progress: Callable[[LoadProgress], None] | None = None,
) -> LoadReport:
    """Send open-loop traffic to the applied plan and measure each request against the SLOs.

    Args:
        opened: plan that the engine runs.
        engine_options: engine to send to.
        spec: duration, warm-up, rate and seed.
        items: number of held-out items to send.
        controlled: whether a controller may have moved queries to other rungs of their ladders.
        location: name of the plan in messages.
        on_progress: callback about four times a second.

    Raises:
        ServingError: the engine runs another plan, or a controller may change it during the test.
    """
    from circinus.api.results import LoadReport
    from circinus.api.traffic_items import count_profiled_items, select_traffic_items
    from circinus.serving.loadtest.load_test import run_load_test as send_and_measure
    from circinus.serving.local.high_resolution_loop import new_event_loop
    from circinus.serving.state_serialization import state_fingerprint

    specification, matching, seed = opened.specification, opened.plan_set.matching, opened.plan_set.seed

    async def measure() -> LoadReport:
        async with engine_options.connected() as engine:
            status = await engine.status()
            if not controlled and status.state != state_fingerprint(opened.desired_state(status.mode)):
                await _refuse(engine_options, location, str(status.mode))
            chosen = select_traffic_items(specification, matching, opened.store, items, status.mode, seed)
            profiled = count_profiled_items(specification, matching, opened.store, chosen, seed)
            expected = None if controlled else _predictions(opened)  # other rungs take other times
            measured = await send_and_measure(engine, specification, matching, chosen, spec, on_progress, expected)
            return LoadReport(measured, sum(len(sent) for sent in chosen.values()), profiled)

    return run(measure, loop_factory=new_event_loop)  # sends on time, to a fraction of a millisecond


def keep_observations(opened: LoadedPlan, report: LoadReport) -> str:
    """Store the observed service times for later plans; return why that failed, or "".

    A full disk must not lose the report of a test that has run.
    """
    from circinus.errors import ProfileError
    from circinus.profiling import save_observations

    learning = report.measured.learning
    if learning is None or not learning.observations:
        return ""
    try:
        save_observations(opened.store, learning.observations)
    except ProfileError as error:
        return str(error)
    return ""


async def _refuse(engine_options: EngineOptions, location: str, mode: str) -> None:
    from circinus.api.engine_options import current_controller
    from circinus.errors import ServingError

    holder = await asyncio.to_thread(current_controller, engine_options)
    if holder:
        raise ServingError(
            f"{engine_options} is controlled by {holder} (circinus serve), which may change plans during the test",
            code="load.controlled_engine",
            location=location,
            hint="Add --controlled.",
        )
    raise ServingError(
        f"{engine_options} runs another plan, or this plan as a controller kept it (audits, standby replicas)",
        code="load.another_plan",
        location=location,
        hint=f"Run `circinus apply {location} --mode {mode}{engine_options.options}` first.",
    )


def _predictions(opened: LoadedPlan) -> PredictionsAtRun:
    """Return the service times that the current profile predicts, without corrections."""
    from datetime import UTC, datetime

    from circinus.errors import OperatorError, ProfileError
    from circinus.profiling import load_predicted_service_times
    from circinus.serving.loadtest.service_time_learning import PredictionsAtRun

    plan_set, services = opened.plan_set, {}
    plans = [assignment.chosen.plan for assignment in plan_set.matching.assignments]
    for name in sorted({plan.pipeline for plan in plans}):
        used = [plan.configuration for plan in plans if plan.pipeline == name]
        try:
            services[name] = load_predicted_service_times(
                opened.specification, name, opened.store, used, seed=plan_set.seed
            )
        except (OperatorError, ProfileError):  # nothing is learnt of this pipeline, and the report says so
            continue
    return PredictionsAtRun(services, datetime.now(UTC))
