"""Open-loop traffic: each request is sent at its scheduled time, independent of earlier answers."""

from __future__ import annotations

import asyncio
import math
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from circinus.errors import OVERLOADED, Diagnostic, ServingError, SpecError
from circinus.queueing.arrivals import ArrivalProcess, Poisson
from circinus.serving.engine import DROPPED_LATE, ENGINE_ENDED, ENGINE_SILENT, Engine, Request, Response
from circinus.specification.arrival_files import QUERY, TIME, read_arrival_rows


@dataclass(frozen=True, order=True)
class Arrival:
    """Request of `query` scheduled `time_s` after the start."""

    time_s: float
    query: str


def sample_arrivals(processes: Mapping[str, ArrivalProcess], duration_s: float, seed: int) -> tuple[Arrival, ...]:
    """Sample each query's arrival process over `[0, duration_s)`, merged in order of time.

    Each query has its own random stream, from the seed and its name, so that adding a query does not change the
    arrivals of others.
    """
    arrivals: list[Arrival] = []
    for query, process in processes.items():
        times_s = process.times_s(duration_s, query_rng(seed, query, "arrivals"))
        arrivals.extend(Arrival(float(time_s), query) for time_s in times_s)
    return tuple(sorted(arrivals))


def poisson_arrivals(rates_per_s: Mapping[str, float], duration_s: float, seed: int) -> tuple[Arrival, ...]:
    """Return `sample_arrivals` of independent Poisson processes."""
    return sample_arrivals({query: Poisson(rate) for query, rate in rates_per_s.items()}, duration_s, seed)


def query_rng(seed: int, query: str, purpose: str) -> np.random.Generator:
    """Return the random stream of one query and purpose, independent of all others."""
    return np.random.default_rng([seed, zlib.crc32(f"{purpose}/{query}".encode())])


def read_trace(path: Path, queries: Collection[str]) -> tuple[Arrival, ...]:
    """Read arrivals from a CSV file with the columns `time_s` and `query`, in any order of rows.

    Raises:
        SpecError: the file cannot be read, lacks a column, or has rows without a time >= 0 or an existing query; all
            such rows are listed.
    """
    rows, _ = read_arrival_rows(path, (TIME, QUERY))
    faults: list[Diagnostic] = []
    arrivals: list[Arrival] = []
    for row in rows:
        if row.time_s is None:
            faults.append(row.fault(path))
        elif row.query is None or row.query not in queries:
            expected = f"a query of the plan: {', '.join(sorted(queries))}"
            faults.append(Diagnostic(str(path), row.line, QUERY, repr(row.query), expected))
        else:
            arrivals.append(Arrival(row.time_s, row.query))
    if faults:
        raise SpecError(faults)
    return tuple(sorted(arrivals))


_PROGRESS_S = 0.25


@dataclass(frozen=True)
class RequestOutcome:
    """Outcome of one request."""

    query: str
    item_key: str
    scheduled_s: float
    """Scheduled time after the start."""
    latency_s: float = math.inf
    """Seconds from the scheduled time to the answer."""
    response: Response | None = None
    error: str = ""
    dropped: bool = False
    """True if the engine dropped the request as late, which is no error."""
    lag_s: float = 0.0
    """Seconds by which it was sent late; the latency includes them."""

    def engine_s(self, inputs: Mapping[str, Sequence[str]]) -> float:
        """Return the engine's own seconds: sockets, and routers where the request took no link; 0 without an answer.

        Args:
            inputs: operator -> operators whose outputs it takes, in topological order.
        """
        if self.response is None:
            return 0.0
        timings = self.response.timings
        sockets_s = max(self.latency_s - self.lag_s - timings.latency_s, 0.0)
        return sockets_s + (0.0 if timings.link_bytes else timings.outside_s(inputs))


@dataclass(frozen=True)
class LoadProgress:
    """Progress of the traffic."""

    elapsed_s: float
    total_s: float
    """Seconds from the first request to the last."""
    sent: int
    answered: int
    failed: int
    due: int
    """Total number of scheduled requests."""


