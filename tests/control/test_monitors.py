"""Tests of monitors: from engine status and audits to alarms, against a measured profile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from drift_scenario import Listening, configuration, plan

from circinus.control.drift.audit_scores import AuditScore
from circinus.control.drift.drift_tests import (
    AccuracyMonitor,
    DriftAlarm,
    LatencySloMonitor,
    RunsMonitor,
    ServiceTimeMonitor,
)
from circinus.control.drift.monitors import MonitorSet
from circinus.control.settings import DriftSettings
from circinus.operators.protocol import NO_BRANCH
from circinus.profiling import OperatorProfile, PipelineProfile
from circinus.profiling.item_runs import ItemRuns
from circinus.serving import DeploymentStatus, EngineStatus, Mode, ServedBatch
from circinus.serving.configuration_hash import configuration_hash
from circinus.serving.engine import QueryStatus, RequestRuns
from circinus.specification import QueryPlan, prefix_configuration

PLANS = {"one": [plan("large"), plan("small")], "other": [plan("small", 2, "slow", batch_size=4)]}
SETTINGS = DriftSettings(service_tolerance_s=0.0)
"""Settings for the operators of `listening`, which take microseconds."""


@dataclass
class World:
    """Monitors with the batches and scores that they observe."""

    watch: MonitorSet
    listening: Listening
    now_s: float = 0.0
    served: int = 0
    answered: int = 0

    def look(
        self, batches: Sequence[tuple[QueryPlan, str, float, int]], scores: Sequence[AuditScore] = ()
    ) -> list[DriftAlarm]:
        """Poll after half a second with batches of (plan, operator, seconds, items)."""
        pipeline = self.listening.specification.pipelines["listen"]
        deployments = []
        for its_plan, operator, seconds, items in batches:
            before = configuration_hash(prefix_configuration(pipeline, its_plan.configuration, operator))
            batch = ServedBatch(seconds, items, before, 50)
            deployments.append(
                DeploymentStatus(
                    its_plan.deployment_of(operator), 1, 1, 0, 0, 0, batches=self.served + 1, recent_batches=(batch,)
                )
            )
        self.served += 1
        self.now_s += 0.5
        status = EngineStatus(Mode.REAL, tuple(deployments), (), queries=(self.query(0.01),))
        return list(self.watch.look(self.now_s, 1e9 + self.now_s, status, scores))

    def query(self, latency_s: float) -> QueryStatus:
        self.answered += 2
        return QueryStatus("one", self.answered, self.answered, 0, (latency_s,) * 2)

    def score(self, value: float, model: str = "small", *, against: str | None = None) -> AuditScore:
        reference = None if against is None else configuration(against)
        return AuditScore(
            "one", "listen", "i", configuration_hash(configuration(model)), value, reference, 1e9 + self.now_s
        )


@pytest.fixture
def world(listening: Listening) -> World:
    return World(MonitorSet(listening.specification, PLANS, listening.profiles, SETTINGS), listening)


def _expected_s(listening: Listening, model: str, strength: int, operator: str) -> float:
    found = next(c for c in listening.profile.configurations if c.configuration == configuration(model, strength))
    return float(found.operators[operator].service_s.mean())


def _while_nothing(look: Callable[[int], list[DriftAlarm]], most: int = 400) -> tuple[list[DriftAlarm], int]:
    for number in range(most):
        moved = look(number)
        if moved:
            return moved, number
    return [], most


def test_a_slow_operator_is_named_with_its_hardware(world: World, listening: Listening) -> None:
    first = PLANS["one"][0]
    rng = np.random.default_rng(1)
    usual_s = {name: _expected_s(listening, "large", 1, name) for name in ("denoise", "hear")}

    def look(number: int) -> list[DriftAlarm]:
        times = 4.0 if number >= 100 else 1.0
        return world.look(
            [
                (first, "denoise", usual_s["denoise"] * float(rng.lognormal(0, 0.05)), 1),
                (first, "hear", times * usual_s["hear"] * float(rng.lognormal(0, 0.05)), 1),
            ]
        )

    (moved,), number = _while_nothing(look)
    assert 100 < number < 160
    pipeline = listening.specification.pipelines["listen"]
    assert moved.watch == ServiceTimeMonitor(
        "listen", "hear", prefix_configuration(pipeline, configuration("large"), "hear"), "local"
    )
    assert moved.before == pytest.approx(usual_s["hear"])
    assert moved.now == pytest.approx(4.0 * usual_s["hear"], rel=0.2)
    assert "listen/hear(model=large) on local" in moved.reason


def test_more_elements_than_when_profiled_are_told(listening: Listening) -> None:
    (profile,) = listening.profiles.values()
    rng = np.random.default_rng(7)

    def several(operator: OperatorProfile) -> OperatorProfile:
        if operator.operator != "hear":
            return operator
        counts = rng.integers(0, 6, len(operator.service_s)).tolist()
        return replace(operator, runs=tuple(_runs(count) for count in counts))

    profiles = {"listen": profile.with_operators(several)}
    world = World(MonitorSet(listening.specification, PLANS, profiles, SETTINGS, replays=True), listening)
    used = configuration_hash(configuration("large"))

    def look(number: int) -> list[DriftAlarm]:
        most = 18 if number >= 100 else 6
        recent = tuple(RequestRuns(used, {"denoise": 1, "hear": int(rng.integers(0, most))}) for _ in range(2))
        world.now_s += 0.5
        status = EngineStatus(Mode.REPLAY, (), (), queries=(replace(world.query(0.01), recent_runs=recent),))
        return list(world.watch.look(world.now_s, 1e9 + world.now_s, status, ()))

    (moved,), number = _while_nothing(look)
    assert 100 < number < 250
    assert isinstance(moved.watch, RunsMonitor)
    assert (moved.watch.pipeline, moved.watch.operator) == ("listen", "hear")
    assert moved.now > 1.5 * moved.before


def _runs(count: int) -> ItemRuns:
    paths = tuple((index,) for index in range(count))
    return ItemRuns(paths, (0.001,) * count, ((1.0,),) * count, ((NO_BRANCH,),) * count)


def test_microseconds_are_nothing_to_tell(listening: Listening) -> None:
    world = World(MonitorSet(listening.specification, PLANS, listening.profiles), listening)
    first, usual_s = PLANS["one"][0], _expected_s(listening, "large", 1, "denoise")
    assert usual_s < 1e-4
    assert _while_nothing(lambda _: world.look([(first, "denoise", usual_s + 1e-4, 1)]))[0] == []
    (moved,), _ = _while_nothing(lambda _: world.look([(first, "denoise", usual_s + 5e-3, 1)]))
    assert moved.now > 5e-3


def test_batches_on_slower_hardware_are_held_against_what_they_take_there(world: World, listening: Listening) -> None:
    other = PLANS["other"][0]
    profile = next(c for c in listening.profile.configurations if c.configuration == other.configuration)
    hear = profile.operators["hear"]
    usual_s = float(np.exp(np.log(hear.service_s).mean())) * hear.batch_ratio[1.0, 4] / 0.5
    assert _while_nothing(lambda _: world.look([(other, "hear", usual_s, 4)]), 300)[0] == []
    (moved,), _ = _while_nothing(lambda _: world.look([(other, "hear", 5.0 * usual_s, 4)]))
    assert isinstance(moved.watch, ServiceTimeMonitor)
    assert moved.watch.hardware_class == "half"


def test_scores_are_held_against_those_of_the_configuration_that_answered(world: World, listening: Listening) -> None:
    """A step to a less accurate plan is no drift; worse scores of that plan are."""
    accuracy = {
        c.configuration: float(c.scores.mean()) for c in listening.profile.configurations if len(c.scores) == 40
    }
    small, large = accuracy[configuration("small")], accuracy[configuration("large")]
    assert large > small + 0.2
    rng = np.random.default_rng(2)

    def expected(number: int) -> list[DriftAlarm]:
        model, mean = ("small", small) if number % 100 < 50 else ("large", large)
        return world.look([], [world.score(float(rng.random() < mean), model)])

    assert _while_nothing(expected, 800)[0] == []
    (moved,), number = _while_nothing(lambda _: world.look([], [world.score(float(rng.random() < small - 0.5))]))
    assert moved.watch == AccuracyMonitor("one", "listen")
    assert moved.now < moved.before
    assert number < 100


def test_agreements_are_held_against_recorded_ones(listening: Listening) -> None:
    agreements = {("listen", configuration("small"), configuration("large")): np.tile([1.0, 0.0], 20)}
    watch = MonitorSet(listening.specification, PLANS, listening.profiles, SETTINGS, agreements=agreements)
    world, rng = World(watch, listening), np.random.default_rng(3)

    def look(mean: float) -> list[DriftAlarm]:
        return world.look([], [world.score(float(rng.random() < mean), against="large")])

    assert _while_nothing(lambda _: look(0.5), 500)[0] == []
    (moved,), _ = _while_nothing(lambda _: look(0.02))
    assert moved.before == pytest.approx(0.5)


def test_without_recorded_agreements_less_is_concluded(listening: Listening) -> None:
    watch = MonitorSet(listening.specification, PLANS, listening.profiles, SETTINGS)
    world, rng = World(watch, listening), np.random.default_rng(4)
    small = next(c for c in listening.profile.configurations if c.configuration == configuration("small"))
    usual = float(small.scores.mean())
    look = lambda mean: world.look([], [world.score(float(rng.random() < mean), against="large")])  # noqa: E731
    assert _while_nothing(lambda _: look(usual), 500)[0] == []
    assert _while_nothing(lambda _: look(0.0), 500)[0]


def test_late_requests_of_a_query_are_noticed(world: World) -> None:
    late = replace(EngineStatus(Mode.REAL, (), ()))

    def look(latency_s: float) -> list[DriftAlarm]:
        world.now_s += 1.0
        status = replace(late, queries=(world.query(latency_s),))
        return list(world.watch.look(world.now_s, 1e9 + world.now_s, status))

    assert _while_nothing(lambda _: look(0.09), 300)[0] == []
    (moved,), number = _while_nothing(lambda _: look(0.11))
    assert moved.watch == LatencySloMonitor("one")
    assert number < 150


def _slower(profile: PipelineProfile) -> PipelineProfile:
    configurations = [
        replace(
            found,
            operators={
                name: replace(operator, corrections={("local", 1.0): 4.0}) if name == "hear" else operator
                for name, operator in found.operators.items()
            },
        )
        for found in profile.configurations
    ]
    return replace(profile, configurations=tuple(configurations))


def test_after_it_was_measured_again_what_moved_is_usual_and_the_rest_goes_on(
    world: World, listening: Listening
) -> None:
    first = PLANS["one"][0]
    usual_s = {name: _expected_s(listening, "large", 1, name) for name in ("denoise", "hear")}

    def look(_: int = 0) -> list[DriftAlarm]:
        return world.look([(first, "denoise", usual_s["denoise"], 1), (first, "hear", 4.0 * usual_s["hear"], 1)])

    moved, _ = _while_nothing(look)
    assert len(moved) == 1
    assert _while_nothing(look, 100)[0] == [], "reported once"
    before = {str(watch): known for watch, known in world.watch.state.watches.items()}
    again = {"listen": _slower(listening.profile)}
    world.watch = MonitorSet(listening.specification, PLANS, again, SETTINGS, previous=world.watch)
    after = {str(watch): known for watch, known in world.watch.state.watches.items()}
    assert after["listen/denoise(strength=1) on local"] is before["listen/denoise(strength=1) on local"]
    assert not after["listen/hear(model=large) on local"].reported
    assert _while_nothing(look, 200)[0] == [], "as it was measured now"
    back = lambda _: world.look([(first, "hear", usual_s["hear"], 1)])  # noqa: E731
    (moved_back,), _ = _while_nothing(back)
    assert moved_back.now < moved_back.before


def test_what_no_plan_uses_any_more_is_not_watched(world: World, listening: Listening) -> None:
    first = PLANS["one"][0]
    world.look([(first, "hear", 1.0, 1)])
    world.look([(first, "hear", 1.0, 1)])
    assert any(isinstance(watch, ServiceTimeMonitor) for watch in world.watch.state.watches)
    fewer = {"other": PLANS["other"]}
    world.watch = MonitorSet(listening.specification, fewer, listening.profiles, SETTINGS, previous=world.watch)
    assert not any(isinstance(watch, ServiceTimeMonitor) for watch in world.watch.state.watches)
    assert all(world.look([(first, "hear", 1.0, 1)]) == [] for _ in range(50))


def test_what_was_profiled_on_few_items_is_said_not_to_be_watched(listening: Listening) -> None:
    few = [
        replace(found, operators={n: replace(o, service_s=o.service_s[:5]) for n, o in found.operators.items()})
        for found in listening.profile.configurations
    ]
    profile = replace(listening.profile, configurations=tuple(few))
    watch = MonitorSet(listening.specification, {"one": PLANS["one"][:1]}, {"listen": profile}, SETTINGS)
    assert len(watch.unwatched) == 2
    assert "5 items" in watch.unwatched[0]


def test_a_replay_shows_scores_and_nothing_of_the_machine(listening: Listening) -> None:
    watch = MonitorSet(listening.specification, PLANS, listening.profiles, SETTINGS, replays=True)
    world, first = World(watch, listening), PLANS["one"][0]

    def slow_and_late(_: int) -> list[DriftAlarm]:
        status = EngineStatus(Mode.REPLAY, (), (), queries=(world.query(10.0),))
        late = watch.look(world.now_s, 1e9 + world.now_s, status)
        return [*late, *world.look([(first, "hear", 1.0, 1)])]

    assert _while_nothing(slow_and_late, 200)[0] == []
    assert watch.unwatched == ()
    (moved,), _ = _while_nothing(lambda _: world.look([], [world.score(0.0)]))
    assert moved.watch == AccuracyMonitor("one", "listen")
