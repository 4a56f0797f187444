"""Tests of canary analysis: rollbacks on significant regressions."""

from __future__ import annotations

import math

import numpy as np

from circinus.control.replanning.canary import CanaryAnalysis
from circinus.control.settings import CanarySettings
from circinus.serving import EngineStatus, Mode
from circinus.serving.engine import QueryStatus
from circinus.specification import LatencySlo, Query, Slos

SETTINGS = CanarySettings()
QUERIES = {
    name: Query(name=name, pipeline="p", source="s", rate_per_s=10.0, slos=Slos(latency=LatencySlo(limit_s=0.5)))
    for name in ("a", "b")
}


def _status(**queries: QueryStatus) -> EngineStatus:
    return EngineStatus(Mode.REAL, (), (), queries=tuple(queries.values()))


def _of(name: str, answered: int, failed: int, latency_s: float = 0.1) -> QueryStatus:
    return QueryStatus(name, answered + failed, answered, failed, (latency_s,) * min(answered, 300))


def _trial(*queries: QueryStatus) -> CanaryAnalysis:
    return CanaryAnalysis.begin(100.0, EngineStatus(Mode.REAL, (), (), queries=queries), QUERIES)


def test_failures_of_one_query_are_not_hidden_by_the_answers_of_another() -> None:
    trial = _trial(_of("a", 1000, 0), _of("b", 1000, 0))
    now = _status(a=_of("a", 1500, 0), b=_of("b", 1010, 6))
    assert trial.regression_reason(now, QUERIES, (), SETTINGS) == "query b: 6 of 16 requests failed"


def test_few_failures_and_those_that_were_before_say_nothing() -> None:
    trial = _trial(_of("a", 1000, 0), _of("b", 600, 400))
    assert not trial.regression_reason(_status(a=_of("a", 1010, 4)), QUERIES, (), SETTINGS)
    assert not trial.regression_reason(_status(a=_of("a", 1095, 5)), QUERIES, (), SETTINGS)
    assert not trial.regression_reason(_status(b=_of("b", 660, 440)), QUERIES, (), SETTINGS), "40 % failed before, too"


def test_late_answers_count_where_the_plans_before_were_in_time_and_nobody_asks_more_often() -> None:
    trial = _trial(_of("a", 1000, 0), _of("b", 1000, 0, latency_s=0.9))
    late = _status(a=_of("a", 1030, 0, latency_s=0.8), b=_of("b", 1030, 0, latency_s=0.9))
    reason = trial.regression_reason(late, QUERIES, (), SETTINGS)
    assert reason == "query a: 0 % of the last 30 requests within 0.5 s instead of the guaranteed 95 %"
    assert not trial.regression_reason(late, QUERIES, ("a",), SETTINGS)
    assert not trial.regression_reason(_status(a=_of("a", 1010, 0, latency_s=0.8)), QUERIES, (), SETTINGS), (
        "ten are few"
    )


def test_dropped_requests_are_late_and_no_failures() -> None:
    trial = _trial(_of("a", 1000, 0))
    recent_s = (0.1,) * 20 + (math.inf,) * 20
    now = _status(a=QueryStatus("a", 1040, 1020, 0, recent_s, dropped=20))
    reason = trial.regression_reason(now, QUERIES, (), SETTINGS)
    assert reason == "query a: 50 % of the last 40 requests within 0.5 s instead of the guaranteed 95 %"


def test_an_engine_that_was_started_anew_says_nothing() -> None:
    trial = _trial(_of("a", 1000, 0))
    assert not trial.regression_reason(_status(a=_of("a", 0, 20)), QUERIES, (), SETTINGS)


def test_what_was_counted_before_is_not_held_against_plans_whose_trial_began_while_it_was_not_told() -> None:
    trial = _trial(_of("b", 1000, 0))
    first = _status(a=_of("a", 800, 200, latency_s=0.8))
    assert not trial.regression_reason(first, QUERIES, (), SETTINGS)
    trial = trial.observed(first, QUERIES, SETTINGS)
    late = trial.regression_reason(_status(a=_of("a", 840, 200, latency_s=0.8)), QUERIES, (), SETTINGS)
    assert not late, "as late as before"
    assert (
        trial.regression_reason(_status(a=_of("a", 800, 240)), QUERIES, (), SETTINGS)
        == "query a: 40 of 40 requests failed"
    )


def test_a_query_that_is_new_has_to_keep_its_promise() -> None:
    trial = _trial(_of("b", 1000, 0))
    first = _status(a=_of("a", 2, 0, latency_s=0.8))
    assert not trial.regression_reason(first, QUERIES, (), SETTINGS)
    trial = trial.observed(first, QUERIES, SETTINGS)
    reason = trial.regression_reason(_status(a=_of("a", 32, 0, latency_s=0.8)), QUERIES, (), SETTINGS)
    assert reason == "query a: 0 % of the last 30 requests within 0.5 s instead of the guaranteed 95 %"


def test_a_trial_is_over_after_its_time() -> None:
    trial = _trial()
    assert not trial.is_complete(100.0 + SETTINGS.duration_s - 0.1, SETTINGS)
    assert trial.is_complete(100.0 + SETTINGS.duration_s, SETTINGS)


def test_plans_that_keep_their_promise_are_hardly_ever_taken_back() -> None:
    rng, wrong = np.random.default_rng(5), 0
    for _ in range(400):
        trial = _trial(_of("a", 1000, 0))
        answers = int(rng.integers(20, 200))
        recent_s = tuple(np.where(rng.random(answers) < 0.95, 0.1, 0.8).tolist())
        now = _status(a=QueryStatus("a", 1000 + answers, 1000 + answers, 0, recent_s))
        wrong += bool(trial.regression_reason(now, QUERIES, (), SETTINGS))
    assert wrong <= 2
