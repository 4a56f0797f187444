"""Light open-loop load of a scene of faults, over HTTP, and the judgement of its requests."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass

from benchmarks.hardening.http_load import exchange
from benchmarks.hardening.starter import QUERY, SITE

_DEADLINE_S = 3.0
_GRACE_S = 2.0
"""Time beyond deadline and healing after which a request without an answer is silent."""
_APART_S = 0.25
"""Seconds between requests: below the planned rate, beyond which requests are refused."""
_BODY = json.dumps("anser the quetion").encode()
CUT_OFF, NOT_TAKEN, OPEN = 0, -1, -2
"""Statuses without an answer: the connection was lost after it was taken, it was not taken, or nothing came yet."""


@dataclass
class SentRequest:
    """Request that counts once, with the fault in whose time it ended or became silent."""

    sent_s: float
    """Monotonic time."""
    ended_s: float = math.inf
    status: int = OPEN

    def limit_s(self, healed_s: float) -> float:
        """Return the time after which it is silent: neither answered nor refused, not even after a fault was healed."""
        return max(self.sent_s + _DEADLINE_S, healed_s) + _GRACE_S

    def outcome(self, healed_s: float) -> str:
        """Return its only outcome: `silent` beyond its limit, else `answered`, `cut_off` or `failed`."""
        if self.ended_s > self.limit_s(healed_s):
            return "silent"
        return {200: "answered", CUT_OFF: "cut_off"}.get(self.status, "failed")


class SceneRequests:
    """Requests with a deadline, each over a connection of its own."""

    def __init__(self, address: Callable[[], tuple[str, int] | None]) -> None:
        self._address = address
        self._sent: list[SentRequest] = []
        """Requests that no fault counts yet."""
        self._last: list[SentRequest] = []
        """Latest requests that ended."""

    async def send_forever(self) -> None:
        """Send requests until cancelled; those under way go on."""
        tasks: set[asyncio.Task[None]] = set()
        while True:
            tasks.add(asyncio.create_task(self._send()))
            tasks = {task for task in tasks if not task.done()}
            await asyncio.sleep(_APART_S)

    def last_status(self, since_s: float) -> int | None:
        """Return the status of the request that ended last, of those sent since a time."""
        return next((request.status for request in reversed(self._last) if request.sent_s >= since_s), None)

    def take(self, healed_s: float) -> Counter[str]:
        """Return the number of requests by outcome, once each, of those that have ended or are silent by now.

        Args:
            healed_s: monotonic time at which the last fault was healed.
        """
        now_s = time.monotonic()
        taken: list[SentRequest] = []
        left: list[SentRequest] = []
        for request in self._sent:
            has_ended = request.status != OPEN or now_s > request.limit_s(healed_s)
            (taken if has_ended else left).append(request)
        self._sent = left
        return Counter(request.outcome(healed_s) for request in taken)

    async def take_rest(self, healed_s: float) -> Counter[str]:
        """Wait until all requests have ended or are silent, and take them; none may be sent meanwhile."""
        end_s = time.monotonic() + _DEADLINE_S + _GRACE_S + _APART_S
        while any(request.status == OPEN for request in self._sent) and time.monotonic() < end_s:
            await asyncio.sleep(_APART_S)
        return self.take(healed_s)

    async def _send(self) -> None:
        request = SentRequest(time.monotonic())
        self._sent.append(request)
        status = await self._exchange()
        request.status, request.ended_s = status, time.monotonic()
        self._last = [*self._last[-7:], request]

    async def _exchange(self) -> int:
        address = self._address()
        if address is None:
            return NOT_TAKEN
        try:
            reader, writer = await asyncio.open_connection(*address)
        except OSError:
            return NOT_TAKEN
        with closing(writer), suppress(OSError, EOFError, ValueError):
            headers = {"circinus-deadline-ms": f"{_DEADLINE_S * 1e3:g}", "connection": "close"}
            status, *_ = await exchange(reader, writer, f"/{SITE}/{QUERY}", _BODY, headers)
            return status
        return CUT_OFF
