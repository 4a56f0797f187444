"""Tests of requests while their route changes, a part of `circinus.testing.engine_conformance`."""

from __future__ import annotations

import asyncio

import pytest

from circinus.errors import ServingError
from circinus.serving.engine import Engine
from circinus.testing.desired_states import StageSpec, chain, route, state
from circinus.testing.engine_driver import ask, run_async_test, wait_until


class RouteChangeConformance:
    """Conformance tests of changed and paused routes, a part of `EngineConformance`."""

    @run_async_test
    async def test_switching_a_route_loses_no_request(self, engine: Engine) -> None:
        paused = ("pause_s", 0.05)  # requests wait, and leave the processors to the replicas that start
        old = StageSpec("first", "add", knobs=(("amount", 1), paused), replicas=2)
        new = StageSpec("first", "add", knobs=(("amount", 10), paused), pool="far")
        await engine.apply(chain("q", old))
        switched = asyncio.Event()

        async def keep_asking() -> list[int]:
            answers = []
            while not switched.is_set():
                answers.append(await ask(engine, 0))
            return answers

        senders = [asyncio.create_task(keep_asking()) for _ in range(10)]
        await asyncio.sleep(0.05)
        await engine.apply(chain("q", new))
        new_answers = await asyncio.gather(*(ask(engine, 0) for _ in range(10)))
        switched.set()
        answers = [answer for answers in await asyncio.gather(*senders) for answer in answers]
        assert set(new_answers) == {10}
        assert set(answers) == {1, 10}

    @run_async_test
    async def test_requests_of_a_paused_query_wait_for_its_next_route_or_its_end(self, engine: Engine) -> None:
        one, two = (StageSpec("first", "add", knobs=(("amount", n),)) for n in (1, 2))
        served = StageSpec("who", "process_id")
        await engine.apply(state([route("q", one), route("other", served)], [one, served]))
        process = await ask(engine, 0, "other")
        paused = state([route("q", one).paused(), route("other", served)], [served])
        await engine.apply(paused)
        waiting = [asyncio.create_task(ask(engine, value)) for value in (10, 20)]
        await wait_until(lambda: _waiting(engine, "q", 2))
        assert await ask(engine, 0, "other") == process
        status = await engine.status()
        assert ([entry.deployment.operator for entry in status.deployments], status.routes) == (["who"], ("other",))
        assert not any(task.done() for task in waiting)
        await engine.apply(state([route("q", two), route("other", served)], [two, served]))
        assert await asyncio.gather(*waiting) == [12, 22]
        await engine.apply(paused)
        removed = asyncio.create_task(ask(engine, 30))
        await wait_until(lambda: _waiting(engine, "q", 1))
        await engine.apply(state([route("other", served)], [served]))
        with pytest.raises(ServingError) as caught:
            await removed
        assert caught.value.code == "route.missing"
        assert await ask(engine, 0, "other") == process


async def _waiting(engine: Engine, query: str, count: int) -> bool:
    return any(entry.query == query and entry.in_flight == count for entry in (await engine.status()).queries)
