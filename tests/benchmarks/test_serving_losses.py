"""Recovery of goodput after the loss of a node, and failures of requests that were not in flight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from benchmarks.serving.node_loss_analysis import back_after_s, loss_figures, node_loss

from circinus.serving import Response, ResponseTimings
from circinus.serving.loadtest.open_loop import RequestOutcome

ANSWERED = Response(None, ResponseTimings(0.1, {}, {}, {}))
RATE_PER_S = 32.0
KILLED_S = 5.0


def _answers(latency_s: Callable[[float], float | None]) -> list[RequestOutcome]:
    """Return outcomes over 30 s; None: a request failed after half a second."""
    found = []
    for number in range(int(30 * RATE_PER_S)):
        due_s = number / RATE_PER_S
        seconds = latency_s(due_s)
        answered = seconds is not None
        found.append(
            RequestOutcome(
                "q",
                "item",
                due_s,
                seconds if answered else 0.5,
                ANSWERED if answered else None,
                "" if answered else "lost",
            )
        )
    return found


def test_back_is_when_no_half_second_is_bad_any_more() -> None:
    answers = _answers(lambda due_s: 3.0 if KILLED_S <= due_s < 7.0 or 9.0 <= due_s < 9.5 else 0.1)
    assert back_after_s(answers, KILLED_S, 30.0, {"q": 1.0}) == pytest.approx(4.5)


def test_single_late_answers_do_not_count_and_what_was_before_neither() -> None:
    answers = _answers(lambda due_s: 3.0 if due_s % 1.0 == 0.0 or due_s < KILLED_S else 0.1)
    assert back_after_s(answers, KILLED_S, 30.0, {"q": 1.0}) == 0.0


def test_what_never_comes_back_took_as_long_as_was_watched() -> None:
    answers = _answers(lambda due_s: 0.1 if due_s < KILLED_S else None)
    assert back_after_s(answers, KILLED_S, 30.0, {"q": 1.0}) == 25.0


def test_requests_under_way_are_told_from_those_that_came_later() -> None:
    answers = _answers(lambda due_s: None if KILLED_S - 0.25 < due_s < KILLED_S + 0.5 else 0.1)
    found = node_loss("a node", answers, KILLED_S, 30.0, {"q": 1.0}, 2)
    assert (found.requests, found.failed) == (960, 23)
    assert found.in_flight == 8  # seven that failed, and the one that is due at the very moment
    assert found.failed_beyond == 15
    assert found.back_s == 0.5
    figures = {figure.name: figure for figure in loss_figures([found, replace(found, what="another", back_s=2.5)])}
    assert figures["a node: requests that failed and were not under way"].value == 15
    assert figures["another: until goodput is what the rest allows"].value == 2.5
