"""Canary analysis: detection of regressions under new plans."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from circinus.control.settings import CanarySettings
from circinus.serving import EngineStatus
from circinus.serving.engine import QueryStatus
from circinus.specification import Query


@dataclass(frozen=True)
class CanaryBaseline:
    """Counters of one query under the previous plans, or at its first report during the analysis."""

    received: int
    completed: int
    failed: int
    met_slo: bool
    """True if the most recent answers met the latency SLO."""

    @classmethod
    def of(cls, status: QueryStatus, query: Query) -> CanaryBaseline:
        """Return the baseline from a query's current status."""
        latency = query.slos.latency
        met_slo = latency is None or latency.fraction_within(status.recent_latency_s) >= latency.percentile / 100
        return cls(status.received, status.completed, status.failed, met_slo)

    @property
    def failed_share(self) -> float:
        """Share of ended requests that failed."""
        return self.failed / max(1, self.completed + self.failed)


@dataclass(frozen=True)
class CanaryAnalysis:
    """Canary analysis of deployed plans."""

    begin_s: float
    """Time of deployment."""
    baselines: Mapping[str, CanaryBaseline]
    """Baseline by query. A query that was not reported at deployment, because a part of the engine was too busy to
    answer, is added at its first report, so that failures under the previous plans do not count."""

    @classmethod
    def begin(cls, now_s: float, status: EngineStatus, queries: Mapping[str, Query]) -> CanaryAnalysis:
        """Start the analysis at the first poll after deployment."""
        reported = (entry for entry in status.queries if entry.query in queries)
        return cls(now_s, {entry.query: CanaryBaseline.of(entry, queries[entry.query]) for entry in reported})

    def observed(self, status: EngineStatus, queries: Mapping[str, Query], settings: CanarySettings) -> CanaryAnalysis:
        """Return the analysis with the baselines of queries that are reported for the first time."""
        baselines = {}
        for entry in status.queries:
            if entry.query in queries and entry.query not in self.baselines:
                baseline = CanaryBaseline.of(entry, queries[entry.query])
                is_sparse = len(entry.recent_latency_s) < settings.min_answers  # too few to judge, as for a new query
                baselines[entry.query] = replace(baseline, met_slo=baseline.met_slo or is_sparse)
        return replace(self, baselines={**self.baselines, **baselines}) if baselines else self

    def is_complete(self, now_s: float, settings: CanarySettings) -> bool:
        """Return whether the analysis has lasted long enough."""
        return now_s - self.begin_s >= settings.duration_s

    def regression_reason(
        self,
        status: EngineStatus,
        queries: Mapping[str, Query],
        incomparable: Collection[str],
        settings: CanarySettings,
    ) -> str | None:
        """Return the reason to roll back to the previous plans, or None to keep the new ones.

        Args:
            status: current status.
            queries: the planned queries.
            incomparable: queries whose latency is not compared, as they exceed their planned rate, or as their requests
                waited for the deployment.
            settings: thresholds.
        """
        for entry in status.queries:
            baseline, query = self.baselines.get(entry.query), queries.get(entry.query)
            if query is None or baseline is None:  # no longer served, or not reported before
                continue
            if entry.received < baseline.received:  # the engine was restarted
                continue
            reason = _failure_reason(baseline, entry, settings)
            if not reason and entry.query not in incomparable:
                reason = _latency_reason(baseline, entry, query, settings)
            if reason:
                return f"query {entry.query}: {reason}"
        return None


def _failure_reason(baseline: CanaryBaseline, now: QueryStatus, settings: CanarySettings) -> str | None:
    failed = now.failed - baseline.failed
    completed = failed + now.completed - baseline.completed
    max_share = max(settings.max_failed_share, settings.max_failure_ratio * baseline.failed_share)
    if failed < settings.min_failures or failed <= max_share * completed:
        return None
    return f"{failed} of {completed} requests failed"


def _latency_reason(baseline: CanaryBaseline, now: QueryStatus, query: Query, settings: CanarySettings) -> str | None:
    latency, completed = query.slos.latency, now.completed - baseline.completed
    recent_s = now.recent_latency_s[-completed:] if completed > 0 else ()
    if latency is None or not baseline.met_slo or len(recent_s) < settings.min_answers:
        return None
    share = latency.fraction_within(recent_s)
    upper_bound = share + 2.0 * math.sqrt(max(share * (1.0 - share), 0.25 / len(recent_s)) / len(recent_s))
    if upper_bound >= latency.percentile / 100 - settings.latency_margin:
        return None
    return (
        f"{100 * share:.0f} % of the last {len(recent_s)} requests within {latency.limit_s:.3g} s "
        f"instead of the guaranteed {latency.percentile:g} %"
    )
