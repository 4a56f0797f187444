"""Load tests of an engine whose plan is replaced meanwhile, in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from served_scenario import ITEMS, ObedientEngine, matching, query, specification

from circinus.errors import ServingError
from circinus.serving import EngineStatus, Mode
from circinus.serving.desired_state import build_desired_state
from circinus.serving.loadtest.load_report import LoadReport
from circinus.serving.loadtest.load_test import LoadSpec, run_load_test
from circinus.serving.state_serialization import state_fingerprint
from virtual_time import run

GIVEN, CHOSEN = specification(query("q")), matching(["q"])
FIRST, SECOND = (build_desired_state(CHOSEN, GIVEN, Mode.REAL, audited_share=share) for share in (0.0, 0.5))


@dataclass
class Replaced(ObedientEngine):
    """Engine that gives no status between two times."""

    silent_s: tuple[float, float] = (0.0, 0.0)

    async def status(self) -> EngineStatus:
        if self.silent_s[0] < asyncio.get_running_loop().time() < self.silent_s[1]:
            raise ServingError("the engine does not answer", code="engine.silent")
        return await super().status()


def _report(engine: Replaced, *, times_s: tuple[float, ...] = ()) -> LoadReport:
    """Return the report of 30 s of traffic, with the plans in turns from these times on."""

    async def replace_plans() -> None:
        for number, time_s in enumerate(times_s):
            await asyncio.sleep(time_s - asyncio.get_running_loop().time())
            await engine.apply((SECOND, FIRST)[number % 2])

    async def measure() -> LoadReport:
        await engine.apply(FIRST)
        replacing = asyncio.create_task(replace_plans())
        report = await run_load_test(engine, GIVEN, CHOSEN, {"p": ITEMS}, LoadSpec(duration_s=30.0))
        await replacing
        return report

    return run(measure())


def test_replacements_are_reported_with_their_times_and_states() -> None:
    report = _report(Replaced(("q",)), times_s=(10.2, 20.2))
    first, second = state_fingerprint(FIRST), state_fingerprint(SECOND)
    assert [(r.previous_state, r.state) for r in report.replacements] == [(first, second), (second, first)]
    assert [r.after_s for r in report.replacements] == pytest.approx([10.5, 20.5], abs=0.3)


def test_a_silent_engine_does_not_end_the_test_and_hides_no_replacement() -> None:
    report = _report(Replaced(("q",), silent_s=(5.0, 25.0)), times_s=(10.2,))
    assert [r.after_s for r in report.replacements] == pytest.approx([25.5], abs=0.6)
    assert report.totals["answered"] == report.totals["requests"] > 200


def test_without_a_replacement_there_is_none() -> None:
    assert _report(Replaced(("q",))).replacements == ()


def test_requests_without_an_answer_are_counted_by_reason() -> None:
    engine = Replaced(("q",), fails=lambda request: request.item_key.endswith("-3"))
    totals = _report(engine).totals
    assert totals["requests"] > totals["failures"] > 0
    assert totals["answered"] + totals["failures"] == totals["requests"]
    assert totals["dropped"] == totals["unanswered"] == 0
