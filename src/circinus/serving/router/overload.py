"""Requests that cannot be answered in time, which are refused at once instead of waiting for their deadline."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping

from circinus.errors import OverloadedError, ServingError
from circinus.serving.router.batch_queue import QueueMemory
from circinus.serving.router.compiled_route import INPUT, CompiledRoute
from circinus.serving.router.dispatcher import Dispatcher
from circinus.serving.settings import SERVING
from circinus.specification import LatePolicy

INPUT_TOO_LARGE = "query.input_too_large"
"""Code of the error of an input that is larger than all inputs may be."""


def lateness_s(route: CompiledRoute, dispatchers: Mapping[str, Dispatcher], now_s: float, left_s: float) -> float:
    """Return the seconds by which a request that enters now is expected to be late because it waits; 0 for in time.

    Waits of operators at other routers or behind a branch, transfers and fan-outs do not count, so that a request is
    accepted when in doubt.

    Args:
        route: its route.
        dispatchers: application -> dispatcher.
        now_s: time of entry, by the clock of the dispatchers.
        left_s: seconds until its deadline.
    """
    ends_s, waited_s, late_s = {INPUT: 0.0}, 0.0, 0.0
    for operator, stage in route.stages.items():
        if not stage.runs_always(ends_s):
            continue
        begin_s = max([ends_s[producer] for producer in stage.producers if producer in ends_s])
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


class RequestAdmission:
    """Admission of the requests of a router, by their expected lateness and the memory of their inputs."""

    def __init__(self, dispatchers: Mapping[str, Dispatcher], loop: asyncio.AbstractEventLoop) -> None:
        """Create one for a router without requests.

        Args:
            dispatchers: application -> dispatcher.
            loop: event loop, whose clock is that of the dispatchers.
        """
        self.held_bytes = 0
        """Memory of the unanswered requests that entered at the router."""
        self.queues = QueueMemory()
        self._paused_requests, self._paused_bytes = 0, 0
        """Number of unanswered requests of paused queries, and their memory."""
        self._dispatchers = dispatchers
        self._loop = loop

    def hold(self, route: CompiledRoute, requests: int, size_bytes: int) -> None:
        """Count requests that begin to wait for an answer, or with negative numbers those that have ended."""
        self.held_bytes += size_bytes
        if route.is_paused:
            self._paused_requests += requests
            self._paused_bytes += size_bytes

    def require(self, route: CompiledRoute, input_bytes: int, left_s: float) -> None:
        """Raise an error for a request that could not be answered in time, or whose input would take too much memory.

        Args:
            route: route of the request.
            input_bytes: size of its pickled input.
            left_s: seconds until its deadline.

        Raises:
            OverloadedError: the request is refused now.
            ServingError: its input is larger than all inputs may be.
        """
        location, limit_bytes = f"query {route.query}", SERVING.max_waiting_bytes
        if input_bytes > limit_bytes:
            raise ServingError(
                f"the input has {input_bytes / 2**20:.0f} MiB, and the limit is {limit_bytes / 2**20:.0f} MiB",
                code=INPUT_TOO_LARGE,
                location=location,
                hint="Send a smaller input, such as the path of a file.",
            )
        paused_bytes = self._paused_bytes + input_bytes
        if route.is_paused and (
            self._paused_requests >= SERVING.max_paused_requests or paused_bytes > limit_bytes * SERVING.paused_share
        ):
            raise OverloadedError(
                f"{self._paused_requests} requests wait already, as deployments are being replaced",
                retry_after_s=SERVING.sweep_period_s,
                location=location,
                hint="Try again when they have been.",
            )
        late_s = lateness_s(route, self._dispatchers, self._loop.time(), left_s)
        if late_s > 0:
            raise OverloadedError(
                f"the request would be {late_s:.3g} s late, as too many are queued",
                retry_after_s=late_s,
                location=location,
                hint="Send fewer requests, or plan for a higher rate.",
            )
        held_bytes = max(self.held_bytes, self.queues.used_bytes)
        if held_bytes + input_bytes > limit_bytes:
            raise OverloadedError(
                f"inputs of {held_bytes / 2**20:.0f} MiB wait already, and the limit is {limit_bytes / 2**20:.0f} MiB",
                retry_after_s=SERVING.sweep_period_s,
                location=location,
                hint="Send fewer requests at once, or smaller ones.",
            )
