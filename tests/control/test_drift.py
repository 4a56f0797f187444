"""Tests of drift monitors: alarms once with a reason, and few false alarms over long times and many monitors."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import numpy as np
import pytest

from budget import seeds
from circinus.control.drift.baselines import AccuracyBaseline, ServiceTimeBaseline, scaled_late_share
from circinus.control.drift.detector import ScaledObservation
from circinus.control.drift.drift_tests import (
    AccuracyMonitor,
    DriftAlarm,
    DriftState,
    LatencySloMonitor,
    MonitorSample,
    ServiceTimeMonitor,
    Watch,
    reset_monitors,
    update_monitors,
)
from circinus.control.settings import DriftSettings
from circinus.profiling import OperatorProfile
from circinus.serving import ServedBatch
from circinus.specification import Allocation, Configuration, HardwareClass, KnobValues, MetricSpec

METRIC = MetricSpec(name="exact", uses="m:exact")
ALONE = Allocation(1.0, 1, 0.5)
PREFIX = Configuration.of({"denoise": KnobValues.of({"strength": 2})})


def _service(number: int = 0) -> ServiceTimeMonitor:
    return ServiceTimeMonitor(f"p{number}", "denoise", PREFIX, "edge")


def _reference(rng: np.random.Generator, items: int, spread: float, risk: float = 0.001) -> ServiceTimeBaseline:
    service_s = 0.02 * np.exp(spread * rng.standard_normal(items))
    ratios = {(1.0, 1): 1.0}
    profile = OperatorProfile("denoise", PREFIX, service_s, service_s, 1.0, 1.0, ratios, frozenset(ratios))
    found = ServiceTimeBaseline.of(profile, HardwareClass(name="local"), tolerance=0.2, risk=risk)
    assert found is not None
    return found


def _run(
    values: dict[Watch, Callable[[float], ScaledObservation]],
    *,
    seconds: float,
    every_s: float,
    settings: DriftSettings,
    state: DriftState | None = None,
) -> tuple[DriftState, list[tuple[float, DriftAlarm]]]:
    """Poll repeatedly with one value per monitor, and re-profile after every alarm."""
    state, moved = state or DriftState(), []
    for number in range(round(seconds / every_s)):
        now_s = number * every_s
        seen = [MonitorSample(watch, now_s, value(now_s)) for watch, value in values.items()]
        state, found = update_monitors(state, seen, now_s, settings)
        moved += [(now_s, one) for one in found]
        if found:
            reported = {one.watch for one in found}
            state = reset_monitors(state, {watch: watch not in reported for watch in values})
    return state, moved


def _quiet(rng: np.random.Generator) -> dict[Watch, Callable[[float], ScaledObservation]]:
    """Return services of few and many items that drift within tolerance, and accuracies and late shares at the
    limit."""
    services = {_service(i): _reference(rng, items, 0.3) for i, items in enumerate((8, 12, 60, 60))}
    scores = AccuracyBaseline.of_scores((rng.random(200) < 0.8).astype(float), METRIC, tolerance=0.02, risk=0.001)

    def served(reference: ServiceTimeBaseline) -> Callable[[float], ScaledObservation]:
        def value(now_s: float) -> ScaledObservation:
            times = 1.15 if now_s // 300 % 2 else 0.88
            seconds = 0.02 * times * float(np.exp(0.3 * rng.standard_normal()))
            placed = reference.placed(ServedBatch(seconds, 1, "", 9), ALONE)
            assert placed is not None
            return placed

        return value

    found: dict[Watch, Callable[[float], ScaledObservation]] = {w: served(r) for w, r in services.items()}
    found[AccuracyMonitor("one", "p0")] = lambda now_s: scores.placed(float(rng.random() < 0.8))
    found[LatencySloMonitor("one")] = lambda now_s: scaled_late_share(rng.binomial(20, 0.1) / 20, 90.0)
    return found


def test_over_long_quiet_runs_false_alarms_are_at_most_as_frequent_as_promised() -> None:
    settings = DriftSettings(false_alarm_every_s=200.0)  # frequent enough to count alarms
    counts = []
    for seed in seeds(15):
        values = _quiet(np.random.default_rng(seed))
        counts.append(len(_run(values, seconds=1200.0, every_s=2.0, settings=settings)[1]))
    assert np.mean(counts) <= 6.0, f"found {counts}, promised are 6 in the mean"


def test_as_promised_in_use_a_quiet_day_passes_without_alarms() -> None:
    """Each run lasts fifty minutes, for which one alarm a day means a thirtieth of an alarm."""
    counts = [
        len(_run(_quiet(np.random.default_rng(seed)), seconds=3000.0, every_s=5.0, settings=DriftSettings())[1])
        for seed in seeds(12)
    ]
    assert sum(counts) == 0


def test_a_profile_of_few_items_does_not_alarm_by_itself() -> None:
    """Whatever eight items were drawn, there is no alarm within an hour, beyond the guaranteed error probability."""
    alarms = 0
    for seed in seeds(12):
        rng = np.random.default_rng(seed)
        reference = _reference(rng, 8, 0.5)

        def value(
            now_s: float, rng: np.random.Generator = rng, reference: ServiceTimeBaseline = reference
        ) -> ScaledObservation:
            placed = reference.placed(ServedBatch(0.02 * float(np.exp(0.5 * rng.standard_normal())), 1, "", 9), ALONE)
            assert placed is not None
            return placed

        alarms += len(_run({_service(): value}, seconds=3600.0, every_s=4.0, settings=DriftSettings())[1])
    assert alarms == 0


@pytest.mark.parametrize(
    ("times", "spread", "batches"), [(1.5, 0.1, 60), (2.0, 0.2, 60), (0.5, 0.2, 60), (3.0, 0.6, 60)]
)
def test_service_times_that_moved_are_found_within_some_dozens_of_batches(
    times: float, spread: float, batches: int
) -> None:
    delays = []
    for seed in seeds(8):
        rng = np.random.default_rng(seed)
        reference = _reference(rng, 60, spread)
        others = {
            _service(number): lambda now_s: ScaledObservation.within(0.5, 0.4, 0.6, 0.0, 0.0) for number in range(1, 12)
        }

        def value(
            now_s: float, rng: np.random.Generator = rng, reference: ServiceTimeBaseline = reference
        ) -> ScaledObservation:
            factor = times if now_s >= 120.0 else 1.0
            seconds = 0.02 * factor * float(np.exp(spread * rng.standard_normal()))
            placed = reference.placed(ServedBatch(seconds, 1, "", 9), ALONE)
            assert placed is not None
            return placed

        moved = _run({_service(): value, **others}, seconds=240.0, every_s=0.5, settings=DriftSettings())[1]
        assert len(moved) >= 1
        at_s, one = moved[0]
        assert at_s >= 120.0
        assert one.watch == _service()
        assert one.since_s == pytest.approx(120.0, abs=15.0)
        assert one.now / one.before == pytest.approx(times, rel=0.35)
        delays.append((at_s - 120.0) / 0.5)
    assert np.mean(delays) < batches


def test_data_that_moved_is_found_within_a_hundred_audits() -> None:
    delays = []
    for seed in seeds(8):
        rng = np.random.default_rng(seed)
        before = (rng.random(150) < 0.9).astype(float)
        reference = AccuracyBaseline.of_scores(before, METRIC, tolerance=0.02, risk=0.001)

        def value(
            now_s: float, rng: np.random.Generator = rng, reference: AccuracyBaseline = reference
        ) -> ScaledObservation:
            return reference.placed(float(rng.random() < (0.5 if now_s >= 300.0 else 0.9)))

        watch = AccuracyMonitor("one", "p")
        moved = _run({watch: value}, seconds=900.0, every_s=2.0, settings=DriftSettings())[1]
        at_s, one = moved[0]
        assert at_s >= 300.0
        assert one.now == pytest.approx(0.5, abs=0.2)
        delays.append((at_s - 300.0) / 2.0)
    assert np.mean(delays) < 100


def test_late_requests_are_found_within_minutes_and_a_short_burst_is_none() -> None:
    watch = LatencySloMonitor("one")

    def late(from_s: float, to_s: float) -> list[tuple[float, DriftAlarm]]:
        values: dict[Watch, Callable[[float], ScaledObservation]] = {
            watch: lambda now_s: scaled_late_share(0.4 if from_s <= now_s < to_s else 0.03, 95.0)
        }
        return _run(values, seconds=1200.0, every_s=15.0, settings=DriftSettings())[1]

    assert late(300.0, 345.0) == []
    at_s, one = late(300.0, 1200.0)[0]
    assert at_s - 300.0 <= 180.0
    assert one.since_s == 300.0
    assert "late requests of one: 40.0% now, 5.0% guaranteed, since about " in one.reason


def test_fewer_late_requests_than_may_be_are_nothing_to_tell() -> None:
    values: dict[Watch, Callable[[float], ScaledObservation]] = {
        LatencySloMonitor("one"): lambda now_s: scaled_late_share(0.0, 50.0)
    }
    assert _run(values, seconds=5000.0, every_s=15.0, settings=DriftSettings())[1] == []


def _bad(now_s: float) -> ScaledObservation:
    return ScaledObservation.within(1.0, 0.1, 0.2, 0.0312, 0.0201)


def test_it_is_told_once_until_it_was_measured_again() -> None:
    watch, other, settings = _service(), _service(1), DriftSettings(false_alarm_every_s=100.0)
    state = DriftState()
    moved: list[DriftAlarm] = []
    for number in range(40):
        seen = [MonitorSample(watch, float(number), _bad(0.0)), MonitorSample(other, float(number), _bad(0.0))]
        state, found = update_monitors(state, seen if number < 20 else seen[:1], float(number), settings)
        moved += found
    assert [one.watch for one in moved] == [watch, other]
    state = reset_monitors(state, {watch: False})
    assert set(state.watches) == {watch}
    again: list[DriftAlarm] = []
    for number in range(40, 80):
        state, found = update_monitors(state, [MonitorSample(watch, float(number), _bad(0.0))], float(number), settings)
        again += found
    assert [one.watch for one in again] == [watch]


def test_looks_change_nothing_that_was_given() -> None:
    settings = DriftSettings()
    state, _ = update_monitors(DriftState(), [MonitorSample(_service(), 0.0, _bad(0.0))], 0.0, settings)
    capital = state.watches[_service()].detector.wealth.copy()
    for _ in range(3):
        update_monitors(state, [MonitorSample(_service(), 9.0, _bad(0.0))], 9.0, settings)
    assert (state.watches[_service()].detector.wealth == capital).all()


def test_a_long_pause_is_saved_up_for_no_more_than_a_minute() -> None:
    settings = DriftSettings()
    state, _ = update_monitors(DriftState(), [MonitorSample(_service(), 0.0, _bad(0.0))], 0.0, settings)
    state, _ = update_monitors(state, [], 86_400.0, settings)
    assert state.watches[_service()].alpha_budget_s == settings.max_alpha_budget_s


def test_reasons_say_what_people_know() -> None:
    since_s = datetime(2026, 3, 4, 14, 3).timestamp()
    moved = DriftAlarm(_service(), since_s, 0.0312, 0.0201, 40)
    assert moved.reason == "p0/denoise(strength=2) on edge: 31.2 ms now, 20.1 ms when profiled, since about 14:03"
    moved = DriftAlarm(AccuracyMonitor("one", "p"), since_s, 0.612, 0.9, 40)
    assert moved.reason == "accuracy of one: 0.612 now, 0.9 when profiled, since about 14:03"
