"""Open-loop load over HTTP from a number of clients, each with a connection that it keeps."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

_TIMEOUT_S = 30.0
"""Time after which a client gives up, which counts as silence."""


@dataclass(frozen=True)
class HttpOutcome:
    """Outcome of one request."""

    scheduled_s: float
    """Scheduled time after the start of the load."""
    lag_s: float
    """Time that the request waited for a free client."""
    answer_s: float
    """Time from sending until the answer."""
    status: int
    """Status of the answer; 0: the connection was lost or refused, -1: silence."""
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""

    def is_good(self, limit_s: float) -> bool:
        """Return whether it was answered within a limit of its latency."""
        return self.status == 200 and self.lag_s + self.answer_s <= limit_s

    @property
    def is_refused(self) -> bool:
        """Return whether it was refused for overload."""
        return self.status in (429, 503)


class HttpClients:
    """Clients of one address, which send one body of JSON."""

    def __init__(self, address: tuple[str, int], path: str, clients: int, body: bytes = b"1") -> None:
        self._address, self._path, self._body = address, path, body
        self._free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None] = asyncio.Queue()
        for _ in range(clients):
            self._free.put_nowait(None)

    async def load(self, rate_per_s: float, duration_s: float, deadline_s: float, seed: int) -> list[HttpOutcome]:
        """Send Poisson arrivals, and return their outcomes in order."""
        rng = np.random.default_rng(seed)
        times_s = np.sort(rng.uniform(0.0, duration_s, int(rng.poisson(rate_per_s * duration_s))))
        start_s = time.monotonic()
        tasks = []
        for scheduled_s in times_s.tolist():
            await asyncio.sleep(max(0.0, start_s + scheduled_s - time.monotonic()))
            tasks.append(asyncio.create_task(self._request(start_s, scheduled_s, deadline_s)))
        return list(await asyncio.gather(*tasks))

    async def capacity(self, seconds: int, at_once: int) -> float:
        """Return the answers to clients that always wait for one, in the best of some seconds."""
        start_s, answered = time.monotonic(), Counter[int]()

        async def ask() -> None:
            while (now_s := time.monotonic()) < start_s + seconds:
                outcome = await self._request(now_s, 0.0, _TIMEOUT_S)
                answered[int(time.monotonic() - start_s)] += outcome.status == 200

        await asyncio.gather(*(ask() for _ in range(at_once)))
        return float(max(count for second, count in answered.items() if second < seconds))

    async def _request(self, start_s: float, scheduled_s: float, deadline_s: float) -> HttpOutcome:
        connection = await self._free.get()
        sent_s = time.monotonic()
        lag_s = sent_s - start_s - scheduled_s
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                if connection is None:
                    connection = await asyncio.open_connection(*self._address)
                left_ms = max(1.0, (deadline_s - lag_s) * 1e3)
                status, headers, text = await exchange(
                    *connection, self._path, self._body, {"circinus-deadline-ms": f"{left_ms:.0f}"}
                )
            if headers.get("connection") == "close":
                connection[1].close()
                connection = None
        except TimeoutError:
            status, headers, text, connection = -1, {}, "", None
        except (OSError, EOFError, ValueError) as error:
            status, headers, text, connection = 0, {}, repr(error), None
        finally:
            self._free.put_nowait(connection)
        return HttpOutcome(scheduled_s, lag_s, time.monotonic() - sent_s, status, headers, text)

    async def close(self) -> None:
        """Close all free connections."""
        while not self._free.empty():
            connection = self._free.get_nowait()
            if connection is not None:
                connection[1].close()


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: bytes, headers: Mapping[str, str]
) -> tuple[int, dict[str, str], str]:
    """Send a request over a connection; return status, headers and body of the answer."""
    lines = [f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:]) if name}
    text = await reader.readexactly(int(found.get("content-length", "0")))
    return int(head[0][9:12]), found, text.decode("utf-8", errors="replace")


def percentile_ms(seconds: Sequence[float], percent: float) -> float:
    """Return a percentile in milliseconds; NaN without values."""
    return float(np.percentile(seconds, percent)) * 1e3 if len(seconds) else float("nan")
