"""Light open-loop load of a scene of faults, over HTTP, and the judgement of its requests."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass

from benchmarks.hardening.http_load import exchange
from benchmarks.hardening.starter import QUERY, SITE

_DEADLINE_S = 3.0
_GRACE_S = 2.0
"""Time beyond deadline and healing after which a request without an answer is silent."""
_GIVE_UP_S = 60.0
_APART_S = 0.25
"""Seconds between requests: below the planned rate, beyond which requests are refused."""
_BODY = json.dumps("anser the quetion").encode()


@dataclass(frozen=True)
class SentRequest:
    """Request that has ended."""

    sent_s: float
    """Monotonic time."""
    ended_s: float
    status: int
    """Status of the answer; 0: the connection was refused or lost, -1: nothing came."""

    def is_silent(self, healed_s: float) -> bool:
        """Return whether it had neither an answer nor a reason in time: not even after the fault was healed."""
        return self.status == -1 or self.ended_s > max(self.sent_s + _DEADLINE_S, healed_s) + _GRACE_S


class SceneRequests:
    """Requests with a deadline, each over a connection of its own."""

    def __init__(self, address: Callable[[], tuple[str, int] | None]) -> None:
        self.ended: list[SentRequest] = []
        """Requests in the order of their ends."""
        self._address = address

    async def send_forever(self) -> None:
        """Send requests until cancelled."""
        tasks: set[asyncio.Task[None]] = set()
        while True:
            tasks.add(asyncio.create_task(self._send()))
            tasks = {task for task in tasks if not task.done()}
            await asyncio.sleep(_APART_S)

    async def _send(self) -> None:
        sent_s, status = time.monotonic(), -1
        with suppress(TimeoutError):
            try:
                async with asyncio.timeout(_GIVE_UP_S):
                    status = await self._exchange()
            except (OSError, EOFError, ValueError) as error:
                status = -1 if isinstance(error, TimeoutError) else 0
        self.ended.append(SentRequest(sent_s, time.monotonic(), status))

    async def _exchange(self) -> int:
        address = self._address()
        if address is None:
            raise OSError("there is no address")
        reader, writer = await asyncio.open_connection(*address)
        with closing(writer):
            headers = {"circinus-deadline-ms": f"{_DEADLINE_S * 1e3:g}", "connection": "close"}
            status, *_ = await exchange(reader, writer, f"/{SITE}/{QUERY}", _BODY, headers)
            return status
