"""The whole way: a computing engine, audits beside it, data that grows noisy, and a profile of what it is now."""

from __future__ import annotations

import asyncio
import random

import pytest
from listening import Listening, configuration, item, plan

from circinus.control.answers import ComputedAnswers
from circinus.control.audit import Auditor, expected_agreements
from circinus.control.drift import AccuracyWatch, Moved
from circinus.control.live_items import LiveItems
from circinus.control.reprofile import reprofile
from circinus.control.truths import DatasetTruths, Truths
from circinus.control.watching import DriftWatch
from circinus.operators import Item
from circinus.serving import DesiredState, Mode, Request
from circinus.serving.deploy import route_of
from circinus.serving.engine import DesiredDeployment
from circinus.serving.local.capacity import Machine
from circinus.serving.local.engine import LocalEngine

PLANS = {"one": [plan("small")], "other": [plan("large")]}
LARGE_MACHINE = Machine(64.0, 2.0**40, 0)
A_LOOK = 10
"""Requests of each query from one look to the next."""


def _desired(listening: Listening, share: float) -> DesiredState:
    specification = listening.specification
    assert specification.infrastructure is not None
    pipeline = specification.pipelines["listen"]
    deployments = {p.deployment_of(o.name): o.uses for its in PLANS.values() for p in its for o in pipeline.operators}
    routes = [route_of(query, PLANS[query.name][0], pipeline, audited_share=share) for query in specification.queries]
    return DesiredState(
        Mode.REAL,
        specification.infrastructure,
        tuple(DesiredDeployment(d, uses, 1, 1.0, 2.0**20, 1.0) for d, uses in deployments.items()),
        tuple(routes),
        specification.module_paths,
    )


def _items(rng: random.Random, *, noisy: bool) -> list[Item]:
    return [
        item(rng.randrange(10**9), rng.uniform(0.27, 0.57) if noisy else rng.uniform(0, 0.5)) for _ in range(A_LOOK)
    ]


@pytest.mark.parametrize("truthful", [True, False])
def test_noisy_data_is_noticed_by_audits_and_measured_again(listening: Listening, truthful: bool) -> None:
    rng = random.Random(1)
    quiet = [_items(rng, noisy=False) for _ in range(60)]
    noisy = [_items(rng, noisy=True) for _ in range(60)]
    looks = [*quiet, *noisy]
    truths: Truths | None = DatasetTruths({"listen": [one for its in looks for one in its]}) if truthful else None
    live, moved, noticed = LiveItems(), list[Moved](), list[int]()

    async def run(answers: ComputedAnswers) -> None:
        auditor = Auditor(listening.specification, listening.profiles, answers, truths)
        pairs = auditor.pairs({"listen": [configuration("small"), configuration("large")]})
        agreements = expected_agreements(listening.specification, listening.store, pairs)
        watch = DriftWatch(listening.specification, PLANS, listening.profiles, agreements=agreements)
        engine = LocalEngine(LARGE_MACHINE)
        try:
            await engine.apply(_desired(listening, 0.5))
            for number, its in enumerate(looks):
                for query in PLANS:
                    await asyncio.gather(*(engine.submit(Request(query, one.key, one.value, 10.0)) for one in its))
                now_s = 10.0 * number  # as if a look took so long
                auditor.take((await engine.audits()).samples, now_s)
                audited = await asyncio.to_thread(auditor.score, now_s, most=2 * A_LOOK)
                assert audited.failures == ()
                live.add(audited.items)
                found = watch.look(now_s, now_s, await engine.status(), audited.scores)
                of_data = [one for one in found if isinstance(one.watch, AccuracyWatch)]
                moved.extend(of_data)
                noticed.extend(number for _ in of_data)
                if any(one.watch == AccuracyWatch("one", "listen") for one in moved):
                    return
        finally:
            await engine.close()

    with ComputedAnswers(listening.specification) as answers:
        asyncio.run(run(answers))
        assert [one.watch for one in moved] == [AccuracyWatch("one", "listen")], "the large model hears all the same"
        assert 60 <= noticed[0] < 90
        assert moved[0].since_s == pytest.approx(600.0, abs=100.0)
        assert moved[0].before > 0.5 > moved[0].now
        clock = iter(range(10**6))
        again = reprofile(
            moved,
            listening.specification,
            PLANS,
            listening.profiles,
            live,
            answers,
            time_s=10.0 * noticed[0],
            clock=lambda: float(next(clock)),
            budget_s=1e6,
        )
    profile = again.profiles["listen"]
    small, large = (
        next(c for c in profile.configurations if c.configuration == configuration(model))
        for model in ("small", "large")
    )
    assert len(small.items) >= 30
    assert small.scores.mean() == pytest.approx(0.1, abs=0.1)  # that many are below 0.3
    assert large.scores.mean() == 1.0
