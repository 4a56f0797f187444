"""Runs of the controller on a simulated clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from circinus.control.controller import Controller
from circinus.control.drift.drift_monitor import DriftDependencies
from circinus.control.managed_plans import ManagedPlans
from circinus.control.replanning.replan import NO_REPLANNING, ReplanDependencies
from circinus.control.settings import ControlSettings
from circinus.control.state_store import ControlStateStore, Event
from circinus.testing.simulated_engine import SimulatedEngine


@dataclass(frozen=True)
class ScheduledEvent:
    """Action on the engine at a point in simulated time."""

    time_s: float
    action: Callable[[SimulatedEngine], None]


def run_controlled(
    engine: SimulatedEngine,
    controlled: ManagedPlans,
    records: ControlStateStore,
    *,
    until_s: float,
    settings: ControlSettings,
    happenings: Sequence[ScheduledEvent] = (),
    planner: ReplanDependencies = NO_REPLANNING,
    drift: DriftDependencies | None = None,
) -> list[Event]:
    """Run the control loop on a simulated engine until `until_s`.

    Args:
        engine: engine at simulated time 0.
        controlled: plans to deploy.
        records: state store of the controller.
        until_s: simulated duration in seconds.
        settings: settings of the control loop.
        happenings: injected events in ascending order of time.
        planner: dependencies of replanning, which takes no simulated time.
        drift: dependencies of drift detection; no responses are audited.

    Returns:
        The events of the controller, with simulated times.
    """
    events: list[Event] = []

    async def run() -> None:
        controller = Controller(
            engine,
            controlled,
            records,
            holder="simulated",
            clock=lambda: engine.now_s,
            wall_clock=lambda: engine.now_s,
            settings=replace(settings, apply_wait_s=0.0),  # no simulated time passes during the wait
            on_event=events.append,
            planner=replace(planner, prepare=engine.learn),
            drift=drift,
        )
        remaining = list(happenings)
        while engine.now_s < until_s:
            await controller.reconcile()
            await controller.wait_idle()
            next_s = min(engine.now_s + settings.interval_s, until_s)
            while remaining and remaining[0].time_s <= next_s:
                engine.advance(remaining[0].time_s)
                remaining.pop(0).action(engine)
            engine.advance(next_s)

    asyncio.run(run())
    return events
