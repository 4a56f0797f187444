"""Tests of the auditor: scores against ground truth or reference outputs, live and replayed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from drift_scenario import KnownTruths, Listening, configuration, item

from circinus.control.drift.audit_scores import AuditScore, RecentItems, most_accurate
from circinus.control.drift.auditor import MAX_QUEUED, Auditor, expected_agreements
from circinus.control.drift.reference_outputs import LiveReferenceRunner, ReferenceRunner, ReplayReferenceRunner
from circinus.errors import ProfileError
from circinus.operators import Item
from circinus.operators.pickling import pickle_value, unpickle_value
from circinus.profiling import Machine
from circinus.profiling.measurement.runner import Measurement
from circinus.serving import AuditSample
from circinus.serving.configuration_hash import configuration_hash
from circinus.specification import Configuration, MetricSpec
from circinus.statistics.interval import Interval
from raised import raises_code

SMALL, BEST = configuration("small"), configuration("large", 2)
QUIET, NOISY = item(14, 0.225), item(500, 0.5)


@pytest.fixture(params=["computed", "recorded"])
def answers(request: pytest.FixtureRequest, listening: Listening) -> Iterator[ReferenceRunner]:
    if request.param == "recorded":
        yield ReplayReferenceRunner(listening.specification, listening.store)
        return
    with LiveReferenceRunner(listening.specification) as computed:
        yield computed


@dataclass
class Counting:
    """Reference runner that counts the items it ran."""

    others: ReferenceRunner
    num_items: int = 0

    @property
    def machine(self) -> Machine | None:
        return self.others.machine

    def answers(
        self, pipeline: str, configuration: Configuration, items: Sequence[Item]
    ) -> Mapping[str, tuple[bytes, ...]]:
        self.num_items += len(items)
        return self.others.answers(pipeline, configuration, items)

    def measure(self, pipeline: str, configuration: Configuration, items: Sequence[Item]) -> Measurement:
        return self.others.measure(pipeline, configuration, items)

    def close(self) -> None:
        self.others.close()


def _sample(came: Item, output: int, by: Configuration = SMALL, *, value: bool = True) -> AuditSample:
    outputs = {"hear": pickle_value(output)}
    return AuditSample("one", came.key, configuration_hash(by), pickle_value(came.value) if value else None, outputs)


def _quiet(listening: Listening, count: int) -> list[Item]:
    from circinus.profiling import load_dataset

    pipeline = listening.specification.pipelines["listen"]
    return list(load_dataset(pipeline, listening.specification.module_paths).items[:count])


def test_the_most_accurate_is_surely_so(listening: Listening) -> None:
    metric = listening.specification.pipelines["listen"].metric
    assert most_accurate(listening.profile, metric) in (BEST, configuration("large"))
    few = [
        replace(found, accuracy=Interval(1.0, 0.1, 1.0) if found.configuration == BEST else Interval(0.8, 0.5, 0.9))
        for found in listening.profile.configurations
    ]
    assert most_accurate(replace(listening.profile, configurations=tuple(few)), metric) != BEST
    errors = MetricSpec(name="errors", uses="m:e", direction="minimize")
    assert most_accurate(replace(listening.profile, configurations=tuple(few)), errors) != BEST
    with pytest.raises(ValueError, match="no configuration"):
        most_accurate(replace(listening.profile, configurations=()), metric)


def test_answers_are_scored_against_what_the_most_accurate_plan_says(
    listening: Listening, answers: ReferenceRunner
) -> None:
    came = _quiet(listening, 6)
    auditor = Auditor(listening.specification, listening.profiles, answers)
    served = [c.truth if number % 2 else -1 for number, c in enumerate(came)]
    computed = isinstance(answers, LiveReferenceRunner)
    auditor.drain([_sample(c, output, value=computed) for c, output in zip(came, served, strict=True)], 100.0)
    found = auditor.score(101.0)
    reference = auditor.reference("listen", configuration("small"))
    assert found.failures == ()
    assert [score.score for score in found.scores] == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    assert {score.reference for score in found.scores} == {reference}
    assert {(s.query, s.pipeline, s.configuration, s.time_s) for s in found.scores} == {
        ("one", "listen", configuration_hash(configuration("small")), 101.0)
    }
    assert [live.truth for live in found.scores] == [c.truth for c in came]
    assert [live.item.key for live in found.scores] == [c.key for c in came]
    assert auditor.score(102.0).scores == ()


def test_truths_that_arrive_are_preferred_and_waited_for(listening: Listening) -> None:
    with LiveReferenceRunner(listening.specification) as computed:
        answers = Counting(computed)
        truths = KnownTruths([QUIET])
        auditor = Auditor(listening.specification, listening.profiles, answers, truths, ground_truth_timeout_s=60.0)
        auditor.drain([_sample(QUIET, 14), _sample(NOISY, -1)], 100.0)
        first = auditor.score(101.0)
        assert [(s.item_key, s.score, s.reference) for s in first.scores] == [(QUIET.key, 1.0, None)]
        assert answers.num_items == 0
        assert auditor.score(159.0).scores == ()
        (late,) = auditor.score(160.0).scores
        assert (late.item_key, late.score) == (NOISY.key, 0.0)
        assert late.reference is not None
        assert answers.num_items == 1
        assert auditor.score(1e9).scores == (), "nothing waits any more"


def test_the_most_accurate_plans_answers_are_held_against_the_next_ones(listening: Listening) -> None:
    with LiveReferenceRunner(listening.specification) as answers:
        auditor = Auditor(listening.specification, listening.profiles, answers)
        first = auditor.reference("listen", configuration("small"))
        assert first is not None
        second = auditor.reference("listen", first)
        assert second not in (None, first)
        auditor.drain([_sample(QUIET, 14, first)], 0.0)
        (score,) = auditor.score(1.0).scores
        assert score.reference == second


def test_no_more_are_rerun_at_a_time_than_may_be_and_none_is_lost(listening: Listening) -> None:
    with LiveReferenceRunner(listening.specification) as computed:
        answers = Counting(computed)
        auditor = Auditor(listening.specification, listening.profiles, answers)
        came = [item(number, 0.1) for number in range(7)]
        auditor.drain([_sample(c, c.truth) for c in came], 0.0)
        keys = []
        for expected in (3, 6, 7):
            keys += [score.item_key for score in auditor.score(1.0, max_reruns=3).scores]
            assert answers.num_items == expected
        assert keys == [c.key for c in came]


def test_what_cannot_be_run_is_said_and_harms_no_other(listening: Listening) -> None:
    with LiveReferenceRunner(listening.specification) as answers:
        auditor = Auditor(listening.specification, listening.profiles, answers)
        bad = Item("bad", {"word": -5, "noise": 0.1}, 0)
        auditor.drain([_sample(bad, 1), _sample(QUIET, 14)], 0.0)
        found = auditor.score(1.0)
    assert [score.item_key for score in found.scores] == [QUIET.key]
    (failure,) = found.failures
    assert "no word" in failure


def test_what_was_not_recorded_is_said(listening: Listening) -> None:
    auditor = Auditor(
        listening.specification, listening.profiles, ReplayReferenceRunner(listening.specification, listening.store)
    )
    auditor.drain([_sample(NOISY, 1, value=False)], 0.0)
    (failure,) = auditor.score(1.0).failures
    assert NOISY.key in failure
    assert "record" in failure


def test_of_plans_and_queries_that_nobody_knows_nothing_is_said(listening: Listening) -> None:
    truths = KnownTruths([QUIET])
    recorded = ReplayReferenceRunner(listening.specification, listening.store)
    auditor = Auditor(listening.specification, listening.profiles, recorded, truths)
    auditor.drain([replace(_sample(QUIET, 14), configuration="other"), replace(_sample(QUIET, 14), query="gone")], 0.0)
    found = auditor.score(1.0)
    assert (found.scores, found.failures) == ((), ())


def test_too_many_are_given_up_and_counted(listening: Listening) -> None:
    recorded = ReplayReferenceRunner(listening.specification, listening.store)
    auditor = Auditor(listening.specification, listening.profiles, recorded, ground_truth_timeout_s=1e9)
    auditor.drain([_sample(item(number, 0.1), 0) for number in range(MAX_QUEUED + 3)], 0.0)
    (failure,) = auditor.score(1.0).failures
    assert failure.startswith("3 audit samples were dropped")


def test_expected_agreements_are_those_of_recorded_answers(listening: Listening) -> None:
    small, large = configuration("small"), configuration("large")
    pairs = [("listen", small, large), ("listen", large, small), ("listen", small, configuration("huge"))]
    found = expected_agreements(listening.specification, listening.store, pairs)
    assert set(found) == set(pairs[:2])
    by_model = {c.configuration: c.scores for c in listening.profile.configurations}
    # The large model recognizes all of them: agreement with it is accuracy.
    assert by_model[large].mean() == 1.0
    assert found[pairs[0]].mean() == pytest.approx(by_model[small].mean())
    assert len(found[pairs[0]]) == 40


def test_recorded_measurements_are_those_that_were_recorded(measured_listening: Listening) -> None:
    recorded = ReplayReferenceRunner(measured_listening.specification, measured_listening.store)
    came = _quiet(measured_listening, 5)
    found = recorded.measure("listen", configuration("small"), came)
    known = next(c for c in measured_listening.profile.configurations if c.configuration == configuration("small"))
    for number in range(5):
        place = int(np.flatnonzero(known.items == number)[0])
        assert found.scores[number] == known.scores[place]
        assert found.runs["hear"].service_s[number] == pytest.approx(known.operators["hear"].service_s[place])
    with raises_code(ProfileError, "recording.missing"):
        recorded.measure("listen", configuration("small"), [NOISY])


def test_computed_measurements_are_scored_against_the_given_truth(listening: Listening) -> None:
    with LiveReferenceRunner(listening.specification) as answers:
        found = answers.measure("listen", configuration("large"), [QUIET, replace(QUIET, truth=-7)])
        assert found.scores == (1.0, 0.0)
        assert [unpickle_value(one) for one in found.outputs["hear"]] == [14, 14]


def _live(key: str, time_s: float, size: int = 10) -> AuditScore:
    return AuditScore("one", "listen", key, "", 1.0, None, time_s, b"v" * size)


def test_live_items_are_the_last_ones_each_once() -> None:
    items = RecentItems(max_items=3, max_bytes=100)
    items.add([_live("a", 1.0), _live("b", 2.0), _live("a", 3.0)])
    assert [(one.item_key, one.time_s) for one in items.since("listen", 0.0)] == [("b", 2.0), ("a", 3.0)]
    items.add([_live("c", 4.0), _live("d", 5.0)])
    assert [one.item_key for one in items.since("listen", 0.0)] == ["a", "c", "d"]
    assert [one.item_key for one in items.since("listen", 4.0)] == ["c", "d"]
    items.add([_live("e", 6.0, size=85)])
    assert [one.item_key for one in items.since("listen", 0.0)] == ["d", "e"]
    assert items.since("other", 0.0) == ()
