"""A deployed plan: requests, load tests and status from synchronous code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar

from circinus.api.synchronous import outside_loop, run

if TYPE_CHECKING:
    from circinus.api.engine_options import EngineOptions
    from circinus.api.plan_context import LoadedPlan
    from circinus.api.results import LoadReport
    from circinus.serving import DesiredState, Engine, EngineStatus, Mode, Response
    from circinus.serving.loadtest.load_test import LoadProgress

T = TypeVar("T")


def apply_state(desired: DesiredState, engine: EngineOptions) -> EngineStatus:
    """Bring an engine to a desired state, start the local engine if none runs, and return its status.

    An engine that was started for a state that cannot be applied is ended again.

    Raises:
        ServingError: the state does not fit the machine or cluster, or a replica does not start.
    """
    from circinus.errors import ServingError
    from circinus.serving.local.client import connect, start_daemon

    async def apply() -> EngineStatus:
        if engine.kind == "ray":
            async with engine.connected() as cluster:
                await cluster.apply(desired)
                return await cluster.status()
        try:
            client, started = connect(engine.run_dir), False
        except ServingError:
            client, started = start_daemon(engine.run_dir), True
        try:
            await client.apply(desired)
            return await client.status()
        except BaseException:
            if started:
                await client.close()
            raise
        finally:
            await client.disconnect()

    return run(apply)


class DeployedPlan:
    """A plan in force on an engine; leaving its `with` block ends the engine.

    Made by `Workspace.deploy`.
    """

    def __init__(self, opened: LoadedPlan, engine: EngineOptions) -> None:
        self._opened = opened
        self._engine = engine

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def status(self) -> EngineStatus:
        """Return the engine's status: deployments, replicas and counters.

        Raises:
            ServingError: no engine runs.
        """
        return self._with_engine(lambda engine: engine.status())

    def submit(self, query: str, value: Any, *, item_key: str = "", timeout_s: float = 60.0) -> Response:
        """Send one request and return its response.

        Args:
            query: name of a served query.
            value: input of the pipeline, as an item's `value`.
            item_key: key of a recorded item; a replay answers only those.
            timeout_s: seconds to wait for the response.

        Raises:
            ServingError: the query is not served, or its operators failed.
            TimeoutError: there is no response in time.
        """
        from circinus.profiling.measurement.pickling import pickled_bytes
        from circinus.serving import Request

        request = Request(query, item_key, value, float(pickled_bytes(value)))
        return self._with_engine(lambda engine: asyncio.wait_for(engine.submit(request), timeout_s))

    def load_test(
        self,
        *,
        duration: float | str = 30.0,
        warm_up: float | str = 5.0,
        rate_factor: float = 1.0,
        items: int = 16,
        seed: int = 0,
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> LoadReport:
        """Send open-loop traffic at the queries' rates and measure each request against the SLOs.

        Args:
            duration: measured time, in seconds or as `"30s"`.
            warm_up: time before it that is not measured.
            rate_factor: factor on the rate of each query.
            items: number of held-out items to send.
            seed: seed of arrivals and of the order of items.
            on_progress: callback about four times a second.

        Raises:
            ServingError: the engine runs another plan.
        """
        from circinus.api.load_test import run_load_test
        from circinus.api.quantities import seconds
        from circinus.serving.loadtest.load_test import LoadSpec

        spec = LoadSpec(seconds(duration), warm_up_s=seconds(warm_up), rate_factor=rate_factor, seed=seed)
        return run_load_test(self._opened, self._engine, spec, items=items, on_progress=on_progress)

    def close(self) -> None:
        """End the engine and everything that it started; on Ray, what Circinus runs there."""
        from circinus.serving.local.client import destroy

        if self._engine.kind == "ray":
            run(self._engine.ray().close)
        else:
            outside_loop(lambda: destroy(self._engine.run_dir))

    def _with_engine(self, use: Callable[[Engine], Awaitable[T]]) -> T:
        async def call() -> T:
            async with self._engine.connected() as engine:
                return await use(engine)

        return run(call)


def deploy(opened: LoadedPlan, engine: EngineOptions, mode: Mode) -> DeployedPlan:
    """Apply a plan to an engine and return the deployment."""
    apply_state(opened.desired_state(mode), engine)
    return DeployedPlan(opened, engine)
