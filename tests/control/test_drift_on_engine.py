"""End-to-end test: engine, audits, drift of the data, and a profile of the drifted data."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import pytest
from drift_scenario import KnownTruths, Listening, configuration, item, plan

from circinus.control.drift.audit_scores import RecentItems
from circinus.control.drift.auditor import Auditor, expected_agreements
from circinus.control.drift.drift_tests import AccuracyMonitor, DriftAlarm
from circinus.control.drift.ground_truth import NO_GROUND_TRUTH, GroundTruthSource
from circinus.control.drift.monitors import MonitorSet
from circinus.control.drift.profile_overrides import ProfileOverrides
from circinus.control.drift.reference_outputs import LiveReferenceRunner
from circinus.control.drift.reprofile import reprofile
from circinus.operators import Item
from circinus.serving import DesiredState, Mode, Request
from circinus.serving.desired_state import build_route
from circinus.serving.engine import DesiredDeployment
from circinus.serving.local.capacity import MachineCapacity
from circinus.serving.local.engine import LocalEngine

PLANS = {"one": [plan("small")], "other": [plan("large")]}
LARGE_MACHINE = MachineCapacity(64.0, 2.0**40, 0)
A_LOOK = 10
"""Requests of each query per poll."""


def _desired(listening: Listening, share: float) -> DesiredState:
    specification = listening.specification
    assert specification.infrastructure is not None
    pipeline = specification.pipelines["listen"]
    deployments = {p.deployment_of(o.name): o.uses for its in PLANS.values() for p in its for o in pipeline.operators}
    routes = [
        build_route(query, PLANS[query.name][0], pipeline, audited_share=share) for query in specification.queries
    ]
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


@dataclass
class Loop:
    """Audits and drift detection with a poll every ten seconds."""

    listening: Listening
    answers: LiveReferenceRunner
    truths: GroundTruthSource
    live: RecentItems = field(default_factory=RecentItems)
    moved: list[tuple[int, DriftAlarm]] = field(default_factory=list)
    looks: int = 0

    def __post_init__(self) -> None:
        specification, profiles = self.listening.specification, self.listening.profiles
        self.auditor = Auditor(specification, profiles, self.answers, self.truths)
        pairs = self.auditor.pairs({"listen": [configuration("small"), configuration("large")]})
        self.agreements = expected_agreements(specification, self.listening.store, pairs)
        self.watch = MonitorSet(specification, PLANS, profiles, agreements=self.agreements)

    async def look(self, engine: LocalEngine, items: list[Item]) -> None:
        """Send requests and poll. Service times are not monitored, because the machine is busy."""
        for query in PLANS:
            await asyncio.gather(*(engine.submit(Request(query, one.key, one.value, 10.0)) for one in items))
        now_s = 10.0 * self.looks
        self.auditor.drain((await engine.drain_audits()).samples, now_s)
        audited = await asyncio.to_thread(self.auditor.score, now_s, max_reruns=2 * A_LOOK)
        assert audited.failures == ()
        self.live.add(audited.scores)
        found = self.watch.look(now_s, now_s, await engine.status(), audited.scores)
        self.moved += [(self.looks, one) for one in found if isinstance(one.watch, AccuracyMonitor)]
        self.looks += 1

    def measure_again(self) -> ProfileOverrides:
        """Re-profile with a stopped clock."""
        specification, moved = self.listening.specification, [one for _, one in self.moved]
        profiles, now_s = self.listening.profiles, 10.0 * self.looks
        again = reprofile(
            moved, specification, PLANS, profiles, self.live, self.answers, time_s=now_s, clock=lambda: 0.0
        )
        overrides = ProfileOverrides(agreements=self.agreements).merged_with(again.overrides, profiles)
        profiles = {**profiles, **overrides.profiles}
        self.auditor.update_profiles(profiles)
        self.watch = MonitorSet(
            specification,
            PLANS,
            profiles,
            agreements=overrides.agreements,
            without_truth=overrides.without_truth,
            previous=self.watch,
        )
        return overrides


@pytest.mark.slow
@pytest.mark.parametrize("truthful", [pytest.param(True, marks=pytest.mark.thorough), False])
def test_noisy_data_is_noticed_by_audits_and_measured_again(listening: Listening, truthful: bool) -> None:
    rng = random.Random(1)
    quiet, noisy = ([_items(rng, noisy=noise) for _ in range(count)] for count, noise in ((30, False), (45, True)))
    truths = KnownTruths(one for its in (*quiet, *noisy) for one in its) if truthful else NO_GROUND_TRUTH

    async def run(answers: LiveReferenceRunner) -> None:
        loop, engine = Loop(listening, answers, truths), LocalEngine(LARGE_MACHINE)
        try:
            await engine.apply(_desired(listening, 0.5))
            for its in quiet:
                await loop.look(engine, its)
            assert loop.moved == []
            coming = iter(noisy)
            while not loop.moved:
                await loop.look(engine, next(coming))
            ((_, moved),) = loop.moved  # before the noisy items end
            assert moved.watch == AccuracyMonitor("one", "listen"), "the large model hears all the same"
            assert moved.since_s == pytest.approx(300.0, abs=100.0)
            assert moved.before > 0.5 > moved.now
            again = await asyncio.to_thread(loop.measure_again)
            for its in coming:
                await loop.look(engine, its)
            assert len(loop.moved) == 1, "noise is what is usual now"
        finally:
            await engine.close()
        assert again.without_truth == (frozenset() if truthful else {"listen"})
        scores = {found.configuration: found.scores for found in again.profiles["listen"].configurations}
        assert len(scores[configuration("small")]) >= 30
        assert scores[configuration("small")].mean() == pytest.approx(0.1, abs=0.1)
        assert scores[configuration("large")].mean() == 1.0

    with LiveReferenceRunner(listening.specification) as answers:
        asyncio.run(run(answers))
