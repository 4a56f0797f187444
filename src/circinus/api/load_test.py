"""Load tests of a deployed plan, and the service times that they reveal."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from circinus.api.reports import LoadReport
from circinus.api.synchronous import run
from circinus.api.traffic_items import count_profiled_items, recording_warnings, select_traffic_items
from circinus.errors import OperatorError, ProfileError, ServingError
from circinus.profiling import load_predicted_service_times, save_observations
from circinus.serving import Mode
from circinus.serving.loadtest.load_test import run_load_test as send_and_measure
from circinus.serving.loadtest.service_time_learning import PredictionsAtRun
from circinus.serving.local.high_resolution_loop import new_event_loop
from circinus.serving.state_serialization import state_fingerprint
from circinus.specification.formatting import format_duration

if TYPE_CHECKING:
    from pathlib import Path

    from circinus.api.engine_handle import EngineHandle
    from circinus.api.plan_context import LoadedPlan
    from circinus.serving.loadtest.load_test import LoadProgress, LoadSpec
    from circinus.serving.loadtest.plan_replacements import PlanReplacement

_SHOWN = 3
"""Maximum number of replacements in a warning."""
_log = logging.getLogger(__name__)


def run_load_test(
    opened: LoadedPlan,
    handle: EngineHandle,
    spec: LoadSpec,
    *,
    items: int | None,
    keep: bool = True,
    controlled: bool = False,
    on_progress: Callable[[LoadProgress], None] | None = None,
) -> LoadReport:
    """Send open-loop traffic to the applied plan and measure each request against the SLOs.

    Args:
        opened: plan that the engine runs.
        handle: engine to send to.
        spec: duration, warm-up, rate and seed.
        items: maximum number of held-out items to send for each pipeline; None: all.
        keep: whether the observed service times are stored for later plans.
        controlled: whether a controller may have moved queries to other rungs of their ladders.
        on_progress: callback about four times a second.

    Raises:
        ServingError: the engine runs another plan, a controller may change it during the test, another load test runs,
            or a local engine ends before the warm-up does.
    """
    specification, matching, seed = opened.specification, opened.plan_set.matching, opened.plan_set.seed

    async def measure() -> LoadReport:
        async with handle.connected() as engine:
            status = await engine.status()
            if not controlled and status.state != state_fingerprint(opened.desired_state(status.mode)):
                await _refuse(handle, opened.path, str(status.mode))
            with handle.one_load_test():
                sent = select_traffic_items(specification, matching, opened.store, items, status.mode, seed)
                profiled = count_profiled_items(specification, matching, opened.store, sent, seed)
                expected = None if controlled else _predictions(opened)  # other rungs take other times
                _log.info("load test of %g s on %s", spec.duration_s, handle)
                process = handle.process
                own = None if process is None else (os.getpid(), process)
                is_replay = status.mode is Mode.REPLAY
                warnings: tuple[str, ...] = (
                    recording_warnings(specification, opened.store, opened.configurations, items) if is_replay else ()
                )
                measured = await send_and_measure(
                    engine, specification, matching, sent, spec, on_progress, expected, own
                )
            if measured.engine_end_s is not None:
                planned_s, end_s = spec.warm_up_s + spec.duration_s, measured.engine_end_s
                end = f"after {format_duration(end_s)} of {format_duration(planned_s)}"
                warnings += (
                    f"the engine ended {end if end_s < planned_s else 'before its last answers'}, and the test "
                    "with it: figures are those until then. Run `circinus apply`, and repeat the test",
                )
            if measured.replacements:
                warnings += (await _replacement_warning(opened, handle, measured.replacements, status.mode),)
            return LoadReport(measured, sum(map(len, sent.values())), profiled, warnings=warnings)

    report = run(measure, loop_factory=new_event_loop)  # sends on time, to a fraction of a millisecond
    return replace(report, not_stored_reason=_store(opened, report, controlled) if keep else "keep_observations=False")


def _store(opened: LoadedPlan, report: LoadReport, controlled: bool) -> str:
    """Store the observed service times for later plans; return why none were stored, or "".

    A full disk must not lose the report of a test that has run.
    """
    learning, machine = report.measured.learning, report.measured.machine
    if report.measured.mode == "replay":
        return "a replay shows nothing of the hardware"
    if report.measured.engine_end_s is not None:
        return "the engine ended during the test"
    if controlled:
        return "a controller may have changed plans during the test"
    if report.measured.replacements:
        return "the plan was replaced during the test"
    if learning is None:
        return "the engine did not answer after the test"
    if not learning.observations:
        return "no deployment was observed"
    if machine is not None and machine.busy:
        return "other programs kept the machine busy"
    try:
        save_observations(opened.store, learning.observations)
    except ProfileError as error:
        _log.warning("observations are not stored: %s", error)
        return str(error)
    return ""


async def _replacement_warning(
    opened: LoadedPlan, handle: EngineHandle, replacements: Sequence[PlanReplacement], mode: Mode
) -> str:
    """Return when which plan was replaced, and what figures mean then."""
    name = "the plan" if opened.path is None else opened.path.name
    tested = state_fingerprint(opened.desired_state(mode))
    texts = {state: f"state {state[:8]}" for change in replacements for state in (change.previous_state, change.state)}
    texts |= {tested: f"{name} (state {tested[:8]})"}
    times = [
        f"{format_duration(change.after_s)} after the start ({datetime.fromtimestamp(change.time_s):%H:%M:%S}) "
        f"from {texts[change.previous_state]} to {texts[change.state]}"
        for change in replacements[:_SHOWN]
    ]
    times += [f"{len(replacements) - _SHOWN} more"] if len(replacements) > _SHOWN else []
    holder = await asyncio.to_thread(handle.controller)
    control = f" ({holder} controls it, see `circinus events`)" if holder else ""
    return (
        f"the plan was replaced during the test{control}: {', '.join(times)}. Figures are of all these plans, "
        f"predictions of {name}. Repeat the test without a change of plans"
    )


async def _refuse(handle: EngineHandle, plan_file: Path | None, mode: str) -> None:
    location = str(plan_file or "the plan")
    holder = await asyncio.to_thread(handle.controller)
    if holder:
        raise ServingError(
            f"{handle} is controlled by {holder} (circinus serve), which may change plans during the test",
            code="load.controlled_engine",
            location=location,
            hint="Add --controlled.",
        )
    command = f"circinus apply {shlex.quote(location)} --mode {mode}{handle.options}"
    raise ServingError(
        f"{handle} runs another plan, or this plan as a controller kept it (audits, standby replicas)",
        code="load.another_plan",
        location=location,
        hint="Deploy it first." if plan_file is None else f"Run `{command}` first.",
    )


def _predictions(opened: LoadedPlan) -> PredictionsAtRun:
    """Return the service times that the current profile predicts, without corrections."""
    plan_set, services = opened.plan_set, {}
    for name in sorted({pipeline for pipeline, _ in opened.configurations}):
        used = [configuration for pipeline, configuration in opened.configurations if pipeline == name]
        try:
            services[name] = load_predicted_service_times(
                opened.specification, name, opened.store, used, seed=plan_set.seed
            )
        except (OperatorError, ProfileError):  # nothing is learnt of this pipeline, and the report says so
            continue
    return PredictionsAtRun(services, datetime.now(UTC))
