"""Conformance tests of engines, as a base class for the tests of an engine.

    class TestMyEngine(EngineConformance):
        @pytest.fixture
        def engine(self):
            return MyEngine()  # without deployments; each test closes it

The module needs pytest, which is no dependency of Circinus.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from circinus.errors import ServingError
from circinus.operators.pickling import unpickle_value
from circinus.serving.configuration_hash import configuration_hash
from circinus.serving.engine import DROPPED_LATE, AuditableEngine, Engine, Mode
from circinus.serving.state_serialization import state_fingerprint
from circinus.testing.desired_states import StageSpec, chain, limited, recorded, route, state
from circinus.testing.engine_driver import (
    HANG_LIMIT_S,
    StatusConformance,
    ask,
    has_files,
    is_alive,
    queue_has,
    respond,
    run_async_test,
    wait_until,
)
from circinus.testing.fan_out_conformance import FanOutConformance
from circinus.testing.operators import signal_barrier
from circinus.testing.route_change_conformance import RouteChangeConformance
from circinus.testing.split_conformance import SplitConformance

__all__ = ["EngineConformance", "ask", "is_alive", "respond", "run_async_test", "wait_until"]


class EngineConformance(StatusConformance, RouteChangeConformance, SplitConformance, FanOutConformance):
    """Base class of an engine's tests. They define the fixture `engine`: mode `real`, without deployments."""

    # -- routes --

    @run_async_test
    async def test_chain_passes_outputs_on(self, engine: Engine) -> None:
        first = StageSpec("first", "add", knobs=(("amount", 1),))
        second = StageSpec("second", "add", after=("first",), knobs=(("amount", 10),), pool="far")
        await engine.apply(chain("q", first, second))
        response = await respond(engine, 100)
        assert response.output == 111
        timings = response.timings
        assert timings.latency_s > 0
        assert set(timings.stage_s) == set(timings.replica_s) == set(timings.wait_s) == {"first", "second"}
        assert timings.latency_s >= sum(timings.stage_s.values())
        assert set(timings.link_bytes) == {"home->center", "center->home"}

    @run_async_test
    async def test_fork_and_join_keep_the_order_of_inputs(self, engine: Engine) -> None:
        start = StageSpec("start", "add", knobs=(("amount", 1),))
        left = StageSpec("left", "add", after=("start",), knobs=(("amount", 10),), pool="far")
        right = StageSpec("right", "add", after=("start",), knobs=(("amount", 100),))
        join = StageSpec("join", "pair", after=("right", "left"), pool="far")
        await engine.apply(chain("q", start, left, right, join))
        assert await ask(engine, 0) == [101, 11]

    @run_async_test
    async def test_output_is_sent_to_a_site_once(self, engine: Engine) -> None:
        start = StageSpec("start", "add")
        left = StageSpec("left", "add", after=("start",), knobs=(("amount", 10),), pool="far")
        right = StageSpec("right", "add", after=("start",), knobs=(("amount", 20),), pool="far")
        join = StageSpec("join", "pair", after=("left", "right"))
        single = StageSpec("single", "add", after=("start",), pool="far")
        steps = (start, left, right, join)
        await engine.apply(state([route("both", *steps), route("one", start, single)], [*steps, single]))
        two_consumers = await respond(engine, 5, "both")
        one_consumer = await respond(engine, 5, "one")
        assert two_consumers.output == [16, 26]
        assert two_consumers.timings.link_bytes["home->center"] == one_consumer.timings.link_bytes["home->center"]

    @run_async_test
    async def test_several_sinks_answer_together(self, engine: Engine) -> None:
        start = StageSpec("start", "add")
        left = StageSpec("left", "add", after=("start",), knobs=(("amount", 10),))
        right = StageSpec("right", "refuse_negative", after=("start",), pool="far")
        await engine.apply(chain("q", start, left, right))
        assert await ask(engine, 1) == {"left": 12, "right": 2}

    @run_async_test
    async def test_large_values_pass_whole(self, engine: Engine) -> None:
        await engine.apply(chain("q", StageSpec("first", "add", knobs=(("amount", "end"),), batch_size=2)))
        value = os.urandom(2_000_000).hex()
        answers = await asyncio.gather(*(ask(engine, value) for _ in range(5)))
        assert all(answer == value + "end" for answer in answers)

    @run_async_test
    async def test_queries_share_a_deployment(self, engine: Engine) -> None:
        shared = StageSpec("shared", "process_id")
        await engine.apply(state([route("a", shared), route("b", shared)], [shared]))
        answers = [await ask(engine, 0, query) for query in "abab"]
        assert len(set(answers)) == 1
        status = await engine.status()
        assert set(status.routes) == {"a", "b"}
        assert [deployment.requests for deployment in status.deployments] == [4]

    @run_async_test
    async def test_unknown_query_is_refused(self, engine: Engine) -> None:
        await engine.apply(chain("q", StageSpec("first", "add")))
        with pytest.raises(ServingError, match="nobody"):
            await ask(engine, 1, "nobody")
        assert await ask(engine, 1) == 2

    # -- replicas --

    @run_async_test
    async def test_as_many_requests_at_a_time_as_replicas(self, engine: Engine, tmp_path: Path) -> None:
        await engine.apply(chain("q", StageSpec("meet", "Barrier", replicas=3)))
        value = {"folder": str(tmp_path), "parties": 3}
        answers = await asyncio.gather(*(ask(engine, value) for _ in range(3)))
        assert len({process for process, _ in answers}) == 3

    @run_async_test
    async def test_waiting_requests_are_batched(self, engine: Engine, tmp_path: Path) -> None:
        await engine.apply(chain("q", StageSpec("meet", "Barrier", batch_size=4)))
        held, free = tmp_path / "held", tmp_path / "free"
        held.mkdir()
        free.mkdir()
        first = asyncio.create_task(ask(engine, {"folder": str(held), "parties": 2}))
        await wait_until(lambda: has_files(held, 1))
        queued = [asyncio.create_task(respond(engine, {"folder": str(free), "parties": 1})) for _ in range(6)]
        await wait_until(lambda: queue_has(engine, 6))
        signal_barrier(held)
        responses = await asyncio.gather(*queued)
        assert (await first)[1] == 1
        # Concurrent requests may arrive in any order.
        assert sorted(response.output[1] for response in responses) == [2, 2, 4, 4, 4, 4]
        for response in responses:
            assert response.timings.replica_s["meet"] == pytest.approx(
                response.timings.stage_s["meet"] / response.output[1]
            )

    @run_async_test
    async def test_a_batch_waits_to_fill(self, engine: Engine, tmp_path: Path) -> None:
        await engine.apply(chain("q", StageSpec("meet", "Barrier", batch_size=3, batch_wait_s=100 * HANG_LIMIT_S)))
        value = {"folder": str(tmp_path), "parties": 3}
        waiting = [asyncio.create_task(ask(engine, value)) for _ in range(2)]
        await wait_until(lambda: queue_has(engine, 2))  # the replica is free, and would have started by now
        answers = [await ask(engine, value), *await asyncio.gather(*waiting)]
        assert [size for _, size in answers] == [3, 3, 3]

    @run_async_test
    async def test_the_oldest_of_a_batch_waits_no_longer_than_it_may(self, engine: Engine, tmp_path: Path) -> None:
        await engine.apply(chain("q", StageSpec("meet", "Barrier", batch_size=3, batch_wait_s=0.05)))
        response = await respond(engine, {"folder": str(tmp_path), "parties": 1})
        assert response.output[1] == 1
        assert response.timings.latency_s >= 0.05 + response.timings.stage_s["meet"]

    @run_async_test
    async def test_batches_of_one_do_not_wait(self, engine: Engine) -> None:
        await engine.apply(chain("q", StageSpec("first", "add", batch_wait_s=100 * HANG_LIMIT_S)))
        assert await ask(engine, 1) == 2

    @run_async_test
    async def test_another_batch_wait_or_target_replaces_no_replica(self, engine: Engine) -> None:
        low, mid, high = (StageSpec("who", "process_id", batch_size=4, utilization_target=u) for u in (0.2, 0.5, 0.9))
        await engine.apply(chain("q", replace(mid, batch_wait_s=0.01)))
        process = await ask(engine, 0)
        for changed in (chain("q", high), state([route("q", high), route("r", low)], [low, high]), chain("q", high)):
            await engine.apply(changed)
            assert await ask(engine, 0) == process

    @run_async_test
    async def test_the_earliest_latest_start_is_served_first_and_late_requests_are_dropped(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        stage = StageSpec("meet", "Barrier", pool="far")
        limits_s = {
            "loose": 9 * HANG_LIMIT_S,
            "unlimited": None,
            "tight": 3 * HANG_LIMIT_S,
            "late": 0.0,
            "dropped": 0.0,
        }
        unordered = state([route(query, stage) for query in limits_s], [stage])
        await engine.apply(unordered)
        free, held = tmp_path / "free", tmp_path / "held"
        held.mkdir()
        free.mkdir()
        process, _ = await ask(engine, {"folder": str(free), "parties": 1}, "loose")
        # Other limits change routes, and no replica.
        routes = [limited(r, limits_s[r.query], drops=r.query == "dropped") for r in unordered.routes]
        await engine.apply(replace(unordered, routes=tuple(routes)))
        first = asyncio.create_task(ask(engine, {"folder": str(held), "parties": 2}, "loose"))
        await wait_until(lambda: has_files(held, 1))
        answered: list[str] = []

        async def send(query: str) -> None:
            assert await ask(engine, {"folder": str(free), "parties": 1}, query) == [process, 1]
            answered.append(query)

        queued = []
        for number, query in enumerate(limits_s):
            queued.append(asyncio.create_task(send(query)))
            await wait_until(lambda number=number: queue_has(engine, number + 1))  # type: ignore[misc]
        signal_barrier(held)
        *_, error = await asyncio.gather(*queued, return_exceptions=True)
        assert (await first)[0] == process
        assert answered == ["late", "tight", "loose", "unlimited"]
        assert isinstance(error, ServingError)
        assert error.code == DROPPED_LATE
        statuses = {query.query: query for query in (await engine.status()).queries}
        dropped = statuses["dropped"]
        assert (dropped.received, dropped.answered, dropped.failed, dropped.dropped) == (1, 0, 0, 1)
        assert (dropped.recent_latency_s, dropped.recent_failed, dropped.in_flight) == ((math.inf,), 0, 0)
        assert [statuses[query].dropped for query in answered] == [0] * 4

    @run_async_test
    async def test_start_up_is_told_once_there_was_one(self, engine: Engine) -> None:
        await engine.apply(chain("q", StageSpec("who", "process_id", replicas=2)))
        (deployment,) = (await engine.status()).deployments
        assert deployment.startup_s is not None
        assert deployment.startup_s > 0

    @run_async_test
    async def test_operator_error_names_operator_and_item(self, engine: Engine) -> None:
        refuse = StageSpec("refuse", "refuse_negative", batch_size=8)
        await engine.apply(chain("q", refuse, StageSpec("who", "process_id", after=("refuse",))))
        process = await ask(engine, 1)
        values = [1, -2, 3]
        answers = await asyncio.gather(
            *(ask(engine, value, key=f"key{value}") for value in values), return_exceptions=True
        )
        error = answers[1]
        assert isinstance(error, ServingError)
        assert all(part in str(error) for part in ("refuse", "key-2", "ValueError", "-2 is negative"))
        assert answers[0] == answers[2] == process
        assert [deployment.restarts for deployment in (await engine.status()).deployments] == [0, 0]

    @run_async_test
    async def test_killed_replica_is_replaced_and_reported(self, engine: Engine) -> None:
        await engine.apply(chain("q", StageSpec("who", "process_id")))
        assert (await engine.status()).healthy
        process = await ask(engine, 0)
        os.kill(process, signal.SIGKILL)
        assert await ask(engine, 0) != process
        await wait_until(lambda: _restarted(engine))
        (deployment,) = (await engine.status()).deployments
        assert (await engine.status()).healthy
        assert deployment.message

    @run_async_test
    async def test_item_that_kills_replicas_is_given_up(self, engine: Engine) -> None:
        await engine.apply(chain("q", StageSpec("die", "die_on_negative")))
        with pytest.raises(ServingError, match=r"die.*killer"):
            await ask(engine, -1, key="killer")
        assert await ask(engine, 4) == 4

    # -- changes --

    @run_async_test
    async def test_changed_state_keeps_untouched_replicas(self, engine: Engine) -> None:
        unchanged = StageSpec("kept", "process_id")
        first = StageSpec("first", "add", knobs=(("amount", 1),))
        second = StageSpec("first", "add", knobs=(("amount", 5),))
        await engine.apply(state([route("who", unchanged), route("q", first)], [unchanged, first]))
        process = await ask(engine, 0, "who")
        assert await ask(engine, 0) == 1
        await engine.apply(state([route("who", unchanged), route("q", second)], [unchanged, second]))
        assert await ask(engine, 0, "who") == process
        assert await ask(engine, 0) == 5
        await engine.apply(state([route("who", unchanged)], [unchanged]))
        assert await ask(engine, 0, "who") == process
        with pytest.raises(ServingError):
            await ask(engine, 0)

    @run_async_test
    async def test_scaling_up_adds_to_what_runs(self, engine: Engine, tmp_path: Path) -> None:
        before, after = tmp_path / "before", tmp_path / "after"
        before.mkdir()
        after.mkdir()
        await engine.apply(chain("q", StageSpec("meet", "Barrier")))
        process, _ = await ask(engine, {"folder": str(before), "parties": 1})
        await engine.apply(chain("q", StageSpec("meet", "Barrier", replicas=3)))
        value = {"folder": str(after), "parties": 3}
        answers = await asyncio.gather(*(ask(engine, value) for _ in range(3)))
        processes = {process for process, _ in answers}
        assert len(processes) == 3
        assert process in processes

    @run_async_test
    async def test_scaling_down_drains(self, engine: Engine, tmp_path: Path) -> None:
        await engine.apply(chain("q", StageSpec("meet", "Barrier", replicas=3)))
        tasks = [asyncio.create_task(ask(engine, {"folder": str(tmp_path), "parties": 6})) for _ in range(5)]
        await wait_until(lambda: has_files(tmp_path, 3))
        await engine.apply(chain("q", StageSpec("meet", "Barrier", replicas=1)))
        for _ in range(3):
            signal_barrier(tmp_path)
        answers = await asyncio.gather(*tasks)
        processes = {process for process, _ in answers}
        assert len(processes) == 3
        await wait_until(lambda: _alive(processes, 1))
        (deployment,) = (await engine.status()).deployments
        assert (deployment.target_replicas, deployment.replicas_ready) == (1, 1)

    @run_async_test
    async def test_state_that_cannot_be_leaves_the_old_one(self, engine: Engine) -> None:
        worker = StageSpec("who", "process_id")
        await engine.apply(chain("q", worker))
        process = await ask(engine, 0)
        applied_state = (await engine.status()).state
        bad = StageSpec("bad", "Unloadable", after=("who",))
        grown = StageSpec("who", "process_id", replicas=2)
        with pytest.raises(ServingError, match="its model is missing"):
            await engine.apply(chain("q", grown, bad))
        assert await ask(engine, 0) == process
        status = await engine.status()
        assert status.routes == ("q",)
        assert status.state == applied_state
        assert [(d.deployment, d.target_replicas) for d in status.deployments] == [(worker.deployment, 1)]
        assert status.healthy

    @run_async_test
    async def test_same_state_again_changes_nothing(self, engine: Engine) -> None:
        await engine.apply(chain("q", StageSpec("who", "process_id")))
        process = await ask(engine, 0)
        await engine.apply(chain("q", StageSpec("who", "process_id")))
        assert await ask(engine, 0) == process

    @run_async_test
    async def test_status_tells_which_state_is_in_force(self, engine: Engine) -> None:
        initial = chain("q", StageSpec("first", "add"))
        scaled = chain("q", StageSpec("first", "add", replicas=2))
        assert (await engine.status()).state == ""
        await engine.apply(initial)
        assert (await engine.status()).state == state_fingerprint(initial)
        await engine.apply(scaled)
        assert (await engine.status()).state == state_fingerprint(scaled) != state_fingerprint(initial)

    @run_async_test
    async def test_status_counts_the_requests_of_every_query(self, engine: Engine) -> None:
        refuse, worker = StageSpec("refuse", "refuse_negative"), StageSpec("who", "process_id")
        await engine.apply(state([route("q", refuse), route("other", worker)], [refuse, worker]))
        for value in (1, 2, 3):
            await ask(engine, value)
        with pytest.raises(ServingError):
            await ask(engine, -1)
        await ask(engine, 0, "other")
        statuses = {query.query: query for query in (await engine.status()).queries}
        assert {name: (q.received, q.answered, q.failed) for name, q in statuses.items()} == {
            "q": (4, 3, 1),
            "other": (1, 1, 0),
        }
        assert len(statuses["q"].recent_latency_s) == 3
        assert min(statuses["q"].recent_latency_s) > 0
        assert {name: q.recent_failed for name, q in statuses.items()} == {"q": 1, "other": 0}
        assert statuses["q"].in_flight == 0

    # -- replay --

    @run_async_test
    async def test_replay_answers_what_was_recorded(self, engine: Engine, tmp_path: Path) -> None:
        desired, recordings = await asyncio.to_thread(recorded, tmp_path / "profiles.sqlite")
        await engine.apply(desired)
        (replayed,) = desired.routes
        assert len(recordings.items) == 4
        await engine.apply(replace(desired, routes=(replace(replayed, audit_rate=1.0),)))
        for key in recordings.items:
            response = await respond(engine, None, key=key)
            # The recorded process id, so no operator ran.
            assert response.output == recordings.output(replayed.stages[-1].prefix, key)
            for stage in replayed.stages:
                assert response.timings.stage_s[stage.operator] == pytest.approx(
                    recordings.run(stage.prefix, key).total_s
                    * next(iter(recordings.batch_ratios[stage.operator, stage.deployment.knobs].values()))
                )
        with pytest.raises(ServingError, match=r"first.*number-unheard.*recorded"):
            await ask(engine, None, key="number-unheard")
        assert isinstance(engine, AuditableEngine)
        samples = (await engine.drain_audits()).samples
        assert [(s.item_key, s.value) for s in samples] == [(key, None) for key in recordings.items]
        assert all(s.configuration == configuration_hash(replayed.configuration) for s in samples)
        assert [unpickle_value(s.outputs["second"]) for s in samples] == [
            recordings.output(replayed.stages[-1].prefix, key) for key in recordings.items
        ]

    @run_async_test
    async def test_replay_without_recordings_is_refused(self, engine: Engine, tmp_path: Path) -> None:
        await engine.apply(chain("q", StageSpec("who", "process_id")))
        process = await ask(engine, 0)
        unrecorded = state([route("q", StageSpec("first", "add"))], [StageSpec("first", "add")], Mode.REPLAY)
        with pytest.raises(ServingError, match="replay"):
            await engine.apply(replace(unrecorded, recordings=tmp_path / "nothing.sqlite"))
        assert await ask(engine, 0) == process

    # -- the end --

    @run_async_test
    async def test_close_leaves_no_process(self, engine: Engine, tmp_path: Path) -> None:
        await engine.apply(chain("q", StageSpec("meet", "Barrier", replicas=2), StageSpec("who", "process_id")))
        answer = await ask(engine, {"folder": str(tmp_path), "parties": 1})
        processes = {answer["meet"][0], answer["who"]}
        assert await _alive(processes, 2)
        task = asyncio.create_task(ask(engine, {"folder": str(tmp_path), "parties": 1000}))
        await wait_until(lambda: has_files(tmp_path, 2))
        await engine.close()
        with pytest.raises(ServingError):
            await task
        await wait_until(lambda: _alive(processes, 0))  # checks this machine's processes only


async def _restarted(engine: Engine) -> bool:
    status = await engine.status()
    return status.healthy and sum(deployment.restarts for deployment in status.deployments) >= 1


async def _alive(processes: set[int], count: int) -> bool:
    return sum(is_alive(process) for process in processes) == count
