"""Sending open-loop traffic: every request leaves when it is due, whatever became of those before it."""

from __future__ import annotations

import asyncio
import math
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from circinus.errors import Diagnostic, ServingError, SpecError
from circinus.queueing.arrivals import ArrivalProcess, Poisson
from circinus.serving.engine import Engine, Request, Response
from circinus.specification.arrival_files import QUERY, TIME, read_arrival_rows


@dataclass(frozen=True, order=True)
class Arrival:
    """One request of `query` that arrives `time_s` after the traffic began."""

    time_s: float
    query: str


def sample_arrivals(processes: Mapping[str, ArrivalProcess], duration_s: float, seed: int) -> tuple[Arrival, ...]:
    """One draw of every query's process over `[0, duration_s)`, merged in order of time.

    Every query has a random stream of its own, from the seed and its name, so that adding a query leaves the arrivals
    of the others as they were.
    """
    arrivals: list[Arrival] = []
    for query, process in processes.items():
        times_s = process.times_s(duration_s, query_rng(seed, query, "arrivals"))
        arrivals.extend(Arrival(float(time_s), query) for time_s in times_s)
    return tuple(sorted(arrivals))


def poisson_arrivals(rates_per_s: Mapping[str, float], duration_s: float, seed: int) -> tuple[Arrival, ...]:
    """`drawn_arrivals` of independent Poisson processes."""
    return sample_arrivals({query: Poisson(rate) for query, rate in rates_per_s.items()}, duration_s, seed)


def query_rng(seed: int, query: str, purpose: str) -> np.random.Generator:
    """A random stream for one query and purpose, independent of all others."""
    return np.random.default_rng([seed, zlib.crc32(f"{purpose}/{query}".encode())])


def read_trace(path: Path, queries: Collection[str]) -> tuple[Arrival, ...]:
    """Arrivals from a CSV file with the columns `time_s` and `query`, in any order of rows.

    Raises:
        SpecError: the file cannot be read, lacks a column, or has rows without a time >= 0 or a known query; all such
            rows are named.
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
    """What became of one request."""

    query: str
    item_key: str
    scheduled_s: float
    """When it was due, after the traffic began."""
    latency_s: float = math.inf
    """From then until its answer was back."""
    response: Response | None = None
    error: str = ""


@dataclass(frozen=True)
class LoadProgress:
    """How far the traffic is."""

    elapsed_s: float
    total_s: float
    """Seconds from the first request to the last."""
    sent: int
    answered: int
    failed: int
    due: int
    """Requests to be sent in all."""


class OpenLoop:
    """One run of traffic, timed by the event loop's clock.

    Latencies count from the moment a request was due, so that a stalled engine, or a generator that was kept from
    sending, cannot make them look shorter (what Gil Tene named coordinated omission).
    """

    def __init__(self, engine: Engine, stragglers_s: float) -> None:
        """For one call of `send`.

        Args:
            engine: to send to.
            stragglers_s: how long to wait for answers after the last request.
        """
        self.lateness_s: list[float] = []
        """Of each request sent, how late it left."""
        self._engine = engine
        self._stragglers_s = stragglers_s
        self._answers: dict[int, RequestOutcome] = {}
        self._failed = 0
        self._begin_s = 0.0

    async def send(
        self,
        arrivals: Sequence[Arrival],
        requests: Sequence[Request],
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> list[RequestOutcome]:
        """Send `requests` at their `arrivals`, which ascend; one answer for each, in the same order."""
        self._begin_s = asyncio.get_running_loop().time()
        reporter = asyncio.create_task(self._report(len(arrivals), arrivals, on_progress))
        tasks: list[asyncio.Task[None]] = []
        try:
            for index, (arrival, request) in enumerate(zip(arrivals, requests, strict=True)):
                wait_s = arrival.time_s - self._elapsed_s()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                self.lateness_s.append(max(self._elapsed_s() - arrival.time_s, 0.0))
                tasks.append(asyncio.create_task(self._one(index, arrival, request)))
            if tasks:
                await asyncio.wait(tasks, timeout=self._stragglers_s)
        finally:
            for task in (reporter, *tasks):
                task.cancel()
            ends = await asyncio.gather(reporter, *tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end
        return [
            self._answers.get(index, RequestOutcome(arrival.query, request.item_key, arrival.time_s))
            for index, (arrival, request) in enumerate(zip(arrivals, requests, strict=True))
        ]

    async def _one(self, index: int, arrival: Arrival, request: Request) -> None:
        response: Response | None = None
        error = ""
        try:
            response = await self._engine.submit(request)
        except ServingError as failure:
            error = str(failure)
            self._failed += 1
        latency_s = self._elapsed_s() - arrival.time_s
        self._answers[index] = RequestOutcome(
            arrival.query, request.item_key, arrival.time_s, latency_s, response, error
        )

    async def _report(
        self, due: int, arrivals: Sequence[Arrival], on_progress: Callable[[LoadProgress], None] | None
    ) -> None:
        """Tell the progress now and then, and once more at the end."""
        total_s = arrivals[-1].time_s if arrivals else 0.0
        while on_progress is not None:
            try:
                await asyncio.sleep(_PROGRESS_S)
            finally:
                sent, answered = len(self.lateness_s), len(self._answers)
                on_progress(LoadProgress(self._elapsed_s(), total_s, sent, answered, self._failed, due))

    def _elapsed_s(self) -> float:
        return asyncio.get_running_loop().time() - self._begin_s
