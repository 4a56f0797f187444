"""Requests of a query as the basis of its bounds, and the longer tests that would decide its SLOs."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

import numpy as np

from circinus.arrays import FloatArray
from circinus.serving.loadtest.slo_bounds import SloVerdict, cost_interval, latency_interval, score_interval
from circinus.specification import Query, SloKind
from circinus.statistics.interval import Interval

_MAX_FACTOR, _MAX_REQUESTS = 32, 5000
"""Limits of the search for a longer test that decides an SLO: times as many requests, and their number, of which bounds
take a tenth of a second."""
_PRECISION = 32
"""Inverse of the relative precision of large results."""
_STEP_S = 5.0
"""Multiple that durations are rounded up to."""

ItemsOfTest = Callable[[str, float], Sequence[str]]
"""(query, measured seconds) -> key of the item of each request that a test with the same seed would send."""


@dataclass(frozen=True)
class RequestSample:
    """Requests of a query in order of schedule, and its cost."""

    latency_s: FloatArray
    """(n,) latencies; infinite without an answer."""
    items: Sequence[str]
    """Key of the item of each request."""
    scores: Sequence[float]
    scored_items: Sequence[str]
    """Key of the item of each score."""
    cost_usd_per_h: float
    cost_standard_error: float
    shortest_s: float = 0.0
    """Shortest service time of a request at its slowest operator, which no latency is below."""
    lag_s: float = 0.0
    """Seconds by which latencies may be overstated, as requests were sent late."""
    overhead_s: FloatArray | None = None
    """(n,) seconds by which each latency may be overstated, as a busy machine delays the engine; None: by none."""

    def intervals(self, query: Query, score_range: tuple[float, float]) -> dict[SloKind, Interval]:
        """Return the bounds of all measured quantities."""
        intervals = {SloKind.COST: cost_interval(self.cost_usd_per_h, self.cost_standard_error, query.risk)}
        if len(self.latency_s):
            bounds_s = latency_interval(self.latency_s, self.items, query.slos.percentile, query.risk)
            net_lower_s = bounds_s.lower
            if self.overhead_s is not None:
                latency_s = self.latency_s - self.overhead_s
                net_lower_s = latency_interval(latency_s, self.items, query.slos.percentile, query.risk).lower
            lower_s = min(bounds_s.lower, max(self.shortest_s, net_lower_s - self.lag_s))
            intervals[SloKind.LATENCY] = replace(bounds_s, lower=lower_s)
        if self.scores:
            intervals[SloKind.ACCURACY] = score_interval(self.scores, self.scored_items, query.risk, *score_range)
        return intervals

    def with_items(self, items: Sequence[str]) -> RequestSample:
        """Return the sample of a test with these items, if its latencies and scores are like those of this one.

        Latencies repeat in their order, which keeps queues. Each item has the mean score of a measured one: its own, or
        for other items those in turn.
        """
        measured: dict[str, list[float]] = {}
        for key, score in zip(self.scored_items, self.scores, strict=True):
            measured.setdefault(key, []).append(score)
        means = {key: float(np.mean(scores)) for key, scores in measured.items()}
        turns = cycle(means.values())
        scores = {key: means[key] if key in means else next(turns) for key in dict.fromkeys(items)} if means else {}
        return replace(
            self,
            latency_s=np.resize(self.latency_s, len(items)),
            overhead_s=None if self.overhead_s is None else np.resize(self.overhead_s, len(items)),
            items=items,
            scores=list(scores.values()),
            scored_items=list(scores),
            cost_standard_error=self.cost_standard_error * math.sqrt(len(self.items) / len(items)),
        )

    def with_item_count(self, count: int) -> RequestSample:
        """Return the sample of a test with so many distinct items, and as many requests for each as in this one.

        Items are in an order that depends on their keys alone, so that tests of the same items agree.
        """
        keys = sorted(set(self.items), key=lambda key: (zlib.crc32(key.encode()), key))[:count]
        requests = math.ceil(count * len(self.items) / len(keys))
        keys += [f"further {number}" for number in range(count - len(keys))]
        requests = max(count, min(requests, _MAX_REQUESTS))
        return self.with_items([keys[place % count] for place in range(requests)])


@dataclass(frozen=True)
class DecisiveTest:
    """Smallest longer test that decides all SLOs of a query if its requests are like those of a sample."""

    items: int
    """Number of distinct items."""
    duration_s: float | None
    """Measured seconds; None if no test with the items at hand decides."""


def decisive_test(
    sample: RequestSample,
    query: Query,
    score_range: tuple[float, float],
    duration_s: float,
    available: int,
    items_of_test: ItemsOfTest,
) -> DecisiveTest | None:
    """Return the test that decides all SLOs; None if they are decided, or if very many requests would not do.

    The duration is that of a test with the same seed, of which arrivals and items are drawn: requests repeat items, so
    that the number of distinct items grows more slowly than that of requests.

    Args:
        sample: requests of a test.
        query: query with its SLOs and its risk.
        score_range: minimum and maximum score.
        duration_s: measured seconds of the test.
        available: number of items that there are to send.
        items_of_test: items of longer tests.
    """

    slos = query.slos.by_kind

    def decides(longer: RequestSample, kinds: Collection[SloKind]) -> bool:
        intervals = longer.intervals(query, score_range)
        return all(SloVerdict.of(slos[kind], intervals.get(kind)) != SloVerdict.UNSURE for kind in kinds)

    def decides_within(steps: int) -> bool:
        items = items_of_test(query.name, steps * _STEP_S)
        return bool(items) and decides(sample.with_items(items), slos)

    if not sample.items or decides(sample, slos):
        return None
    factor = min(_MAX_FACTOR, _MAX_REQUESTS / len(sample.items))
    limit = math.floor(factor * duration_s / _STEP_S)
    steps = _smallest(decides_within, math.floor(duration_s / _STEP_S), limit)
    if steps is not None:
        return DecisiveTest(len(set(items_of_test(query.name, steps * _STEP_S))), steps * _STEP_S)
    distinct = len(set(sample.items))
    longest = items_of_test(query.name, limit * _STEP_S) if limit else ()
    if max(distinct, len(set(longest))) < available:
        return None
    if SloKind.COST in slos and not decides(sample, [SloKind.COST]):
        return None
    by_items = [kind for kind in slos if kind is not SloKind.COST]  # the cost varies with requests, not items
    count = _smallest(lambda n: decides(sample.with_item_count(n), by_items), available, _MAX_FACTOR * distinct)
    return None if count is None else DecisiveTest(count, None)


def _smallest(holds: Callable[[int], bool], above: int, limit: int) -> int | None:
    """Return about the smallest number above `above` for which a condition holds, if it holds for all larger ones.

    Returns:
        The number; None if the condition does not hold for `limit`.
    """
    number = min(above + 1, limit)
    while above < limit and not holds(number):
        above, number = number, min(2 * number, limit)
    if above >= limit:
        return None
    while number - above > max(1, number // _PRECISION):
        middle = (above + number) // 2
        above, number = (above, middle) if holds(middle) else (middle, number)
    return number
