"""Tests of the node tracker: losses count soon, returns only when they last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from circinus.control.replanning.node_tracker import NodeTracker
from circinus.control.settings import NodeSettings

SETTINGS = NodeSettings(lost_after_s=1.0, back_after_s=10.0)


def _looks(watch: NodeTracker, begin_s: float, duration_s: float, nodes: int) -> None:
    for tick in range(int(duration_s * 4) + 1):
        watch.observe(begin_s + tick / 4, {"edge": nodes, "cloud": 2})


def test_a_loss_is_believed_after_a_second_and_a_late_sign_of_life_is_none() -> None:
    watch = NodeTracker({"edge": 4, "cloud": 2}, SETTINGS)
    _looks(watch, 0.0, 0.75, 3)
    _looks(watch, 1.0, 5.0, 4)
    _looks(watch, 7.0, 0.75, 3)
    assert watch.node_counts == {"edge": 4, "cloud": 2}
    _looks(watch, 8.0, 1.0, 3)
    assert watch.node_counts == {"edge": 3, "cloud": 2}


def test_of_losses_one_after_another_only_those_that_lasted_are_believed() -> None:
    watch = NodeTracker({"edge": 4, "cloud": 2}, SETTINGS)
    _looks(watch, 0.0, 0.5, 3)
    _looks(watch, 0.75, 0.25, 1)
    assert watch.node_counts["edge"] == 3
    _looks(watch, 1.25, 1.0, 1)
    assert watch.node_counts["edge"] == 1


def test_a_pool_that_is_not_told_of_has_no_nodes_and_more_than_specified_do_not_count() -> None:
    watch = NodeTracker({"edge": 4, "cloud": 2}, SETTINGS)
    for second in range(3):
        watch.observe(float(second), {"cloud": 7})
    assert watch.node_counts == {"edge": 0, "cloud": 2}


def test_what_comes_and_goes_is_believed_ever_later_until_it_lasts() -> None:
    watch = NodeTracker({"edge": 1, "cloud": 2}, SETTINGS)
    now_s, waits_s = 0.0, []
    for _ in range(4):
        while watch.node_counts["edge"]:
            watch.observe(now_s, {"edge": 0, "cloud": 2})
            now_s += 0.25
        begin_s = now_s
        while not watch.node_counts["edge"]:
            watch.observe(now_s, {"edge": 1, "cloud": 2})
            now_s += 0.25
        waits_s.append(round(now_s - begin_s - 0.25))
    assert waits_s == [10, 20, 40, 80]
    _looks(watch, now_s, 400.0, 1)
    _looks(watch, now_s + 401.0, 2.0, 0)
    _looks(watch, now_s + 404.0, 10.0, 1)
    assert watch.node_counts["edge"] == 1, "the last return had lasted: the next is believed as the first was"


def test_under_another_specification_what_is_missing_goes_on_missing() -> None:
    watch = NodeTracker({"edge": 4, "cloud": 2}, SETTINGS)
    _looks(watch, 0.0, 2.0, 3)
    other = watch.with_specified({"edge": 6, "cloud": 5, "new": 1})
    assert other.node_counts == {"edge": 3, "cloud": 5, "new": 1}
    assert NodeTracker({"edge": 4}, SETTINGS, {"edge": 2}).node_counts == {"edge": 2}


def test_under_other_plans_for_the_same_nodes_what_was_seen_of_late_counts() -> None:
    watch = NodeTracker({"edge": 4, "cloud": 2}, SETTINGS)
    _looks(watch, 0.0, 0.75, 3)
    watch = watch.with_specified({"edge": 4, "cloud": 5})
    _looks(watch, 1.0, 0.0, 3)
    assert watch.node_counts == {"edge": 3, "cloud": 2 + 3}


@given(
    st.lists(st.tuples(st.floats(0.05, 8.0), st.integers(0, 5)), min_size=1, max_size=60),
    st.integers(1, 4),
)
def test_nothing_is_believed_that_was_not_seen_for_long_enough(looks: list[tuple[float, int]], specified: int) -> None:
    watch = NodeTracker({"edge": specified}, SETTINGS)
    now_s, believed = 0.0, specified
    seen: list[tuple[float, int]] = []
    for pause_s, nodes in looks:
        now_s += pause_s
        nodes = min(nodes, specified)
        watch.observe(now_s, {"edge": nodes})
        seen.append((now_s, nodes))
        after = watch.node_counts["edge"]
        assert 0 <= after <= specified
        if after != believed:
            waited_s = SETTINGS.lost_after_s if after < believed else SETTINGS.back_after_s
            of_late = [count for at_s, count in seen if at_s > now_s - waited_s]
            assert all(count <= after for count in of_late) if after < believed else min(of_late) >= after
        believed = after
