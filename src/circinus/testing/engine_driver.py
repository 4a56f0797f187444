"""Helpers and status tests of `circinus.testing.engine_conformance`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from circinus.errors import ServingError
from circinus.operators.pickling import unpickle_value
from circinus.serving.audit_buffer import is_sampled
from circinus.serving.configuration_hash import configuration_hash
from circinus.serving.engine import AuditableEngine, AuditBatch, Engine, Request, Response
from circinus.testing.desired_states import StageSpec, chain, route, state

HANG_LIMIT_S = 240.0
"""Time limit for a wait that only a hang can exceed, on a machine of any speed."""
_P = ParamSpec("_P")
_Self = TypeVar("_Self")
_Test = Callable[Concatenate[_Self, Engine, _P], Coroutine[Any, Any, None]]


def run_async_test(test: _Test[_Self, _P]) -> Callable[..., None]:
    """Run a test in its own event loop, and close the engine afterwards."""

    @wraps(test)
    def run(self: _Self, engine: Engine, *args: _P.args, **kwargs: _P.kwargs) -> None:
        async def test_then_close() -> None:
            try:
                await asyncio.wait_for(test(self, engine, *args, **kwargs), 2 * HANG_LIMIT_S)
            finally:
                await engine.close()

        asyncio.run(test_then_close())

    return run


async def ask(engine: Engine, value: Any, query: str = "q", key: str = "item") -> Any:
    """Submit a request, and return its output."""
    return (await respond(engine, value, query, key)).output


async def respond(engine: Engine, value: Any, query: str = "q", key: str = "item") -> Response:
    """Submit a request, and return its response."""
    return await engine.submit(Request(query, key, value, input_bytes=100.0))


async def wait_until(condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Wait until `condition` is true, or fail after `HANG_LIMIT_S`."""
    deadline_s = time.monotonic() + HANG_LIMIT_S
    while not await condition():
        assert time.monotonic() < deadline_s, f"{condition} is still false after {HANG_LIMIT_S:g} s"
        await asyncio.sleep(0.005)


async def has_files(folder: Path, count: int) -> bool:
    """Return whether a folder has at least so many files."""
    return len(list(folder.iterdir())) >= count


async def queue_has(engine: Engine, count: int) -> bool:
    """Return whether exactly so many items wait in all queues."""
    return sum(deployment.queue_length for deployment in (await engine.status()).deployments) == count


def is_alive(process: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    if not status.parent.parent.joinpath("self").exists():
        return True
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class StatusConformance:
    """Conformance tests of status and audits, a part of `EngineConformance`."""

    @run_async_test
    async def test_status_tells_how_long_the_last_batches_took(self, engine: Engine, tmp_path: Path) -> None:
        one, ten = (StageSpec("first", "add", knobs=(("amount", n),), pool="far") for n in (1, 10))
        meet, refuse = (
            StageSpec("meet", "Barrier", batch_size=4, batch_wait_s=100 * HANG_LIMIT_S),
            StageSpec("refuse", "refuse_negative"),
        )
        last = StageSpec("last", "process_id", after=("first",))
        routes = [route("one", one, last), route("ten", ten, last), route("meet", meet), route("refuse", refuse)]
        await engine.apply(state(routes, [one, ten, last, meet, refuse]))
        sent = ["one", "ten", "one", "ten", "one"]
        for query in sent:
            await ask(engine, 0, query)
        batch = {"folder": str(tmp_path), "parties": 4}
        await asyncio.gather(*(ask(engine, batch, "meet") for _ in range(4)))
        for value in (-1, 1):
            with suppress(ServingError):
                await ask(engine, value, "refuse")
        statuses = {d.deployment: d for d in (await engine.status()).deployments}
        prefixes = {r.query: {stage.operator: configuration_hash(stage.prefix) for stage in r.stages} for r in routes}
        shared = statuses[last.deployment]
        # One deployment, with two different prefixes.
        assert [batch_.prefix for batch_ in shared.recent_batches] == [prefixes[query]["last"] for query in sent]
        assert [batch_.batch_index for batch_ in shared.recent_batches] == [0, 1, 2, 3, 4]
        assert shared.batches == 5
        assert all(batch_.items == 1 and batch_.service_s > 0 for batch_ in shared.recent_batches)
        assert statuses[one.deployment].batches == 3
        (batch_of_four,) = statuses[meet.deployment].recent_batches
        assert (batch_of_four.items, batch_of_four.prefix) == (4, prefixes["meet"]["meet"])
        assert statuses[refuse.deployment].batches == 1  # a failed batch has no service time

    @run_async_test
    async def test_status_stays_small_and_counts_on(self, engine: Engine) -> None:
        await engine.apply(chain("q", StageSpec("first", "add")))
        await asyncio.gather(*(ask(engine, 0) for _ in range(60)))
        (before,) = (await engine.status()).deployments
        await ask(engine, 0)
        (after,) = (await engine.status()).deployments
        assert (before.batches, after.batches) == (60, 61)
        assert len(before.recent_batches) == len(after.recent_batches) < 60
        assert after.recent_batches[:-1] == before.recent_batches[1:]

    @run_async_test
    async def test_audited_requests_are_handed_over_once(self, engine: Engine) -> None:
        worker, add = StageSpec("who", "process_id"), StageSpec("first", "add", knobs=(("amount", 5),), pool="far")
        unaudited, audited = route("who", worker), route("q", add)
        await engine.apply(state([unaudited, audited], [worker, add]))
        process = await ask(engine, 0, "who")
        await ask(engine, 1)
        desired = state([unaudited, replace(audited, audit_rate=1.0)], [worker, add])
        await engine.apply(desired)
        assert await ask(engine, 0, "who") == process  # the replica was not restarted
        for value in (2, 3):
            await ask(engine, value, key=f"number-{value}")
        assert isinstance(engine, AuditableEngine)
        audits = await engine.drain_audits()
        assert [(s.query, s.item_key, s.configuration) for s in audits.samples] == [
            ("q", f"number-{value}", configuration_hash(audited.configuration)) for value in (2, 3)
        ]
        assert [unpickle_value(s.value) for s in audits.samples if s.value is not None] == [2, 3]
        assert [unpickle_value(s.outputs["first"]) for s in audits.samples] == [7, 8]
        assert audits.dropped == 0
        assert await engine.drain_audits() == AuditBatch(())

    @run_async_test
    async def test_a_share_of_the_requests_is_audited(self, engine: Engine) -> None:
        first = StageSpec("first", "add")
        await engine.apply(state([replace(route("some", first), audit_rate=0.25)], [first]))
        for value in range(40):
            await ask(engine, value, "some", key=str(value))
        assert isinstance(engine, AuditableEngine)
        samples = (await engine.drain_audits()).samples
        assert [s.item_key for s in samples] == [
            str(number) for number in range(40) if is_sampled(0, "some", number, 0.25)
        ]
        assert 3 <= len(samples) <= 20
