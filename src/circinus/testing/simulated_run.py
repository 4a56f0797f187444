"""The controller on a simulated clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from circinus.control.controller import Controller
from circinus.control.drift.drift_monitor import DriftDependencies
from circinus.control.managed_plans import ManagedPlans
from circinus.control.replanning.replan import ReplanDependencies
from circinus.control.settings import ControlSettings
from circinus.control.state_store import ControlStateStore, Event
from circinus.testing.simulated_engine import SimulatedEngine


@dataclass(frozen=True)
class ScheduledEvent:
    """Something that happens to the engine at a moment."""

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
    planner: ReplanDependencies | None = None,
    drift: DriftDependencies | None = None,
) -> list[Event]:
    """Let the controller look at a simulated engine again and again, as it does at a real one.

    Args:
        engine: at its beginning.
        controlled: the plans.
        records: where decisions are kept.
        until_s: simulated seconds.
        settings: of the loop.
        happenings: by ascending time.
        planner: makes other plans, in no simulated time.
        drift: to notice what moved; nothing is audited.

    Returns:
        What the controller did, with simulated times.
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
            settings=replace(settings, apply_wait_s=0.0),  # simulated time does not pass meanwhile
            on_event=events.append,
            planner=planner and replace(planner, prepare=engine.learn),
            drift=drift,
        )
        controller.start()
        left = list(happenings)
        while engine.now_s < until_s:
            await controller.reconcile()
            await controller.wait_idle()
            next_s = min(engine.now_s + settings.interval_s, until_s)
            while left and left[0].time_s <= next_s:
                engine.advance(left[0].time_s)
                left.pop(0).action(engine)
            engine.advance(next_s)

    asyncio.run(run())
    return events
