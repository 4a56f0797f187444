"""Tests of re-profiling: real measurements of the parts that drifted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from drift_scenario import Listening, configuration, item, plan

from circinus.control.drift.audit_scores import AuditScore, RecentItems
from circinus.control.drift.baselines import ServiceTimeBaseline
from circinus.control.drift.drift_tests import AccuracyMonitor, DriftAlarm, LatencySloMonitor, ServiceTimeMonitor
from circinus.control.drift.pipeline_reprofiler import reprofile_pipeline
from circinus.control.drift.profile_overrides import ProfileOverrides
from circinus.control.drift.reference_outputs import LiveReferenceRunner, ReplayReferenceRunner
from circinus.control.drift.reprofile import DriftOutcome, reprofile
from circinus.estimation.corrections import MIN_FACTOR
from circinus.operators import Item
from circinus.operators.pickling import pickle_value
from circinus.planning import plan_query
from circinus.profiling import MIN_ITEMS, ConfigurationProfile, Machine, PipelineProfile, load_dataset
from circinus.specification import AccuracySlo, Configuration, Network, Slos, prefix_configuration

PLANS = {"one": [plan("small"), plan("large")], "other": [plan("small", pool="slow")]}
SMALL, LARGE = configuration("small"), configuration("large")
NOW_S = 1_790_000_000.0
NOISY = [item(100 + number, 0.25 + number / 64) for number in range(24)]
"""Items of which the large model recognizes the first 23, and the small one four."""


@pytest.fixture(scope="module")
def computed(listening: Listening) -> Iterator[LiveReferenceRunner]:
    with LiveReferenceRunner(listening.specification) as answers:
        yield answers


def _live(items: Iterable[Item], *, truthful: bool, time_s: float = NOW_S) -> RecentItems:
    found = RecentItems()
    against = None if truthful else LARGE
    found.add(
        AuditScore("one", "listen", i.key, "", 1.0, against, time_s, pickle_value(i.value), i.truth) for i in items
    )
    return found


def _of(profile: PipelineProfile, wanted: Configuration) -> ConfigurationProfile:
    return next(found for found in profile.configurations if found.configuration == wanted)


def _smaller_is_quicker(profile: PipelineProfile) -> PipelineProfile:
    """Return the profile of an idle machine, so that service times are deterministic."""
    order = [configuration(model, strength) for model in ("small", "large") for strength in (1, 2)]

    def quiet(one: ConfigurationProfile) -> ConfigurationProfile:
        service_s = np.full(len(one.items), 0.01 * (1 + order.index(one.configuration)))
        operators = {
            name: replace(found, service_s=service_s, batch_ratio={pair: float(pair[1]) for pair in found.batch_ratio})
            for name, found in one.operators.items()
        }
        return replace(one, operators=operators)

    return replace(profile, configurations=tuple(quiet(one) for one in profile.configurations))


def _service(listening: Listening, wanted: Configuration, times: float, hardware: str = "local") -> DriftAlarm:
    pipeline = listening.specification.pipelines["listen"]
    speed = {"local": 1.0, "half": 0.45}[hardware]
    before_s = float(_of(listening.profile, wanted).operators["hear"].service_s.mean()) / speed
    watch = ServiceTimeMonitor("listen", "hear", prefix_configuration(pipeline, wanted, "hear"), hardware)
    return DriftAlarm(watch, NOW_S - 60.0, times * before_s, before_s, 400)


def _reprofile(
    moved: Sequence[DriftAlarm],
    listening: Listening,
    answers: LiveReferenceRunner | ReplayReferenceRunner,
    live: RecentItems,
) -> DriftOutcome:
    clock = iter(range(10**6))
    return reprofile(
        moved,
        listening.specification,
        PLANS,
        listening.profiles,
        live,
        answers,
        time_s=NOW_S,
        clock=lambda: next(clock) * 1e-3,
    )


ACCURACY = DriftAlarm(AccuracyMonitor("one", "listen"), NOW_S - 60.0, 0.2, 0.6, 50)


def test_times_that_moved_become_factors_of_that_operator_there(
    listening: Listening, computed: LiveReferenceRunner
) -> None:
    found = _reprofile([_service(listening, SMALL, 3.0)], listening, computed, RecentItems())
    profile = found.overrides.profiles["listen"]
    local, half = (listening.specification.infrastructure.pool(name).hardware for name in ("edge", "slow"))  # type: ignore[union-attr]
    hear, before = _of(profile, SMALL).operators["hear"], _of(listening.profile, SMALL).operators["hear"]
    assert hear.correction(local) == pytest.approx(3.0, rel=0.1)
    assert (hear.service_s == before.service_s).all(), "what was measured is not changed"
    assert hear.correction(half) == 1.0
    assert _of(profile, SMALL).operators["denoise"].correction(local) == 1.0
    other = _of(profile, LARGE).operators["hear"].correction(local)
    assert 1.5 < other < 3.0, "other models are slower, too, but less surely"
    assert _of(profile, configuration("small", 2)).operators["hear"].correction(local) == hear.correction(local)
    (observation,) = found.observations
    assert (observation.operator, observation.hardware_class, observation.mode) == ("hear", "local", "real")
    assert np.exp(observation.log_ratio) == pytest.approx(3.0)
    assert found.pending == {}
    assert "3.00 times" in found.overrides.notes[0]


def test_then_what_was_seen_is_what_is_expected(listening: Listening, computed: LiveReferenceRunner) -> None:
    infrastructure = listening.specification.infrastructure
    assert infrastructure is not None
    hardware = infrastructure.pool("slow").hardware
    moved = _service(listening, SMALL, 2.5, "half")
    profile = _reprofile([moved], listening, computed, RecentItems()).overrides.profiles["listen"]
    again = ServiceTimeBaseline.of(_of(profile, SMALL).operators["hear"], hardware, tolerance=0.2, risk=0.01)
    assert again is not None
    assert again.expected_s == pytest.approx(moved.now, rel=0.1)


def test_what_was_learnt_before_counts_no_longer_there(listening: Listening, computed: LiveReferenceRunner) -> None:
    corrected = [
        replace(
            found,
            operators={
                name: replace(o, corrections={("local", 1.0): 2.0, ("other", 1.0): 1.7})
                for name, o in found.operators.items()
            },
        )
        for found in listening.profile.configurations
    ]
    profile = replace(listening.profile, configurations=tuple(corrected))
    moved = _service(listening, SMALL, 0.6)  # relative to the profiled times, not the corrected ones
    found = _reprofile([moved], replace(listening, profile=profile), computed, RecentItems()).overrides.profiles[
        "listen"
    ]
    corrections = _of(found, SMALL).operators["hear"].corrections
    assert corrections["local", 1.0] == pytest.approx(max(0.6, MIN_FACTOR), rel=0.1)
    assert corrections["other", 1.0] == 1.7
    assert _of(found, SMALL).operators["denoise"].corrections["local", 1.0] == 2.0


def test_data_that_moved_is_measured_on_what_came_since_and_on_nothing_else(
    listening: Listening, computed: LiveReferenceRunner
) -> None:
    live = _live(NOISY, truthful=True)
    live.add(_live([item(7, 0.1)], truthful=True, time_s=NOW_S - 3600.0).since("listen", 0.0))
    found = _reprofile([ACCURACY], listening, computed, live)
    profile = found.overrides.profiles["listen"]
    every = {SMALL, LARGE, configuration("small", 2), configuration("large", 2)}
    assert {c.configuration for c in profile.configurations} == every, "one in use may not do any more"
    small, large = _of(profile, SMALL), _of(profile, LARGE)
    assert len(small.items) == len(large.items) == 24
    assert small.scores.mean() == pytest.approx(4 / 24)
    assert large.scores.mean() == pytest.approx(23 / 24)
    assert small.accuracy.lower < 4 / 24 < small.accuracy.upper < 0.6
    assert large.accuracy.lower > small.accuracy.upper
    assert profile.dataset_fingerprint != listening.profile.dataset_fingerprint
    assert (profile.risk, profile.unmeasured) == (listening.profile.risk, 0)
    assert len(profile.usable) == 4
    for one in profile.configurations:
        before = _of(listening.profile, one.configuration)
        assert sorted(one.input_bytes) == sorted(len(pickle_value(i.value)) for i in NOISY)
        for name, operator in one.operators.items():
            assert operator.service_s.shape == operator.output_bytes.shape == (24,)
            assert (operator.service_s > 0).all()
            assert operator.batch_ratio == before.operators[name].batch_ratio
            assert operator.load_s == before.operators[name].load_s
    assert found.observations == ()
    assert found.overrides.without_truth == frozenset()
    assert found.item_counts == {"listen": (ACCURACY, 24)}
    before_s = {("listen", SMALL, LARGE): np.ones(40), ("elsewhere", SMALL, LARGE): np.ones(3)}
    expected = ProfileOverrides(agreements=before_s).merged_with(found.overrides, listening.profiles).agreements
    assert expected["elsewhere", SMALL, LARGE].sum() == 3
    assert sorted(expected["listen", SMALL, LARGE]) == [0.0] * 19 + [1.0] * 5, "both do not hear the last one"
    assert "4 configurations re-profiled on 24 recent items" in found.overrides.notes[0]


def test_plans_are_made_on_what_was_measured_again(listening: Listening, computed: LiveReferenceRunner) -> None:
    profile = _reprofile([ACCURACY], listening, computed, _live(NOISY, truthful=True)).overrides.profiles["listen"]
    slos = Slos(accuracy=AccuracySlo(threshold=0.4))
    query = listening.specification.queries[0].model_copy(update={"slos": slos})
    infrastructure = listening.specification.infrastructure
    assert infrastructure is not None
    pipeline, network = listening.specification.pipelines["listen"], Network(infrastructure)
    for measured, small_does in ((listening.profile, True), (profile, False)):
        found = plan_query(query, pipeline, _smaller_is_quicker(measured), network)
        good = {one.plan.configuration for one in found.candidates}
        assert good, "some plan keeps it"
        assert (SMALL in good) == small_does


def test_without_truths_answers_of_the_most_accurate_stand_for_them(
    listening: Listening, computed: LiveReferenceRunner
) -> None:
    wrong = [replace(i, truth=-99) for i in NOISY]  # the audits' reference outputs are not used
    again = _reprofile([ACCURACY], listening, computed, _live(wrong, truthful=False))
    profile = again.overrides.profiles["listen"]
    assert again.overrides.without_truth == {"listen"}
    assert again.overrides.agreements["listen", SMALL, LARGE].tolist() == _of(profile, SMALL).scores.tolist()
    assert _of(profile, SMALL).scores.mean() == pytest.approx(5 / 24), "and what both do not hear they agree on"
    assert _of(profile, LARGE).scores.mean() == 1.0


def test_too_few_items_are_waited_for(listening: Listening, computed: LiveReferenceRunner) -> None:
    found = _reprofile([ACCURACY], listening, computed, _live(NOISY[:7], truthful=True))
    assert found.overrides == ProfileOverrides()
    assert found.settled == ()
    assert found.pending == {"listen": "7 recent items; at least 8 are needed"}


def test_what_is_measured_while_something_else_waits_is_done(
    listening: Listening, computed: LiveReferenceRunner
) -> None:
    slower = _service(listening, SMALL, 3.0)
    found = _reprofile([slower, ACCURACY], listening, computed, _live(NOISY[:7], truthful=True))
    assert len(found.observations) == len(found.pending) == 1
    assert found.settled == (slower,)
    again = _reprofile([ACCURACY], listening, computed, _live(NOISY[:8], truthful=True))
    assert again.settled == (ACCURACY,)


def test_an_item_that_fails_is_left_out(listening: Listening, computed: LiveReferenceRunner) -> None:
    bad = Item("bad", {"word": -1, "noise": 0.1}, 0)
    profile = _reprofile([ACCURACY], listening, computed, _live([bad, *NOISY[:9]], truthful=True)).overrides.profiles[
        "listen"
    ]
    assert _of(profile, SMALL).items.tolist() == _of(profile, LARGE).items.tolist()
    assert len(_of(profile, SMALL).items) == 9
    found = _reprofile([ACCURACY], listening, computed, _live([bad, *NOISY[:7]], truthful=True))
    assert "no word" in found.pending["listen"]


def test_a_budget_that_is_over_ends_it_with_enough_items(listening: Listening, computed: LiveReferenceRunner) -> None:
    pipeline, ticks = listening.specification.pipelines["listen"], iter(range(10**6))
    items = _live(NOISY, truthful=True).since("listen", 0.0)
    found = reprofile_pipeline(
        listening.profile, pipeline, [SMALL], items, computed, clock=lambda: float(next(ticks)), budget_s=0.5
    )
    measured = found.profiles["listen"]
    assert len(_of(measured, SMALL).items) == 8
    assert {one.configuration for one in measured.configurations} == {SMALL, LARGE}, "the most accurate as well"


def test_others_are_measured_as_long_as_there_is_time_the_most_accurate_first(
    listening: Listening, computed: LiveReferenceRunner
) -> None:
    pipeline, items = listening.specification.pipelines["listen"], _live(NOISY, truthful=True).since("listen", 0.0)
    looks, unlikely = iter(range(10**6)), configuration("small", 2)
    configurations = (
        replace(one, scores=0.5 * one.scores) if one.configuration == unlikely else one
        for one in listening.profile.configurations
    )
    profile = replace(listening.profile, configurations=tuple(configurations))
    found = reprofile_pipeline(
        profile, pipeline, [SMALL], items, computed, clock=lambda: float(next(looks)), budget_s=24.0
    )
    measured = found.profiles["listen"]
    assert {one.configuration for one in measured.configurations} == {SMALL, LARGE, configuration("large", 2)}
    both = [len(_of(measured, one).items) for one in (SMALL, configuration("large", 2))]
    assert both[0] == 24
    assert MIN_ITEMS <= both[1] < 24
    accurate = _of(measured, configuration("large", 2))
    assert accurate.scores.mean() == 1.0, "it hears what the others do not"
    assert len(found.agreements["listen", accurate.configuration, LARGE]) == len(accurate.items)


def test_times_of_another_machine_are_not_mixed_in(listening: Listening, computed: LiveReferenceRunner) -> None:
    elsewhere = replace(listening.profile, machine=Machine("another", 128))
    found = _reprofile([ACCURACY], replace(listening, profile=elsewhere), computed, _live(NOISY, truthful=True))
    assert found.overrides == ProfileOverrides()
    assert "another" in found.pending["listen"]


def test_in_a_replay_recordings_of_the_new_items_are_taken(measured_listening: Listening) -> None:
    pipeline = measured_listening.specification.pipelines["listen"]
    came = load_dataset(pipeline, measured_listening.specification.module_paths).items[20:32]
    live = RecentItems()
    live.add(AuditScore("one", "listen", i.key, "", 1.0, None, NOW_S, None, i.truth) for i in came)
    recorded = ReplayReferenceRunner(measured_listening.specification, measured_listening.store)
    profile = _reprofile([ACCURACY], measured_listening, recorded, live).overrides.profiles["listen"]
    small, before = _of(profile, SMALL), _of(measured_listening.profile, SMALL)
    places = [int(np.flatnonzero(before.items == number)[0]) for number in range(20, 32)]
    hear, recorded_s = small.operators["hear"], before.operators["hear"].service_s[places]
    found = sorted(zip(hear.service_s.tolist(), small.scores.tolist(), strict=True))
    assert found == sorted(zip(recorded_s.tolist(), before.scores[places].tolist(), strict=True))


def test_of_late_requests_nothing_is_measured(listening: Listening, computed: LiveReferenceRunner) -> None:
    moved = DriftAlarm(LatencySloMonitor("one"), NOW_S, 0.5, 0.1, 8)
    assert _reprofile([moved], listening, computed, _live(NOISY, truthful=True)) == DriftOutcome(settled=(moved,))
