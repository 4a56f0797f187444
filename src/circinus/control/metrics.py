"""What a controller tells Prometheus."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any

from circinus.control.drift.audit_scores import AuditScore
from circinus.control.ladders.policy import LadderState
from circinus.control.managed_plans import ManagedPlans
from circinus.control.state_store import Event
from circinus.errors import ServingError
from circinus.estimation.estimator import DEFAULT_PERCENTILE
from circinus.serving import EngineStatus

_PERCENTILES = (50, 95, 99)
_AUDITS = 100
"""Of a query whose mean score is told."""


class ControlMetrics:
    """Served over HTTP for as long as the process lives."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        """Begin to serve.

        Raises:
            ServingError: the client library is not installed, or the port is taken.
        """
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server
        except ImportError as error:
            raise ServingError(
                f"metrics need the Prometheus client ({error})",
                code="control.no_metrics_client",
                hint="Run `pip install 'circinus-planner[metrics]'`.",
            ) from error
        registry = CollectorRegistry()

        self._series: list[_Series] = []

        def gauge(name: str, about: str, *labels: str) -> _Series:
            self._series.append(_Series(Gauge(f"circinus_{name}", about, labels, registry=registry)))
            return self._series[-1]

        self._requests = gauge("requests", "Requests so far", "query", "what")
        self._within = gauge("within_slo_ratio", "Share of the last requests answered in time", "query")
        self._latency = gauge("latency_seconds", "Of the last answers", "query", "percentile")
        self._predicted = gauge("predicted_latency_seconds", "At the objective's percentile", "query", "percentile")
        self._rung = gauge("rung", "Of the query's ladder; 0 is the top", "query")
        self._below = gauge("rungs_below_plan", "How far a query is stepped down", "query")
        self._queue = gauge("queue_length", "Requests that wait at a deployment", "deployment")
        self._replicas = gauge("replicas", "Of a deployment", "deployment", "what")
        self._price = gauge("resource_price", "What one more unit would be worth, in USD per hour", "resource")
        self._goodput = gauge("goodput_weight", "Weight of the queries whose last requests were in time")
        self._audits = Counter("circinus_audits", "Answers that were audited", ("query", "against"), registry=registry)
        self._score = gauge("audited_score", "Mean of the last that were audited", "query")
        self._scores: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_AUDITS))
        self._events = Counter("circinus_events", "What the controller did", ("kind", "why"), registry=registry)
        try:
            start_http_server(port, address, registry=registry)
        except OSError as error:
            raise ServingError(
                f"metrics cannot be served: {error}",
                code="control.metrics_port",
                location=f"{address}:{port}",
                hint="Choose another port.",
            ) from error

    def event(self, event: Event) -> None:
        """One more."""
        self._events.labels(event.kind, event.details.get("why", "")).inc()

    def audited(self, scores: Sequence[AuditScore]) -> None:
        """Answers that were held against something."""
        for one in scores:
            self._audits.labels(one.query, "truth" if one.reference is None else "answer").inc()
            self._scores[one.query].append(one.score)

    def observe(self, status: EngineStatus, controlled: ManagedPlans, ladders: Mapping[str, LadderState]) -> None:
        """As things are now; what is not any more is not told any more."""
        goodput = 0.0
        for found in status.queries:
            query = controlled.queries.get(found.query)
            if query is None:
                continue
            counts = {"entered": found.received, "answered": found.answered, "failed": found.failed}
            for kind, count in counts.items():
                self._requests.set(count, found.query, kind)
            ordered = sorted(found.recent_latency_s)
            for share in _PERCENTILES if ordered else ():
                place = min(len(ordered) - 1, int(len(ordered) * share / 100))
                self._latency.set(ordered[place], found.query, str(share))
            ended, latency = len(ordered) + found.recent_failed, query.slos.latency
            if ended:
                limit_s, percentile = (
                    (math.inf, DEFAULT_PERCENTILE) if latency is None else (latency.limit_s, latency.percentile)
                )
                within = sum(seconds <= limit_s for seconds in ordered) / ended
                self._within.set(within, found.query)
                goodput += query.weight if within >= percentile / 100 else 0.0
        self._goodput.set(goodput)
        for name in self._scores.keys() - controlled.queries.keys():
            del self._scores[name]
        for name, scores in self._scores.items():
            self._score.set(sum(scores) / len(scores), name)
        for name, state in ladders.items():
            estimate = controlled.rungs[name][state.rung].candidate.estimate
            self._rung.set(state.rung, name)
            self._below.set(state.rung - state.chosen, name)
            self._predicted.set(estimate.latency_s.value, name, f"{estimate.percentile:g}")
        for price in controlled.matching.prices:
            self._price.set(price.saving_usd_per_h, price.resource)
        for deployment in status.deployments:
            name = deployment.deployment.name
            self._queue.set(deployment.queue_length, name)
            self._replicas.set(deployment.replicas_wanted, name, "wanted")
            self._replicas.set(deployment.replicas_ready, name, "ready")
        for series in self._series:
            series.sweep()


class _Series:
    """One metric, of which only what was set since the last sweep goes on."""

    def __init__(self, gauge: Any) -> None:
        self._gauge = gauge
        self._known: set[tuple[str, ...]] = set()
        self._set: set[tuple[str, ...]] = set()

    def set(self, value: float, *labels: str) -> None:
        """For some values of the labels."""
        (self._gauge.labels(*labels) if labels else self._gauge).set(value)
        self._set.add(labels)

    def sweep(self) -> None:
        """Forget the others."""
        for labels in self._known - self._set:
            self._gauge.remove(*labels)
        self._known, self._set = self._set, set()
