"""Control of a plan: options, and the controller that keeps an engine at the plan."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from circinus.api.plan_source import PlanFileSource
from circinus.api.progress import ProgressFactory, no_progress
from circinus.api.quantities import AnyPath, Duration, count, factor, fraction, listen_address, seconds
from circinus.api.synchronous import run
from circinus.control.controller import Controller
from circinus.control.dry_run import DryRunEngine
from circinus.control.metrics import ControlMetrics
from circinus.control.settings import ControlSettings
from circinus.control.state_store import ControlStateStore, Event, EventKind
from circinus.serving import Mode
from circinus.serving.local.capacity import MachineCapacity, require_capacity

if TYPE_CHECKING:
    from circinus.api.engine_handle import EngineHandle
    from circinus.api.plan_context import LoadedPlan
    from circinus.control.ladders.standby import StandbyReplicas

_log = logging.getLogger(__name__)
_DEFAULT_AUDIT_RATE = 0.01


@dataclass(frozen=True)
class ControlOptions:
    """Options of `Workspace.control`; durations are seconds or texts such as `"10s"`.

    Example:
        >>> options = c.ControlOptions(standby_factor=2.0, dwell="30s")
        >>> options.interval, options.dry_run
        (0.25, False)
    """

    standby_factor: float = 1.0
    """Burst factor to keep standby replicas for: every query can degrade to serve this multiple of its planned rate; 1
    disables them."""
    interval: Duration = 0.25
    """Polling interval of the control loop."""
    dwell: Duration = 10.0
    """Minimum time of low load before a query is upgraded again."""
    audit_rate: float | None = None
    """Fraction of answers to audit against ground truth or the most accurate configuration; by default 0.01, and 0 in a
    replay."""
    ground_truth: AnyPath | None = None
    """File to which ground truths are appended as JSON lines; by default only those of the data sets are used."""
    ground_truth_timeout: Duration = 3600.0
    """Time to wait for an answer's ground truth."""
    items: int | None = None
    """Maximum number of held-out items that are recorded for each plan of a replay; by default all."""
    state_file: AnyPath | None = None
    """State file of the controller, shared by all controllers of one engine; by default beside the run directory."""
    metrics: tuple[str, int] | None = None
    """Listen address (host, port) of the Prometheus endpoint; by default there is none."""
    dry_run: bool = False
    """True to report decisions without applying them."""

    def __post_init__(self) -> None:
        factor(self.standby_factor, "standby_factor")
        for name in ("interval", "dwell", "ground_truth_timeout"):
            seconds(getattr(self, name), name, above_zero=True)
        if self.audit_rate is not None:
            fraction(self.audit_rate, "audit_rate")
        if self.items is not None:
            count(self.items, "items", minimum=1)
        if self.metrics is not None:
            listen_address(self.metrics, "metrics")


