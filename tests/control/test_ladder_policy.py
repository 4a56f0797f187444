"""Tests of the ladder policy."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from circinus.control.ladders.policy import LadderSettings, LadderState, RungLoad, decide_step
from circinus.specification import LatencySlo

SETTINGS = LadderSettings(LatencySlo(limit_s=1.0))
VIEWS = st.builds(
    lambda alone_s, backlog_s, least, more, strain, recent, ready: RungLoad(
        alone_s, backlog_s, least, least * (1 + more), least * (1 + more) * strain, recent, ready
    ),
    st.floats(0.01, 2.0),
    st.floats(0.0, 2.0),
    st.floats(0.0, 3.0),
    st.floats(0.0, 1.0),
    st.floats(1.0, 2.5),
    st.floats(0.0, 3.0),
    st.booleans(),
)
LADDERS = st.lists(VIEWS, min_size=1, max_size=6)


def _view(utilization: float, backlog_s: float = 0.0, recent: float = 0.0, *, ready: bool = True) -> RungLoad:
    return RungLoad(0.1, backlog_s, utilization, utilization, utilization / 0.7, recent, ready)


def test_a_burst_is_stepped_down_from_at_once_to_the_first_rung_that_does() -> None:
    rungs = [_view(1.8), _view(1.2), _view(0.8), _view(0.4)]
    step = decide_step(0.0, LadderState(0, 0), rungs, SETTINGS)
    assert step.state.rung == 2
    assert step.reason == "overloaded: utilization 1.80, a request arriving now takes 0.1 s of 1 s"


def test_the_reason_tells_what_is_sure_where_that_was_the_reason() -> None:
    sudden = RungLoad(0.1, 0.0, 1.8, 0.07, 0.1, 0.0, ready=True)  # over the last second and the last sixteen
    step = decide_step(0.0, LadderState(0, 0), [sudden, _view(0.4)], SETTINGS)
    assert step.reason == "overloaded: utilization 1.80, a request arriving now takes 0.1 s of 1 s"


def test_requests_that_would_be_late_for_a_moment_are_reason_enough() -> None:
    rungs = [_view(0.5, 1.2), _view(0.3, 0.8)]
    state = decide_step(0.0, LadderState(0, 0), rungs, SETTINGS).state
    assert state.rung == 0, "a few that came together are soon through"
    assert decide_step(0.4, state, rungs, SETTINGS).state.rung == 0
    late = decide_step(0.5, state, rungs, SETTINGS)
    assert (late.state.rung, late.reason.split(":")[0]) == (1, "late")
    through = decide_step(0.4, state, [_view(0.5, 0.2), _view(0.3)], SETTINGS).state
    assert decide_step(0.6, through, rungs, SETTINGS).state.rung == 0, "those are others"
    assert decide_step(9.0, state, rungs, replace(SETTINGS, slo=None)).state.rung == 0
    assert decide_step(0.0, LadderState(0, 0), [_view(0.5, 3.2), _view(0.3)], SETTINGS).state.rung == 1


def test_requests_that_would_be_late_in_a_moment_are_reason_enough_at_once() -> None:
    grows = _view(0.5, 0.4, 2.4)  # by 0.7 s in half a second
    step = decide_step(0.0, LadderState(0, 0), [grows, _view(0.3, recent=1.2), _view(0.2, recent=0.6)], SETTINGS)
    assert step.state.rung == 2, "the one between could not do with what came in the last moments either"
    assert step.reason == "about to be late: utilization 2.40, a request arriving now takes 0.5 s of 1 s"
    below = _view(0.3)
    in_time, nobody_waits, keeps_up = _view(0.5, 0.4, 1.9), _view(0.5, 0.0, 9.0), _view(0.5, 0.88, 0.9)
    for stays in (in_time, nobody_waits, keeps_up):
        assert decide_step(0.0, LadderState(0, 0), [stays, below], SETTINGS).state.rung == 0
    no_limit = replace(SETTINGS, slo=None)
    assert decide_step(0.0, LadderState(0, 0), [grows, below], no_limit).state.rung == 0


def test_what_the_last_moments_say_counts_where_nothing_serves() -> None:
    burst = _view(0.5, 0.4, 3.0)  # the last second hardly shows it
    rungs = [burst, _view(0.32, recent=1.5), _view(0.31, recent=1.0), _view(0.3, recent=1.2)]
    assert decide_step(0.0, LadderState(0, 0), rungs, SETTINGS).state.rung == 2
    # The shared deployment is busiest: a rung that is not late is still better.
    step = decide_step(0.0, LadderState(0, 0), [_view(0.5, 0.95, 1.1), _view(0.3, 0.1, 1.1)], SETTINGS)
    assert step.state.rung == 1
    assert step.reason == "late: utilization 0.50, a request arriving now takes 1.05 s of 1 s"
    # Without a latency limit, queues do not matter on any rung.
    rungs = [_view(1.8), _view(0.5, recent=1.2), _view(0.3)]
    assert decide_step(0.0, LadderState(0, 0), rungs, replace(SETTINGS, slo=None)).state.rung == 1


def test_a_rung_with_room_to_spare_is_better_than_one_that_just_serves() -> None:
    rungs = [_view(1.8), _view(0.9), _view(0.92), _view(0.6)]
    assert decide_step(0.0, LadderState(0, 0), rungs, SETTINGS).state.rung == 3
    strained = RungLoad(0.1, 0.0, 0.6, 0.6, 1.5, 0.0, ready=True)  # above the planned utilization
    assert decide_step(0.0, LadderState(0, 0), [_view(1.8), strained, _view(0.7)], SETTINGS).state.rung == 2
    assert decide_step(0.0, LadderState(0, 0), [_view(1.8), strained, _view(1.2)], SETTINGS).state.rung == 1


def test_a_rung_without_replicas_is_passed_by_on_the_way_up() -> None:
    rungs = [_view(0.5), _view(0.4, ready=False), _view(0.3)]
    state = LadderState(2, 0, changed_s=0.0)
    for now_s in range(12):
        state = decide_step(float(now_s), state, rungs, SETTINGS).state
    assert state.rung == 0


def test_where_nothing_does_the_least_loaded_serves() -> None:
    assert decide_step(0.0, LadderState(0, 0), [_view(3.0), _view(2.0), _view(2.5)], SETTINGS).state.rung == 1
    assert decide_step(0.0, LadderState(1, 0), [_view(1.0), _view(2.0), _view(2.5)], SETTINGS).state.rung == 1


def test_a_plan_whose_replicas_are_gone_is_left() -> None:
    step = decide_step(0.0, LadderState(0, 0), [_view(0.2, ready=False), _view(0.3)], SETTINGS)
    assert (step.state.rung, step.reason) == (1, "overloaded: a deployment has no replica")
    alone = decide_step(0.0, LadderState(0, 0), [_view(0.2, ready=False), _view(0.3, ready=False)], SETTINGS)
    assert alone.state.rung == 0


def test_from_a_lower_rung_that_no_longer_serves_the_way_is_up() -> None:
    gone = [_view(0.5), _view(0.4), _view(0.3, ready=False)]
    assert decide_step(0.0, LadderState(2, 0, changed_s=-1.0), gone, SETTINGS).state.rung == 1
    others = [_view(0.5), _view(0.4), _view(1.5)]
    assert decide_step(0.0, LadderState(2, 0, changed_s=-1.0), others, SETTINGS).state.rung == 2
    up = decide_step(20.0, LadderState(2, 0, changed_s=-1.0), others, SETTINGS)
    assert (up.state.rung, up.reason.split(":")[0]) == (1, "overloaded, and no lower rung is better")
    assert decide_step(20.0, LadderState(2, 2, changed_s=-1.0), others, SETTINGS).state.rung == 2


def test_what_nobody_waits_for_is_not_late_however_near_the_limit_a_plan_is() -> None:
    near = [RungLoad(0.99, 0.0, 0.7, 0.7, 1.0, 0.0, ready=True), _view(0.3)]
    assert decide_step(0.0, LadderState(0, 0), near, SETTINGS).state.rung == 0
    state = LadderState(1, 0)
    for now_s in range(30):
        state = decide_step(float(now_s), state, near, SETTINGS).state
    assert state.rung == 0


def test_up_one_rung_after_a_time_of_calm_without_a_break() -> None:
    calm, busy = [_view(0.5)] * 3, [_view(0.85), _view(0.85), _view(0.5)]
    state = LadderState(2, 0, changed_s=0.0)
    for now_s, rungs, expected in (
        (1.0, calm, 2), (9.0, calm, 2), (10.0, busy, 2), (11.0, calm, 2), (20.9, calm, 2), (21.0, calm, 1),
        (22.0, calm, 1), (31.9, calm, 1), (32.0, calm, 0), (100.0, calm, 0),
    ):  # fmt: skip
        state = decide_step(now_s, state, rungs, SETTINGS).state
        assert state.rung == expected, now_s


def test_never_above_the_plan_that_the_query_got() -> None:
    state = LadderState(1, 1)
    for now_s in range(100):
        state = decide_step(float(now_s), state, [_view(0.1)] * 3, SETTINGS).state
    assert state.rung == 1


def test_steps_up_that_fail_are_tried_ever_more_rarely() -> None:
    """The higher rung looks idle from below and is overloaded when used: the prediction is wrong."""
    state, ups = LadderState(1, 0), []
    for tick in range(20_000):
        now_s = tick / 10
        above = _view(0.5) if state.rung == 1 else _view(1.5)
        before = state.rung
        state = decide_step(now_s, state, [above, _view(0.4)], SETTINGS).state
        if state.rung < before:
            ups.append(now_s)
    gaps_s = [later - earlier for earlier, later in pairwise(ups)]
    assert all(later >= earlier - 0.2 for earlier, later in pairwise(gaps_s))
    assert gaps_s[-1] >= 150
    assert len(ups) < 20


def test_a_step_up_that_proves_itself_is_forgiven() -> None:
    state = LadderState(1, 0, failed_step_ups=3, low_load_since_s=0.0)
    state = decide_step(80.0, state, [_view(0.5), _view(0.4)], SETTINGS).state
    assert (state.rung, state.failed_step_ups) == (0, 3)
    state = decide_step(159.0, state, [_view(0.5), _view(0.4)], SETTINGS).state
    assert state.failed_step_ups == 3
    state = decide_step(160.0, state, [_view(0.5), _view(0.4)], SETTINGS).state
    assert state.failed_step_ups == 0


@given(LADDERS, st.data())
def test_under_a_constant_load_rungs_come_to_rest(rungs: list[RungLoad], data: st.DataObject) -> None:
    chosen = data.draw(st.integers(0, len(rungs) - 1))
    state = LadderState(data.draw(st.integers(chosen, len(rungs) - 1)), chosen)
    changes = 0
    for tick in range(400):
        step = decide_step(tick * 0.5, state, rungs, SETTINGS)
        changes += step.state.rung != state.rung
        assert bool(step.reason) == (step.state.rung != state.rung)
        assert chosen <= step.state.rung < len(rungs)
        state = step.state
    assert changes <= 2 * len(rungs)
    settled = decide_step(1e6, decide_step(1e6 - 1e5, state, rungs, SETTINGS).state, rungs, SETTINGS).state
    assert settled.rung == state.rung


@given(LADDERS, st.data(), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_more_load_never_leads_to_a_higher_rung_where_one_below_serves(
    rungs: list[RungLoad], data: st.DataObject, more: float, longer_s: float
) -> None:
    state = LadderState(data.draw(st.integers(0, len(rungs) - 1)), 0, low_load_since_s=-100.0)
    loaded = [
        RungLoad(
            r.unloaded_latency_s,
            r.backlog_s + longer_s,
            r.min_utilization * (1 + more),
            r.expected_utilization * (1 + more),
            r.relative_utilization * (1 + more),
            r.recent_utilization * (1 + more),
            r.ready,
        )
        for r in rungs
    ]
    before, after = (decide_step(0.0, state, views, SETTINGS).state.rung for views in (rungs, loaded))
    if before >= state.rung and any(SETTINGS.serves(view) for view in loaded[state.rung :]):
        assert after >= state.rung