@dataclass(frozen=True)
class EngineEnd:
    """End of an engine during a load test."""

    time_s: float
    """Seconds after the start of the test."""
    reason: ServingError


class OpenLoop:
    """Single run of traffic, timed by the event loop's clock.

    Latencies count from the scheduled time, so that a stalled engine or generator cannot make them look shorter
    (coordinated omission, as named by Gil Tene).
    """

    def __init__(self, engine: Engine, stragglers_s: float) -> None:
        """Prepare a run; `send` can be called once.

        Args:
            engine: engine that requests are sent to.
            stragglers_s: how long to wait for answers after the last request.
        """
        self.lateness_s: list[float] = []
        """Lag of each sent request."""
        self._engine = engine
        self._stragglers_s = stragglers_s
        self.engine_end: EngineEnd | None = None
        """End of the engine, after which no request is sent."""
        self._outcomes: dict[int, RequestOutcome] = {}
        self._failed = 0
        self._start_s = 0.0

    async def send(
        self,
        arrivals: Sequence[Arrival],
        requests: Sequence[Request],
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> list[RequestOutcome]:
        """Send `requests` at their ascending `arrivals`; return their outcomes in order.

        If a local engine ends, these are the outcomes of the requests before, without those that it was processing.
        """
        self._start_s = asyncio.get_running_loop().time()
        reporter = asyncio.create_task(self._report(len(arrivals), arrivals, on_progress))
        tasks: list[asyncio.Task[None]] = []
        try:
            for index, (arrival, request) in enumerate(zip(arrivals, requests, strict=True)):
                wait_s = arrival.time_s - self._elapsed_s()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                if self.engine_end is not None:
                    break
                self.lateness_s.append(max(self._elapsed_s() - arrival.time_s, 0.0))
                tasks.append(asyncio.create_task(self._send_one(index, arrival, request)))
            if tasks:
                await asyncio.wait(tasks, timeout=self._stragglers_s)
        finally:
            for task in (reporter, *tasks):
                task.cancel()
            results = await asyncio.gather(reporter, *tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        if self.engine_end is not None:
            return [self._outcomes[index] for index in sorted(self._outcomes)]
        return [
            self._outcomes.get(index, RequestOutcome(arrival.query, request.item_key, arrival.time_s))
            for index, (arrival, request) in enumerate(zip(arrivals, requests, strict=True))
        ]

    async def _send_one(self, index: int, arrival: Arrival, request: Request) -> None:
        response: Response | None = None
        error, dropped = "", False
        try:
            response = await self._engine.submit(request)
        except ServingError as failure:
            if failure.code in ENGINE_ENDED or failure.code == ENGINE_SILENT:
                self.engine_end = self.engine_end or EngineEnd(self._elapsed_s(), failure)
                return
            dropped = failure.code in (DROPPED_LATE, OVERLOADED)
            error = "" if dropped else str(failure)
            self._failed += not dropped
        latency_s = self._elapsed_s() - arrival.time_s
        self._outcomes[index] = RequestOutcome(
            arrival.query,
            request.item_key,
            arrival.time_s,
            latency_s,
            response,
            error,
            dropped,
            self.lateness_s[index],
        )

    async def _report(
        self, due: int, arrivals: Sequence[Arrival], on_progress: Callable[[LoadProgress], None] | None
    ) -> None:
        """Report the progress periodically, and a last time at the end."""
        total_s = arrivals[-1].time_s if arrivals else 0.0
        while on_progress is not None:
            try:
                await asyncio.sleep(_PROGRESS_S)
            finally:
                sent, answered = len(self.lateness_s), len(self._outcomes)
                on_progress(LoadProgress(self._elapsed_s(), total_s, sent, answered, self._failed, due))

    def _elapsed_s(self) -> float:
        return asyncio.get_running_loop().time() - self._start_s
