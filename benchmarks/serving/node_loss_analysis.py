"""What the answers to requests show of a node that was killed while they came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.results import Figure
from benchmarks.workloads.traffic import in_time, lost, within
from circinus.serving.loadtest.open_loop import RequestOutcome

_WINDOW_S, _SHARE = 0.5, 0.95


@dataclass(frozen=True)
class NodeLoss:
    """One node killed."""

    what: str
    """Which node, in words."""
    replicas_lost: int
    requests: int
    failed: int
    in_flight: int
    """Requests that were under way when the node was killed."""
    failed_beyond: int
    """Requests that failed though they came afterwards."""
    back_s: float
    """Until from then on nearly all requests are answered in time; as long as it was watched where they never are."""


def back_after_s(
    answers: Sequence[RequestOutcome], killed_s: float, until_s: float, limits_s: Mapping[str, float]
) -> float:
    """Seconds from a moment until in every half second nearly all requests (95 % and one) are answered in time.

    Args:
        answers: to all requests.
        killed_s: the moment, in the seconds of `due_s`.
        until_s: end of the traffic.
        limits_s: query -> what is in time.
    """
    back_s, begin_s = 0.0, killed_s
    while begin_s < until_s:
        due = within(answers, begin_s, begin_s + _WINDOW_S)
        if due and sum(in_time(answer, limits_s) for answer in due) < _SHARE * len(due) - 1:
            back_s = begin_s + _WINDOW_S - killed_s
        begin_s += _WINDOW_S
    return min(back_s, until_s - killed_s)


def node_loss(
    what: str,
    answers: Sequence[RequestOutcome],
    killed_s: float,
    until_s: float,
    limits_s: Mapping[str, float],
    replicas_lost: int,
) -> NodeLoss:
    """What the answers show.

    Args:
        what: which node was killed, in words.
        answers: to all requests.
        killed_s: when, in the seconds of `due_s`.
        until_s: end of the traffic.
        limits_s: query -> what is in time.
        replicas_lost: of operators.
    """
    return NodeLoss(
        what=what,
        replicas_lost=replicas_lost,
        requests=len(answers),
        failed=lost(answers),
        in_flight=len([a for a in answers if a.scheduled_s <= killed_s < a.scheduled_s + a.latency_s]),
        failed_beyond=lost([answer for answer in answers if answer.scheduled_s > killed_s]),
        back_s=back_after_s(answers, killed_s, until_s, limits_s),
    )


def loss_figures(found: Sequence[NodeLoss]) -> list[Figure]:
    """Medians over repeats of seconds, sums of requests."""
    figures = []
    for what in dict.fromkeys(one.what for one in found):
        ones = [one for one in found if one.what == what]
        replicas = sum(one.replicas_lost for one in ones)
        requests = f"of {sum(one.requests for one in ones)}; {sum(one.in_flight for one in ones)} were under way"
        figures += [
            Figure(f"{what}: requests that failed and were not under way",
                   float(sum(one.failed_beyond for one in ones)), 0.0, "lower", "requests", requests),
            Figure(f"{what}: until goodput is what the rest allows",
                   float(np.median([one.back_s for one in ones])), 6.0, "lower", "s",
                   f"median of {len(ones)}; {replicas} replicas lost"),
        ]  # fmt: skip
    return figures
