"""A deployed plan: requests, load tests and status from synchronous code."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from circinus.api.load_test import run_load_test
from circinus.api.progress import ProgressFactory, no_progress
from circinus.api.quantities import AnyPath, Duration, count, factor, seconds
from circinus.api.synchronous import run
from circinus.api.traffic_items import record_configurations, select_traffic_items
from circinus.errors import ServingError
from circinus.operators.pickling import pickled_bytes
from circinus.serving import DesiredState, Mode, Request, Response
from circinus.serving.loadtest.load_test import LoadSpec
from circinus.specification import replica_keys

if TYPE_CHECKING:
    from circinus.api.engine_handle import EngineHandle
    from circinus.api.plan_context import LoadedPlan
    from circinus.api.reports import LoadReport
    from circinus.api.single_request import RequestReport
    from circinus.operators import Item
    from circinus.serving import Engine, EngineStatus
    from circinus.serving.loadtest.load_test import LoadProgress

_POLLING_S = 0.25
_log = logging.getLogger(__name__)


class DeployedPlan:
    """A plan in force on an engine; leaving its `with` block ends the engine.

    Made by `Workspace.deploy`, and by `Workspace.attach` for a plan that the engine runs already.

    Example:
        >>> with workspace.deploy(plan, mode="replay") as deployment:
        ...     report = deployment.load_test(duration="1s", warm_up="0s")
        >>> report["archive"].served, report["archive"].failures
        (True, 0)
    """

    def __init__(self, opened: LoadedPlan, engine: EngineHandle, warnings: tuple[str, ...] = ()) -> None:
        self._opened = opened
        self._engine = engine
        self.warnings = warnings
        """Warnings of `Workspace.deploy`: operators whose recordings for a replay other programs disturbed, and
        addresses at which other machines need no token."""

    def __repr__(self) -> str:
        queries = ", ".join(sorted(self._opened.plan_set.matching.served))
        return f"<DeployedPlan: {queries} on {self._engine}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def status(self) -> EngineStatus:
        """Return the engine's status: deployments, replicas and counters.

        Raises:
            ServingError: no engine runs.

        Example:
            >>> with workspace.deploy(plan, mode="replay") as deployment:
            ...     status = deployment.status()
            >>> status.healthy, sorted(status.routes)
            (True, ['archive', 'typing-aid'])
        """
        return self._engine.status()

    def items(self, query: str, count: int | None = None) -> Sequence[Item]:
        """Return held-out items of a query's pipeline, by default all; in a replay only those that are recorded.

        Raises:
            ServingError: no engine runs.
            KeyError: the plan does not serve the query.

        Example:
            >>> with workspace.deploy(plan, mode="replay") as deployment:
            ...     len(deployment.items("archive", 4))
            4
        """
        opened, mode = self._opened, self.status().mode
        served = {a.query: a.chosen.plan.pipeline for a in opened.plan_set.matching.assignments}
        pipeline, seed = served[query], opened.plan_set.seed
        return select_traffic_items(opened.specification, opened.plan_set.matching, opened.store, count, mode, seed)[
            pipeline
        ]

    def submit(self, query: str, value: Any, *, item: str = "", timeout: Duration = 60.0) -> Response:
        """Send one request and return its response.

        Args:
            query: name of a served query.
            value: input of the pipeline, as an item's `value`.
            item: key of a recorded item; a replay answers only those.
            timeout: time to wait for the response, in seconds or as `"30s"`.

        Raises:
            ServingError: the query is not served, or its operators failed.
            TimeoutError: there is no response in time.

        Example:
            >>> with workspace.deploy(plan, mode="replay") as deployment:
            ...     item = deployment.items("archive")[0]
            ...     response = deployment.submit("archive", item.value, item=item.key)
            >>> type(response.output)
            <class 'str'>
        """
        timeout_s = seconds(timeout, "timeout", above_zero=True)
        request = Request(query, item, value, float(pickled_bytes(value)))

        async def send() -> Response:
            async with self._engine.connected() as engine:
                return await asyncio.wait_for(engine.submit(request), timeout_s)

        return run(send)

    def request(
        self, query: str, data: bytes | None = None, *, item: str = "", timeout: Duration = 60.0
    ) -> RequestReport:
        """Send one request, and return its output, its times and the pools that served it.

        Args:
            query: name of a served query.
            data: content of a file with the input: text, bytes or JSON, as the items are. None: send an item.
            item: key of the item to send; by default the first held-out one.
            timeout: time to wait for the response, in seconds or as `"30s"`.

        Raises:
            PlanningError: the plan has no such query.
            ServingError: the query is not served, there is no such item, the input is malformed, the operators failed,
                or there is no response in time.

        Example:
            >>> with workspace.deploy(plan, mode="replay") as deployment:
            ...     report = deployment.request("archive")
            >>> list(report.pools), type(report.response.output)
            (['clean', 'correct'], <class 'str'>)
        """
        from circinus.api.single_request import find_item, parse_input, pipeline_of, report_request, route_of

        timeout_s = seconds(timeout, "timeout", above_zero=True)
        inputs = {operator.name: operator.parents for operator in pipeline_of(self._opened, query).topological_order()}
        status = self.status()
        if data is None:
            sent = find_item(self._opened, query, item, status.mode)
            key, value = sent.key, sent.value
        else:
            key, value = "", parse_input(self._opened, query, data, status.mode)
        try:
            response = self.submit(query, value, item=key or "input", timeout=timeout_s)
        except TimeoutError:
            reason = f"there is no response within {timeout_s:g} s"
            raise ServingError(reason, code="query.deadline_passed", location=f"query {query}") from None
        return report_request(query, key, response, route_of(self._opened, query, status), inputs)

    def load_test(
        self,
        *,
        duration: Duration = 30.0,
        warm_up: Duration = 5.0,
        load_factor: float = 1.0,
        arrivals: AnyPath | None = None,
        items: int | None = None,
        seed: int = 0,
        keep_observations: bool = True,
        controlled: bool = False,
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> LoadReport:
        """Send open-loop traffic at the queries' rates and measure each request against the SLOs.

        Args:
            duration: measured time, in seconds or as `"30s"`.
            warm_up: time before it that is not measured.
            load_factor: factor on the rate of each query.
            arrivals: CSV file (time_s,query) with arrivals, instead of the queries' own.
            items: maximum number of held-out items to send for each pipeline; by default all, in a replay all recorded.
            seed: seed of arrivals and of the order of items.
            keep_observations: whether the observed service times are stored, to correct later plans.
            controlled: whether a controller may have moved queries to other rungs of their ladders.
            on_progress: callback about four times a second.

        Raises:
            ServingError: the engine runs another plan, a controller may change it during the test, another load test is
                running, or a local engine ends before the warm-up does.

        Example:
            >>> with workspace.deploy(plan, mode="replay") as deployment:
            ...     report = deployment.load_test(duration="1s", warm_up="0.5s", load_factor=2.0)
            >>> report.measured.load_factor, report["typing-aid"].requests > 0
            (2.0, True)
        """
        if items is not None:
            count(items, "items", minimum=1)
        spec = LoadSpec(
            seconds(duration, above_zero=True),
            warm_up_s=seconds(warm_up, "warm_up"),
            load_factor=factor(load_factor, "load_factor"),
            seed=count(seed, "seed"),
            arrivals=None if arrivals is None else Path(arrivals),
        )
        return run_load_test(
            self._opened,
            self._engine,
            spec,
            items=items,
            keep=keep_observations,
            controlled=controlled,
            on_progress=on_progress,
        )

    def close(self) -> None:
        """End the engine and everything that it started; on Ray, what Circinus runs there.

        Example:
            >>> deployment = workspace.deploy(plan, mode="replay")
            >>> deployment.close()
        """
        self._engine.close()


def deploy(
    opened: LoadedPlan,
    engine: EngineHandle,
    mode: str,
    *,
    items: int | None,
    progress: ProgressFactory = no_progress,
    on_progress: Callable[[int, int], None] | None = None,
) -> DeployedPlan:
    """Record what a replay needs, apply a plan to an engine, and return the deployment; see `Workspace.deploy`.

    Raises:
        PlanningError: the plan serves no query.
        ServingError: the plan does not fit the machine or cluster, or a replica does not start.
    """
    opened.require_served_query()
    if items is not None:
        count(items, "items", minimum=1)
    engine.required_tokens()  # fails before anything is recorded
    specification, store = opened.specification, opened.store
    warnings: tuple[str, ...] = ()
    if Mode(mode) is Mode.REPLAY:
        seed = opened.plan_set.seed
        warnings = record_configurations(
            specification,
            store,
            opened.configurations,
            items,
            seed=seed,
            progress=progress,
            repeats_disturbed=True,
        )
    _log.info("deploy in mode %s on %s", mode, engine)
    _apply(opened.desired_state(Mode(mode)), engine, on_progress if engine.on_this_machine else None)
    return DeployedPlan(opened, engine, (*warnings, *engine.warnings()))


def _apply(desired: DesiredState, handle: EngineHandle, on_progress: Callable[[int, int], None] | None) -> None:
    """Bring an engine to a desired state, and start it if none runs.

    An engine that was started for a state that cannot be applied is ended again.

    Raises:
        ServingError: the state does not fit the machine or cluster, or a replica does not start.
    """

    async def apply() -> None:
        started = handle.start()
        async with handle.connected() as engine:
            observers = [] if on_progress is None else [asyncio.create_task(_observe(engine, desired, on_progress))]
            try:
                await asyncio.sleep(0)  # the first report precedes the start of replicas
                await engine.apply(desired)
            except BaseException:
                if started:
                    await engine.close()
                raise
            finally:
                for observer in observers:
                    observer.cancel()
                    with suppress(asyncio.CancelledError):
                        await observer

    run(apply)


async def _observe(engine: Engine, desired: DesiredState, on_progress: Callable[[int, int], None]) -> None:
    """Report the ready and the desired replicas until cancelled, or until the engine does not answer."""
    with suppress(ServingError):
        while True:
            status = await engine.status()
            unchanged = status.deployments if status.mode is desired.mode else ()
            running = replica_keys(entry.deployment for entry in unchanged)
            keys = replica_keys((entry.deployment for entry in desired.deployments), running)
            ready = {running[entry.deployment]: entry.replicas_ready for entry in unchanged}
            starting = (entry for entry in status.starting if entry.deployment in keys)
            ready |= {keys[entry.deployment]: entry.replicas_ready for entry in starting}
            replicas = {keys[entry.deployment]: entry.replicas for entry in desired.deployments}
            on_progress(sum(min(ready.get(d, 0), count) for d, count in replicas.items()), sum(replicas.values()))
            await asyncio.sleep(_POLLING_S)