class PlanController:
    """Controller of a plan: keeps an engine at it, moves queries along their ladders, and plans again after changes.

    Made by `Workspace.control`. The engine keeps running when the controller stops.

    Example:
        >>> def stop_when_applied(event):
        ...     if event.kind == "applied":
        ...         controller.stop()
        >>> controller = workspace.control(plan, mode="replay", on_event=stop_when_applied)
        >>> controller.run()
        >>> print(next(workspace.engine.events()).kind)
        began
        >>> workspace.engine.close()
        True
    """

    def __init__(
        self,
        source: PlanFileSource,
        engine: EngineHandle,
        options: ControlOptions,
        on_event: Callable[[Event], None],
    ) -> None:
        self.standby: StandbyReplicas = source.standby
        """Standby replicas that the controller keeps, and what they cost."""
        self._source, self._handle, self._options = source, engine, options
        self._on_event = on_event
        self._metrics: ControlMetrics | None = None
        self._engine_warnings = engine.warnings(options.metrics)
        self._stop_requested = False
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        """Event loop of the control loop, and the event that ends it."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings as of `DeployedPlan`, and of an address at which other machines read the metrics without a token."""
        return (*self._source.warnings, *self._engine_warnings)

    def run(self) -> None:
        """Control the engine until `stop`, Ctrl-C or SIGTERM; may be called again afterwards.

        Raises:
            ServingError: another controller holds the lease, a dry run finds no engine, or metrics cannot be served.
        """
        run(self._run_until_signal, cancel=self.stop)

    async def run_async(self) -> None:
        """Control the engine until `stop` or cancellation, in the running event loop.

        Raises:
            ServingError: another controller holds the lease, a dry run finds no engine, or metrics cannot be served.

        Example:
            >>> import asyncio
            >>> async def control():
            ...     controller = workspace.control(plan, mode="replay", on_event=lambda event: controller.stop())
            ...     await controller.run_async()
            >>> asyncio.run(control())
            >>> workspace.engine.close()
            True
        """
        stop = asyncio.Event()
        self._running = asyncio.get_running_loop(), stop
        if self._stop_requested:  # read after `_running` is set: `stop` uses the opposite order
            stop.set()
        try:
            if self._options.metrics is not None:
                host, port = self._options.metrics
                tokens = await asyncio.to_thread(self._handle.http_tokens_in_force)
                self._metrics = await ControlMetrics.open(port, host, tokens)
            if self._options.dry_run:
                await self._watch(stop)
            else:
                await self._control(stop)
        finally:
            self._running, self._stop_requested = None, False
            if self._metrics is not None:
                await self._metrics.close()
                self._metrics = None

    def stop(self) -> None:
        """Stop the control loop; may be called from any thread, and by `on_event`."""
        self._stop_requested = True
        running = self._running
        if running is not None:
            loop, stop = running
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(stop.set)

    async def _run_until_signal(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            await self.run_async()
            return
        loop = asyncio.get_running_loop()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in handlers:
            loop.add_signal_handler(number, self.stop)
        try:
            await self.run_async()
        finally:
            for number, handler in handlers.items():
                loop.remove_signal_handler(number)
                if handler is not None:  # None: set outside Python
                    signal.signal(number, handler)

    async def _control(self, stop: asyncio.Event) -> None:
        options, handle, metrics = self._options, self._handle, self._metrics
        state_file = Path(options.state_file or handle.state_file)

        def record(event: Event) -> None:
            self._on_event(event)
            if metrics is not None:
                metrics.event(event)

        with closing(ControlStateStore(state_file)) as store:
            engine = handle.client()
            try:
                await asyncio.to_thread(handle.start)  # joins a running engine
                tokens = await asyncio.to_thread(handle.http_tokens_in_force)
                controller = Controller(
                    engine,
                    self._source.managed,
                    store,
                    holder=f"process {os.getpid()} on {socket.gethostname()}",
                    clock=asyncio.get_running_loop().time,
                    wall_clock=time.time,
                    settings=self._settings,
                    on_event=record,
                    on_status=(lambda *_: None) if metrics is None else metrics.observe,
                    restart_engine=partial(handle.start, tokens),
                    planner=self._source.planner(),
                    drift=self._source.drift_tools(
                        None if options.ground_truth is None else Path(options.ground_truth),
                        seconds(options.ground_truth_timeout),
                        (lambda scores: None) if metrics is None else metrics.audited,
                    ),
                    engine_lease=handle.lease(),
                )
                _log.info("control %s", handle)
                await controller.run(stop)
            finally:
                await engine.disconnect()

    async def _watch(self, stop: asyncio.Event) -> None:
        """Report the decisions that a controller would take."""
        async with AsyncExitStack() as stack:
            store = stack.enter_context(closing(ControlStateStore(Path(":memory:"))))
            dry = DryRunEngine(await stack.enter_async_context(self._handle.connected()))
            await dry.status()  # refuses to wait for an engine that does not run

            def report(event: Event) -> None:
                self._on_event(
                    replace(event, kind=EventKind.APPLY, reason=dry.why) if event.kind == EventKind.APPLIED else event
                )

            controller = Controller(
                dry,
                self._source.managed,
                store,
                holder="dry run",
                clock=asyncio.get_running_loop().time,
                wall_clock=time.time,
                settings=self._settings,
                on_event=report,
                planner=self._source.planner(),
            )
            await controller.run(stop)

    @property
    def _settings(self) -> ControlSettings:
        return ControlSettings(interval_s=seconds(self._options.interval))


def control_plan(
    opened: LoadedPlan,
    engine: EngineHandle,
    options: ControlOptions,
    mode: str,
    *,
    on_event: Callable[[Event], None],
    progress: ProgressFactory = no_progress,
    trust: bool = False,
) -> PlanController:
    """Record what a replay needs, and return a controller that has not started yet.

    With `trust`, code of plan files that other users made may run.

    Raises:
        PlanningError: the plan serves no query.
        ServingError: the plan can never run on this machine.
    """
    serving_mode = Mode(mode)
    default_rate = _DEFAULT_AUDIT_RATE if serving_mode is Mode.REAL else 0.0
    source = PlanFileSource(
        opened,
        serving_mode,
        options.standby_factor,
        seconds(options.dwell),
        default_rate if options.audit_rate is None else options.audit_rate,
        options.items,
        local_only=engine.on_this_machine,
        dry=options.dry_run,
        trust=trust,
    )
    managed = source.managed
    if engine.on_this_machine:  # otherwise the controller would retry forever
        require_capacity(managed.desired_state(managed.initial_ladder_states()), MachineCapacity.of_this_machine())
    source.prepare(managed, progress=progress, repeats_disturbed=True)
    return PlanController(source, engine, options, on_event)
