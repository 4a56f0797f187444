"""Tests of split routes, a part of `circinus.testing.engine_conformance`."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from circinus.serving.configuration_hash import configuration_hash
from circinus.serving.engine import AuditableEngine, DesiredState, Engine
from circinus.testing.desired_states import StageSpec, split_route, state
from circinus.testing.engine_driver import ask, respond, run_async_test, wait_until

_SMALL = StageSpec("first", "add", knobs=(("amount", 1),), replicas=2)
_LARGE = StageSpec("first", "add", knobs=(("amount", 10),), pool="far")
_SECOND = StageSpec("second", "add", after=("first",), knobs=(("amount", 100),))


class SplitConformance:
    """Conformance tests of split routes, a part of `EngineConformance`."""

    @run_async_test
    async def test_a_split_route_divides_requests_by_its_shares_and_changes_without_losing_one(
        self, engine: Engine
    ) -> None:
        desired = _split(0.3)
        await engine.apply(replace(desired, routes=tuple(replace(route, audit_rate=0.1) for route in desired.routes)))
        responses = await asyncio.gather(*(respond(engine, 0) for _ in range(200)))
        parts = [response.timings.part for response in responses]
        assert sum(parts) / 200 == pytest.approx(0.3, abs=0.02)
        assert [response.output for response in responses] == [(101, 110)[part] for part in parts]
        assert [bool(response.timings.link_bytes) for response in responses] == [bool(part) for part in parts]
        status = await engine.status()
        assert status.routes == ("q",)
        assert sorted(deployment.requests for deployment in status.deployments) == [sum(parts), 200 - sum(parts), 200]
        assert isinstance(engine, AuditableEngine)
        assert {sample.configuration for sample in (await engine.drain_audits()).samples} == {
            configuration_hash(part.configuration) for part in desired.routes[0].parts
        }
        changed = asyncio.Event()

        async def keep_asking() -> list[int]:
            answers = []
            while not changed.is_set():
                answers.append(await ask(engine, 0))
            return answers

        senders = [asyncio.create_task(keep_asking()) for _ in range(10)]
        await engine.apply(state(_split(0.0).routes, [_SMALL, _SECOND]))
        unsplit = await asyncio.gather(*(ask(engine, 0) for _ in range(20)))
        await engine.apply(_split(0.6))
        changed.set()
        assert {answer for answers in await asyncio.gather(*senders) for answer in answers} <= {101, 110}
        assert set(unsplit) == {101}
        divided = await asyncio.gather(*(ask(engine, 0) for _ in range(100)))
        assert divided.count(110) / 100 == pytest.approx(0.6, abs=0.05)
        assert [(query.failed, query.in_flight) for query in (await engine.status()).queries] == [(0, 0)]

    @run_async_test
    async def test_a_part_without_a_replica_leaves_its_requests_to_the_others_until_it_has_one(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        gate = tmp_path / "closed"
        near, far = (StageSpec("first", "Gated", knobs=(("closed", str(gate)),), pool=pool) for pool in ("near", "far"))
        await engine.apply(state([split_route("q", (0.6, (near,)), (0.4, (far,)))], [near, far]))
        responses = [await respond(engine, 0) for _ in range(50)]
        (split,) = (await engine.status()).splits
        assert [(part.share, part.requests, part.available) for part in split.parts] == [
            (share, [response.timings.part for response in responses].count(part), True)
            for part, share in enumerate((0.6, 0.4))
        ]
        assert [part.measured_share for part in split.parts] == pytest.approx([0.6, 0.4], abs=0.04)
        (process,) = {response.output for response in responses if response.timings.part == 1}
        gate.touch()
        closed = asyncio.Event()

        async def keep_asking() -> None:
            while not closed.is_set():
                await ask(engine, 0)

        async def is_available(expected: bool) -> bool:
            (split,) = (await engine.status()).splits
            return [part.available for part in split.parts] == [True, expected]

        senders = [asyncio.create_task(keep_asking()) for _ in range(5)]
        os.kill(process, signal.SIGKILL)
        await wait_until(lambda: is_available(False))
        moved = await asyncio.gather(*(respond(engine, 0) for _ in range(20)))
        assert {response.timings.part for response in moved} == {0}
        gate.unlink()
        await wait_until(lambda: is_available(True))
        returned = await asyncio.gather(*(respond(engine, 0) for _ in range(20)))
        assert {response.timings.part for response in returned} == {0, 1}
        closed.set()
        await asyncio.gather(*senders)
        assert [(query.failed, query.in_flight) for query in (await engine.status()).queries] == [(0, 0)]


def _split(share: float) -> DesiredState:
    """Return a state in which a share of the requests takes the far pool."""
    parts = [(1.0 - share, (_SMALL, _SECOND)), (share, (_LARGE, _SECOND))]
    return state([split_route("q", *(part for part in parts if part[0] > 0))], [_SMALL, _LARGE, _SECOND])
