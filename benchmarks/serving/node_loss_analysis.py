"""Analysis of the loss of a node by the outcomes of requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.results import Figure
from benchmarks.workloads.traffic import in_time, lost
from circinus.serving.loadtest.open_loop import RequestOutcome

_WINDOW_S, _SHARE = 0.5, 0.95


@dataclass(frozen=True)
class NodeLoss:
    """Loss of one node."""

    what: str
    """Description of the node."""
    replicas_lost: int
    requests: int
    failed: int
    in_flight: int
    """Number of requests in flight when the node was killed."""
    failed_beyond: int
    """Number of failed requests that were sent after the kill."""
    back_s: float
    """Recovery time until nearly all requests are answered in time; the watched time if they never are."""


def back_after_s(
    answers: Sequence[RequestOutcome], killed_s: float, until_s: float, limits_s: Mapping[str, float]
) -> float:
    """Return `recovery_s` of a kill.

    Args:
        answers: outcomes of all requests.
        killed_s: time of the kill since the start of the traffic.
        until_s: end of the traffic.
        limits_s: latency limit per query.
    """
    return recovery_s([(answer.scheduled_s, in_time(answer, limits_s)) for answer in answers], killed_s, until_s)


def recovery_s(requests: Sequence[tuple[float, bool]], from_s: float, until_s: float) -> float:
    """Return the seconds from a time until every half second nearly all requests (95 % and one) are in time.

    Args:
        requests: scheduled time of each request, and whether it was answered in time.
        from_s: time since the start of the traffic.
        until_s: end of the watched traffic.
    """
    recovered_s, start_s = 0.0, from_s
    while start_s < until_s:
        due = [is_in_time for scheduled_s, is_in_time in requests if start_s <= scheduled_s < start_s + _WINDOW_S]
        if sum(due) < _SHARE * len(due) - 1:
            recovered_s = start_s + _WINDOW_S - from_s
        start_s += _WINDOW_S
    return min(recovered_s, until_s - from_s)


def node_loss(
    what: str,
    answers: Sequence[RequestOutcome],
    killed_s: float,
    until_s: float,
    limits_s: Mapping[str, float],
    replicas_lost: int,
) -> NodeLoss:
    """Return the analysis of a loss.

    Args:
        what: description of the node.
        answers: outcomes of all requests.
        killed_s: time of the kill since the start of the traffic.
        until_s: end of the traffic.
        limits_s: latency limit per query.
        replicas_lost: number of lost replicas.
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


def loss_figures(losses: Sequence[NodeLoss]) -> list[Figure]:
    """Return medians of recovery times and sums of requests over repeats."""
    figures = []
    for what in dict.fromkeys(loss.what for loss in losses):
        repeats = [loss for loss in losses if loss.what == what]
        replicas = sum(loss.replicas_lost for loss in repeats)
        requests = f"of {sum(loss.requests for loss in repeats)}; {sum(loss.in_flight for loss in repeats)} in flight"
        figures += [
            Figure(f"{what}: requests that failed and were not under way",
                   float(sum(loss.failed_beyond for loss in repeats)), 0.0, "lower", "requests", requests),
            Figure(f"{what}: until goodput is what the rest allows",
                   float(np.median([loss.back_s for loss in repeats])), 6.0, "lower", "s",
                   f"median of {len(repeats)}; {replicas} replicas lost"),
        ]  # fmt: skip
    return figures
