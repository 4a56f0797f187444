"""Traffic with changing rates, and the share of requests answered in time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.operators import Item
from circinus.operators.pickling import pickled_bytes
from circinus.serving import Request
from circinus.serving.loadtest.open_loop import Arrival, RequestOutcome, poisson_arrivals, query_rng


@dataclass(frozen=True)
class Phase:
    """Part of the traffic with constant rates."""

    duration_s: float
    factor: float
    """Rate relative to each query's planned rate."""


def phased_arrivals(rates_per_s: Mapping[str, float], phases: Sequence[Phase], seed: int) -> tuple[Arrival, ...]:
    """Sample Poisson arrivals of each query for consecutive phases, in ascending order."""
    arrivals: list[Arrival] = []
    start_s = 0.0
    for number, phase in enumerate(phases):
        rates = {query: rate * phase.factor for query, rate in rates_per_s.items()}
        drawn = poisson_arrivals(rates, phase.duration_s, seed * len(phases) + number)
        arrivals.extend(replace(arrival, time_s=start_s + arrival.time_s) for arrival in drawn)
        start_s += phase.duration_s
    return tuple(arrivals)


def recorded_requests(arrivals: Sequence[Arrival], items: Sequence[Item], seed: int) -> list[Request]:
    """Return a request for each arrival, for a replaying engine, with items in turns of one random order per query."""
    turns: dict[str, Iterator[Item]] = {}
    sizes = {item.key: float(pickled_bytes(item.value)) for item in items}
    requests = []
    for arrival in arrivals:
        if arrival.query not in turns:
            turns[arrival.query] = _shuffled_rounds(items, query_rng(seed, arrival.query, "items"))
        key = next(turns[arrival.query]).key
        requests.append(Request(arrival.query, key, None, sizes[key]))
    return requests


def _shuffled_rounds(items: Sequence[Item], rng: np.random.Generator) -> Iterator[Item]:
    while True:
        for index in rng.permutation(len(items)):
            yield items[index]


def within(answers: Sequence[RequestOutcome], begin_s: float, end_s: float) -> list[RequestOutcome]:
    """Return the requests scheduled in an interval."""
    return [answer for answer in answers if begin_s <= answer.scheduled_s < end_s]


def share_in_time(answers: Sequence[RequestOutcome], limits_s: Mapping[str, float]) -> float:
    """Return the share of requests answered within their query's limit; NaN without requests."""
    if not answers:
        return math.nan
    return sum(in_time(answer, limits_s) for answer in answers) / len(answers)


def in_time(answer: RequestOutcome, limits_s: Mapping[str, float]) -> bool:
    """Return whether a request was answered within its limit."""
    return answer.response is not None and answer.latency_s <= limits_s[answer.query]


def lost(answers: Sequence[RequestOutcome]) -> int:
    """Return the number of requests that failed or were never answered."""
    return sum(answer.response is None for answer in answers)
