"""Tests of fan-outs and branches, a part of `circinus.testing.engine_conformance`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from circinus.errors import ServingError
from circinus.operators.pickling import pickled_bytes
from circinus.serving.engine import DROPPED_LATE, Engine
from circinus.specification import LatePolicy
from circinus.testing.desired_states import StageSpec, chain, recorded_fan_out, route, state
from circinus.testing.engine_driver import ask, has_files, queue_has, respond, run_async_test, wait_until
from circinus.testing.operators import signal_barrier

_SPLIT = StageSpec("split", "same", emits_many=True)
_VISIT = StageSpec("visit", "visit", after=("split",), pool="far", replicas=3)
_GATHER = StageSpec("gather", "same", after=("visit",), gather=True)
_CHEAP = StageSpec("cheap", "by_size", after=("split",), knobs=(("limit", 10),), branches=("small", "large"))
_DEAR = StageSpec("dear", "add", after=({"cheap": "large"},), knobs=(("amount", 100),), pool="far", replicas=2)
_EITHER = StageSpec("either", "same", after=({"any": ({"cheap": "small"}, "dear")},), gather=True)
_CASCADE = (_SPLIT, _CHEAP, _DEAR, _EITHER)


class FanOutConformance:
    """Conformance tests of fan-outs and branches, a part of `EngineConformance`."""

    @run_async_test
    async def test_elements_that_end_in_another_order_are_gathered_in_theirs(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        await engine.apply(chain("q", _SPLIT, _VISIT, _GATHER))
        # Each waits for the next one, which another replica processes.
        elements = [_element(tmp_path, name, after=after) for name, after in (("a", "b"), ("b", "c"), ("c", ""))]
        assert await ask(engine, elements) == ["a", "b", "c"]
        assert await ask(engine, []) == []
        assert await ask(engine, [_element(tmp_path, "d")]) == ["d"]

    @run_async_test
    async def test_a_cascade_passes_some_elements_on_and_timings_cover_all_runs(self, engine: Engine) -> None:
        await engine.apply(chain("q", *_CASCADE))
        response = await respond(engine, [1, 20, 3, 40])
        assert response.output == [1, 120, 3, 140]
        timings = response.timings
        assert set(timings.stage_s) == set(timings.replica_s) == set(timings.wait_s) == {s.operator for s in _CASCADE}
        assert timings.link_bytes == {
            "home->center": pickled_bytes(20) + pickled_bytes(40),
            "center->home": pickled_bytes(120) + pickled_bytes(140),
        }
        statuses = {status.deployment.operator: status for status in (await engine.status()).deployments}
        assert {name: status.requests for name, status in statuses.items()} == {
            "split": 1,
            "cheap": 4,
            "dear": 2,
            "either": 1,
        }
        for name, status in statuses.items():
            total_s = sum(batch.service_s for batch in status.recent_batches)
            assert timings.stage_s[name] == timings.replica_s[name] == pytest.approx(total_s)
        for value, ran in (([1, 2], {"split", "cheap", "either"}), ([], {"split", "either"})):
            response = await respond(engine, value)
            assert response.output == value
            assert set(response.timings.stage_s) == ran
            assert not response.timings.link_bytes
        assert await ask(engine, [30]) == [130]

    @run_async_test
    async def test_nested_lists_are_gathered_as_they_were_split(self, engine: Engine) -> None:
        await engine.apply(
            chain(
                "q",
                _SPLIT,
                StageSpec("inner", "same", after=("split",), pool="far", emits_many=True),
                StageSpec("first", "add", after=("inner",), replicas=2),
                StageSpec("row", "same", after=("first",), pool="far", gather=True),
                StageSpec("rows", "pair", after=("row", "split"), gather=True),
            )
        )
        values: list[list[list[int]]] = [[[1, 2], [], [3]], [[]], [], [[4], [5, 6, 7]]]
        for value in values:
            assert await ask(engine, value) == [[[number + 1 for number in row] for row in value], value]

    @run_async_test
    async def test_an_item_takes_a_branch_and_a_sink_that_is_not_reached_answers_none(self, engine: Engine) -> None:
        cheap = replace(_CHEAP, after=())
        either = replace(_EITHER, gather=False, pool="far")
        alarm = StageSpec("alarm", "add", after=({"cheap": "large"},), knobs=(("amount", 0.5),))
        await engine.apply(chain("q", cheap, _DEAR, either, alarm))
        assert await ask(engine, 1) == {"either": 1, "alarm": None}
        assert await ask(engine, 20) == {"either": 120, "alarm": 20.5}
        timings = (await respond(engine, 2)).timings
        assert set(timings.stage_s) == {"cheap", "either"}

    @run_async_test
    async def test_a_sink_inside_a_fan_out_answers_a_list(self, engine: Engine) -> None:
        split = StageSpec(
            "split", "each_by_size", knobs=(("limit", 10),), emits_many=True, branches=("small", "large", "huge")
        )
        low = StageSpec("low", "add", after=({"split": "small"},), pool="far", replicas=2)
        high = StageSpec("high", "same", after=({"split": "large"},), pool="far", gather=True)
        never = StageSpec("never", "same", after=({"split": "huge"},))
        await engine.apply(chain("q", split, low, high, never))
        assert await ask(engine, [1, 20, 2, 30]) == {"low": [2, 3], "high": [20, 30], "never": []}
        assert await ask(engine, [20]) == {"low": [], "high": [20], "never": []}
        assert await ask(engine, []) == {"low": [], "high": [], "never": []}

    @run_async_test
    async def test_too_many_elements_and_one_that_raises_fail_their_request_only(self, engine: Engine) -> None:
        refuse = StageSpec("refuse", "refuse_negative", after=("split",), pool="far", batch_size=4)
        gather = replace(_GATHER, after=("refuse",))
        await engine.apply(chain("q", replace(_SPLIT, at_most=3), refuse, gather))
        with pytest.raises(ServingError, match=r"split.*4 elements.*at most 3"):
            await ask(engine, [1, 2, 3, 4])
        assert await ask(engine, [1, 2, 3]) == [1, 2, 3]
        with pytest.raises(ServingError, match=r"split.*int.*list"):
            await ask(engine, 1)
        answers = await asyncio.gather(
            *(ask(engine, value, key=f"key{value}") for value in ([1, 2], [3, -4, -5], [6])), return_exceptions=True
        )
        assert (answers[0], answers[2]) == ([1, 2], [6])
        assert isinstance(answers[1], ServingError)
        assert all(part in str(answers[1]) for part in ("refuse", "key[3, -4, -5]", "is negative"))
        (counts,) = (await engine.status()).queries
        assert (counts.received, counts.answered, counts.failed, counts.in_flight) == (6, 3, 3, 0)

    @run_async_test
    async def test_a_killed_replica_loses_no_request_and_repeats_its_element_only(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        await engine.apply(chain("q", _SPLIT, replace(_VISIT, replicas=2), _GATHER))
        requests = [[f"{request}{number}" for number in range(4)] for request in "abc"]
        answers = await asyncio.gather(
            *(ask(engine, [_element(tmp_path, name, dies=name == "b2") for name in names]) for names in requests)
        )
        assert answers == requests
        begun = Counter(path.name.partition(".")[0] for path in tmp_path.glob("*.begun.*"))
        assert begun == {name: 2 if name == "b2" else 1 for names in requests for name in names}

    @run_async_test
    async def test_elements_of_several_requests_share_a_batch(self, engine: Engine, tmp_path: Path) -> None:
        meet = StageSpec("meet", "Barrier", after=("split",), pool="far", batch_size=4)
        await engine.apply(chain("q", _SPLIT, meet, replace(_GATHER, after=("meet",))))
        held, free = tmp_path / "held", tmp_path / "free"
        held.mkdir()
        free.mkdir()
        first = asyncio.create_task(ask(engine, [{"folder": str(held), "parties": 2}]))
        await wait_until(lambda: has_files(held, 1))
        pair = [{"folder": str(free), "parties": 1}] * 2
        queued = [asyncio.create_task(respond(engine, pair)) for _ in range(2)]
        await wait_until(lambda: queue_has(engine, 4))
        signal_barrier(held)
        assert [size for _, size in await first] == [1]
        for response in await asyncio.gather(*queued):
            assert [size for _, size in response.output] == [4, 4]
            # Both elements took the time of the batch, and a quarter of the replica each.
            assert response.timings.replica_s["meet"] == pytest.approx(response.timings.stage_s["meet"] / 4)

    @run_async_test
    async def test_elements_that_are_late_drop_their_request_once(self, engine: Engine, tmp_path: Path) -> None:
        steps = (_SPLIT, replace(_VISIT, replicas=1), _GATHER)
        unlimited, dropping = route("q", *steps), route("dropping", *steps)
        limits_s = {"visit": 0.2}
        stages = tuple(replace(stage, latest_start_s=limits_s.get(stage.operator)) for stage in dropping.stages)
        await engine.apply(state([unlimited, replace(dropping, stages=stages, late=LatePolicy.DROP)], steps))
        # The second and third element wait for the first one until they are late, or all are on a slow machine.
        elements = [_element(tmp_path, name, after="open") for name in "abc"]
        late = asyncio.create_task(ask(engine, elements, "dropping"))
        await asyncio.sleep(0.4)
        (tmp_path / "open").touch()
        with pytest.raises(ServingError) as raised:
            await late
        assert raised.value.code == DROPPED_LATE
        assert await ask(engine, [_element(tmp_path, name) for name in "de"]) == ["d", "e"]
        counts = {query.query: query for query in (await engine.status()).queries}["dropping"]
        assert (counts.received, counts.dropped, counts.failed, counts.in_flight) == (1, 1, 0, 0)

    @run_async_test
    async def test_replay_answers_the_recorded_elements(self, engine: Engine, tmp_path: Path) -> None:
        echo = StageSpec("echo", "add", after=("dear",), pool="far")
        parts = StageSpec("parts", "up_to", after=("cheap",), emits_many=True)
        steps = (*_CASCADE, echo, parts)
        desired, recordings = await asyncio.to_thread(recorded_fan_out, tmp_path / "store.sqlite", *steps)
        await engine.apply(desired)
        (replayed,) = desired.routes
        prefixes = {stage.operator: stage.prefix for stage in replayed.stages}
        lists = [recordings.output(prefixes["either"], key) for key in recordings.items]
        lists += [inner for key in recordings.items for inner in recordings.output(prefixes["parts"], key)]
        assert {min(len(values), 2) for values in lists} == {0, 1, 2}
        for key in recordings.items:
            response = await respond(engine, None, key=key)
            assert response.output == {sink: recordings.output(prefixes[sink], key) for sink in replayed.sinks}
            runs = {name: recordings.run(prefix, key) for name, prefix in prefixes.items()}
            assert response.timings.stage_s == pytest.approx({name: r.total_s for name, r in runs.items() if r.paths})
            sent_bytes = sum(
                size
                for sizes, branches in zip(runs["cheap"].output_bytes, runs["cheap"].branches, strict=True)
                for size, branch in zip(sizes, branches, strict=True)
                if _CHEAP.branches[branch] == "large"
            )
            assert response.timings.link_bytes.get("home->center", 0.0) == sent_bytes
            returned_bytes = runs["dear"].total_bytes + runs["echo"].total_bytes
            assert response.timings.link_bytes.get("center->home", 0.0) == returned_bytes
        answers = await asyncio.gather(*(ask(engine, None, key=key) for key in recordings.items))
        assert [answer["either"] for answer in answers] == lists[: len(answers)]


def _element(folder: Path, name: str, *, after: str = "", dies: bool = False) -> Mapping[str, Any]:
    """Return an input of `circinus.testing.operators.visit`."""
    others: Sequence[str] = [after] if after else []
    return {"folder": str(folder), "name": name, "after": others, "dies": dies}
