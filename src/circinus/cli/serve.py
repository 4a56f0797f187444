"""`circinus serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from circinus.api.replay_recording import DEFAULT_REPLAY_ITEMS
from circinus.cli.options import (
    DEFAULT_ADDRESS,
    DEFAULT_PLAN,
    Address,
    Http,
    Json,
    Kind,
    PlanFile,
    Records,
    RunDir,
    factor_option,
    fraction_option,
    host_and_port,
    metrics_address,
    positive_duration_option,
)
from circinus.serving.local import DEFAULT_RUN_FOLDER

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from circinus.api.engine_options import EngineOptions
    from circinus.control.drift.drift_monitor import DriftDependencies
    from circinus.control.ladders.standby import StandbyReplicas
    from circinus.control.managed_plans import ManagedPlans
    from circinus.control.metrics import ControlMetrics
    from circinus.control.replanning.replan import ReplanDependencies
    from circinus.control.settings import ControlSettings
    from circinus.control.state_store import Event


def serve(
    plan_file: PlanFile = DEFAULT_PLAN,
    mode: Annotated[
        Literal["real", "replay"], typer.Option(help="As of circinus apply; replay answers from what it recorded.")
    ] = "real",
    items: Annotated[
        int, typer.Option(min=1, help="In replay: how many items are recorded for each plan.")
    ] = DEFAULT_REPLAY_ITEMS,
    standby_factor: Annotated[
        float,
        typer.Option(
            "--standby",
            parser=factor_option,
            metavar="TIMES",
            help="Keep replicas ready, where pools have room, with which every query can step down its ladder when "
            "so many times its rate come. 1x: none.",
            show_default="1x",
        ),
    ] = 1.0,
    interval: Annotated[
        float,
        typer.Option(
            parser=positive_duration_option,
            metavar="DURATION",
            help="From one look at the engine to the next.",
            show_default="250ms",
        ),
    ] = 0.25,
    dwell: Annotated[
        float,
        typer.Option(
            parser=positive_duration_option,
            metavar="DURATION",
            help="How long it is calm before a step up again.",
            show_default="10s",
        ),
    ] = 10.0,
    audit_rate: Annotated[
        float | None,
        typer.Option(
            "--audit",
            parser=fraction_option,
            metavar="SHARE",
            help="Of answers that are held against the truth, or against what the most accurate plan answers.",
            show_default="1%; in replay none",
        ),
    ] = None,
    ground_truth: Annotated[
        Path | None,
        typer.Option(
            help='File to which lines {"pipeline": .., "item": .., "truth": ..} are added as truths get known.'
        ),
    ] = None,
    ground_truth_timeout: Annotated[
        float,
        typer.Option(
            parser=positive_duration_option,
            metavar="DURATION",
            help="How long an answer waits for its truth before it does without.",
            show_default="1h",
        ),
    ] = 3600.0,
    state_file: Records = None,
    http: Http = "",
    metrics_at: Annotated[
        str,
        typer.Option(
            "--metrics",
            metavar="[HOST:]PORT",
            help="Where Prometheus finds what is measured; a port alone is on 127.0.0.1.",
            show_default=False,
        ),
    ] = "",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Until interrupted, look at the engine as it runs and say what would be done and why; do nothing.",
        ),
    ] = False,
    engine: Kind = "local",
    address: Address = DEFAULT_ADDRESS,
    run_dir: RunDir = DEFAULT_RUN_FOLDER,
    json: Json = False,
) -> None:
    """Keep an engine at a plan file until interrupted: queries step down their ladders under bursts, and up again.

    Where nodes are lost or come back, and when the plan file or its specification is written over, it plans again, and
    goes back where the new plans do worse.

    One line for every event, with its reason. What was decided is kept in a file. A second controller is refused as
    long as the first is at work; one that is started after it was killed goes on where it was.
    """
    import asyncio

    from circinus.api.engine_options import EngineOptions, state_file_of
    from circinus.api.plan_source import PlanFileSource
    from circinus.cli.output import profile_progress
    from circinus.control.metrics import ControlMetrics
    from circinus.control.settings import ControlSettings
    from circinus.serving import Mode
    from circinus.serving.local.capacity import MachineCapacity, require_capacity

    prometheus = metrics_address(metrics_at) if metrics_at else None
    share = (0.01 if mode == "real" else 0.0) if audit_rate is None else audit_rate
    recorded = items if mode == "replay" and not dry_run else None
    plans = PlanFileSource(
        plan_file, Mode(mode), standby_factor, dwell, share, recorded, only_here=engine == "local", dry=dry_run
    )
    controlled, ready = plans.open()
    if engine == "local":  # what can never run must not be tried for ever
        require_capacity(controlled.desired_state(controlled.initial_ladder_states()), MachineCapacity.here())
    plans.prepare(controlled, progress=profile_progress)
    say = _Speaker(json=json)
    metrics = None if prometheus is None else ControlMetrics(*prometheus)
    chosen, settings = (
        EngineOptions(engine, run_dir, address, host_and_port(http)),
        ControlSettings(interval_s=interval),
    )
    if dry_run:
        say.standby(ready, standby_factor)
        asyncio.run(_watch(chosen, controlled, plans.planner(), settings, say))
    else:
        kept = state_file_of(state_file, run_dir)
        drift = plans.drift_tools(
            ground_truth, ground_truth_timeout, (lambda scores: None) if metrics is None else metrics.audited
        )
        asyncio.run(
            _control(
                chosen,
                controlled,
                plans.planner(),
                drift,
                settings,
                kept,
                metrics,
                say,
                lambda: say.standby(ready, standby_factor),
            )
        )


async def _control(
    chosen: EngineOptions,
    controlled: ManagedPlans,
    planner: ReplanDependencies,
    drift: DriftDependencies,
    settings: ControlSettings,
    records_file: Path,
    metrics: ControlMetrics | None,
    say: _Speaker,
    on_began: Callable[[], None],
) -> None:
    import asyncio
    import os
    import socket
    import time

    from circinus.control.controller import Controller
    from circinus.control.state_store import ControlStateStore
    from circinus.serving.local.client import LocalEngineClient, start_daemon

    stop, records = _stopped(), ControlStateStore(records_file)
    engine = LocalEngineClient(chosen.run_dir) if chosen.kind == "local" else chosen.ray()

    def noted(event: Event) -> None:
        say.event(event)
        if metrics is not None:
            metrics.event(event)

    def revive() -> None:
        start_daemon(chosen.run_dir)

    try:
        controller = Controller(
            engine,
            controlled,
            records,
            holder=f"process {os.getpid()} on {socket.gethostname()}",
            clock=asyncio.get_running_loop().time,
            wall_clock=time.time,
            settings=settings,
            on_event=noted,
            on_status=None if metrics is None else metrics.observe,
            restart_engine=revive if chosen.kind == "local" else None,
            planner=planner,
            drift=drift,
            engine_lease=None if chosen.kind == "local" else chosen.ray_lease(),
        )
        if chosen.kind == "local":
            await asyncio.to_thread(revive)  # or join the one that runs
        controller.start()
        on_began()
        await controller.run(stop)
    finally:
        await engine.disconnect()
        records.close()


async def _watch(
    chosen: EngineOptions,
    controlled: ManagedPlans,
    planner: ReplanDependencies,
    settings: ControlSettings,
    say: _Speaker,
) -> None:
    """Decide, and do nothing: what an engine would be told."""
    import asyncio
    import time
    from dataclasses import replace

    from circinus.control.controller import Controller
    from circinus.control.dry_run import DryRunEngine
    from circinus.control.state_store import APPLIED, STARTED, ControlStateStore

    def noted(event: Event) -> None:
        if event.kind == APPLIED:
            event = replace(event, kind="apply", reason=dry.why)
        if event.kind != STARTED:
            say.event(event, would=True)

    records = ControlStateStore(Path(":memory:"))  # nothing is kept
    async with chosen.connected() as engine:
        dry = DryRunEngine(engine)
        controller = Controller(
            dry,
            controlled,
            records,
            holder="dry run",
            clock=asyncio.get_running_loop().time,
            wall_clock=time.time,
            settings=settings,
            on_event=noted,
            planner=planner,
        )
        controller.start()
        typer.echo("looks until interrupted, and changes nothing", err=True)
        await controller.run(_stopped())
    records.close()


def _stopped() -> asyncio.Event:
    """Set when the process is told to end."""
    import asyncio
    import signal

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


class _Speaker:
    """One line, or one JSON document, for everything that happens."""

    def __init__(self, *, json: bool) -> None:
        self._json = json

    def standby(self, ready: StandbyReplicas, standby_factor: float) -> None:
        """What is kept ready."""
        from circinus.specification.formatting import format_usd_per_h

        if standby_factor <= 1:
            return
        extra = sum(ready.extra.values())
        words = f"ready for {standby_factor:g}x: {extra} more replicas for {format_usd_per_h(ready.cost_usd_per_h)}"
        if ready.queries_without_room:
            words += f"; no room for a lower rung of {', '.join(ready.queries_without_room)}"
        typer.echo(words, err=self._json)

    def event(self, event: Event, *, would: bool = False) -> None:
        """Something happened, or would."""
        from circinus.reporting.control_table import event_line

        if self._json:
            from dataclasses import asdict
            from json import dumps

            typer.echo(dumps({**asdict(event), "would": would}))
            return
        typer.echo(event_line(event, would=would))
