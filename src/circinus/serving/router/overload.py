"""Requests that cannot be answered in time, which are refused at once instead of waiting for their deadline."""

from __future__ import annotations

import math
from collections.abc import Mapping

from circinus.errors import OverloadedError
from circinus.serving.router.compiled_route import INPUT, CompiledRoute
from circinus.serving.router.dispatcher import Dispatcher
from circinus.serving.settings import SERVING
from circinus.specification import LatePolicy


def lateness_s(route: CompiledRoute, dispatchers: Mapping[str, Dispatcher], now_s: float, left_s: float) -> float:
    """Return the seconds by which a request that enters now is expected to be late because it waits; 0 for in time.

    Waits of operators at other routers, transfers and fan-outs do not count, so that a request is accepted when in
    doubt.

    Args:
        route: its route.
        dispatchers: application -> dispatcher.
        now_s: time of entry, by the clock of the dispatchers.
        left_s: seconds until its deadline.
    """
    ends_s, waited_s, late_s = {INPUT: 0.0}, 0.0, 0.0
    for operator, stage in route.stages.items():
        begin_s = max([ends_s[producer] for producer in stage.producers])
        ends_s[operator] = begin_s
        dispatcher = dispatchers.get(stage.application)
        if dispatcher is None:
            continue
        latest_s = math.inf if stage.latest_start_s is None else stage.latest_start_s
        wait_s, batch_s = dispatcher.expected_wait_s(now_s + latest_s), dispatcher.history.median_batch_s
        waited_s += wait_s
        begin_s += wait_s
        if wait_s and route.late is LatePolicy.DROP:
            late_s = max(late_s, begin_s - batch_s - (1.0 + SERVING.drop_margin) * latest_s)
        ends_s[operator] = begin_s + batch_s
    if not waited_s:
        return 0.0
    return max(late_s, max(ends_s.values()) - (1.0 - SERVING.deadline_margin) * left_s)


def require_capacity(
    route: CompiledRoute,
    dispatchers: Mapping[str, Dispatcher],
    now_s: float,
    left_s: float,
    input_bytes: int,
    held_bytes: int,
) -> None:
    """Raise an error for a request that could not be answered in time, or whose input would take too much memory.

    Args:
        route: see `lateness_s`.
        dispatchers: see `lateness_s`.
        now_s: see `lateness_s`.
        left_s: see `lateness_s`.
        input_bytes: size of its input.
        held_bytes: size of the inputs of other requests; 0 without any.

    Raises:
        OverloadedError: the request is refused.
    """
    late_s = lateness_s(route, dispatchers, now_s, left_s)
    if late_s > 0:
        raise OverloadedError(
            f"the request would be {late_s:.3g} s late, as too many are queued",
            retry_after_s=late_s,
            location=f"query {route.query}",
            hint="Send fewer requests, or plan for a higher rate.",
        )
    if held_bytes and held_bytes + input_bytes > SERVING.max_waiting_bytes:
        limit_mib = SERVING.max_waiting_bytes / 2**20
        raise OverloadedError(
            f"inputs of {held_bytes / 2**20:.0f} MiB wait already, and the limit is {limit_mib:.0f} MiB",
            retry_after_s=SERVING.sweep_period_s,
            location=f"query {route.query}",
            hint="Send fewer requests at once, or smaller ones.",
        )
