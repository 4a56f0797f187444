"""New plans on trial: whether they do worse than those before, so that these come back."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from circinus.serving import EngineStatus
from circinus.serving.engine import QueryStatus
from circinus.specification import Query


@dataclass(frozen=True)
class CanarySettings:
    """When new plans are taken back."""

    lasts_s: float = 15.0
    """How long they are on trial once they are in force."""
    most_failed: float = 0.1
    """Share of a query's requests that may fail meanwhile."""
    failed_times: float = 3.0
    """Times as many as before may fail: some queries get requests that no plan can answer."""
    least_failures: int = 5
    """Fewer tell nothing."""
    least_answers: int = 20
    """Fewer do not tell how long they take."""
    late_margin: float = 0.1
    """Surely by so much less than promised must be in time, where the plan before kept its promise."""


@dataclass(frozen=True)
class CanaryBaseline:
    """One query under the plans before, or when it was first told during the trial."""

    entered: int
    answered: int
    failed: int
    met_slo: bool
    """Whether its last answers kept the latency objective."""

    @classmethod
    def of(cls, status: QueryStatus, query: Query) -> CanaryBaseline:
        """As it is now."""
        latency, recent_s = query.slos.latency, status.recent_latency_s
        kept = latency is None or not recent_s or _within(recent_s, latency.limit_s) >= latency.percentile / 100
        return cls(status.received, status.answered, status.failed, kept)

    @property
    def failed_share(self) -> float:
        """Of all that ended."""
        return self.failed / max(1, self.answered + self.failed)


@dataclass
class CanaryAnalysis:
    """Plans that came into force."""

    begin_s: float
    """When they did."""
    before: dict[str, CanaryBaseline]
    """Query -> how it was then. One that was not told then is added when it is: a part of the engine may have been too
    busy to answer, and what it counted under the plans before is not held against these."""

    @classmethod
    def begin(cls, now_s: float, status: EngineStatus, queries: Mapping[str, Query]) -> CanaryAnalysis:
        """From the first look at the engine at which they are in force."""
        told = (found for found in status.queries if found.query in queries)
        return cls(now_s, {found.query: CanaryBaseline.of(found, queries[found.query]) for found in told})

    def is_complete(self, now_s: float, settings: CanarySettings) -> bool:
        """Whether they have proved themselves, if nothing was against them."""
        return now_s - self.begin_s >= settings.lasts_s

    def regression_reason(
        self, status: EngineStatus, queries: Mapping[str, Query], busier: Collection[str], settings: CanarySettings
    ) -> str:
        """Why the plans before should come back; empty: nothing is against the new ones.

        Args:
            status: of the engine.
            queries: that are served.
            busier: queries whose requests come more often than was planned for: that they are late is no wonder.
            settings: when that is.
        """
        for found in status.queries:
            before, query = self.before.get(found.query), queries.get(found.query)
            if query is None:  # it is not served any more
                continue
            if before is None:
                before = CanaryBaseline.of(found, query)
                few = len(found.recent_latency_s) < settings.least_answers  # as of a query that is new
                self.before[found.query] = replace(before, met_slo=before.met_slo or few)
                continue
            if found.received < before.entered:  # the engine was started anew
                continue
            reason = _failing(before, found, settings)
            if not reason and found.query not in busier:
                reason = _late(before, found, query, settings)
            if reason:
                return f"query {found.query}: {reason}"
        return ""


def _failing(before: CanaryBaseline, now: QueryStatus, settings: CanarySettings) -> str:
    failed = now.failed - before.failed
    ended = failed + now.answered - before.answered
    most = max(settings.most_failed, settings.failed_times * before.failed_share)
    if failed < settings.least_failures or failed <= most * ended:
        return ""
    return f"{failed} of {ended} requests failed"


def _late(before: CanaryBaseline, now: QueryStatus, query: Query, settings: CanarySettings) -> str:
    latency, answers = query.slos.latency, now.answered - before.answered
    recent_s = now.recent_latency_s[-answers:] if answers > 0 else ()
    if latency is None or not before.met_slo or len(recent_s) < settings.least_answers:
        return ""
    share = _within(recent_s, latency.limit_s)
    surely = share + 2.0 * math.sqrt(max(share * (1.0 - share), 0.25 / len(recent_s)) / len(recent_s))
    if surely >= latency.percentile / 100 - settings.late_margin:
        return ""
    return (
        f"{100 * share:.0f} % of the last {len(recent_s)} answers within {latency.limit_s:.3g} s, "
        f"promised {latency.percentile:g} %"
    )


def _within(latency_s: Collection[float], limit_s: float) -> float:
    return sum(seconds <= limit_s for seconds in latency_s) / len(latency_s)
