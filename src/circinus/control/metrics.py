"""Prometheus metrics of the controller."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from circinus.control.drift.audit_scores import AuditScore
from circinus.control.ladders.policy import LadderState
from circinus.control.managed_plans import ManagedPlans
from circinus.control.state_store import Event
from circinus.errors import ServingError
from circinus.serving import EngineStatus
from circinus.serving.http_answers import HttpAnswer, rejection
from circinus.serving.http_tokens import ALL_TENANTS, HttpTokens, may_use
from circinus.serving.local.http_server import HttpServer

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_PERCENTILES = (50, 95, 99)
_SCORE_WINDOW = 100
"""Number of audited answers in the mean score of a query."""


class ControlMetrics:
    """Prometheus endpoint that serves metrics until it is closed."""

    def __init__(self, registry: CollectorRegistry, server: HttpServer) -> None:
        from prometheus_client import Counter, Gauge

        self._series: list[_Series] = []

        def gauge(name: str, documentation: str, *labels: str) -> _Series:
            self._series.append(_Series(Gauge(f"circinus_{name}", documentation, labels, registry=registry)))
            return self._series[-1]

        self._requests = gauge("requests", "Number of requests", "query", "what")
        self._within = gauge("within_slo_ratio", "Share of recent requests answered within the latency limit", "query")
        self._latency = gauge("latency_seconds", "Latency of recent answers", "query", "percentile")
        self._predicted = gauge(
            "predicted_latency_seconds", "Predicted latency at the SLO's percentile", "query", "percentile"
        )
        self._rung = gauge("rung", "Current rung of the query's ladder; 0 is the top", "query")
        self._below = gauge("rungs_below_plan", "Number of rungs below the planned one", "query")
        self._queue = gauge("queue_length", "Number of queued requests, or elements of requests", "deployment")
        self._runs = gauge("runs", "Number of requests, or elements of requests, so far", "deployment")
        self._replicas = gauge("replicas", "Number of replicas", "deployment", "what")
        self._price = gauge("resource_price", "Saving by one more unit of the resource, in USD per hour", "resource")
        self._goodput = gauge("goodput_weight", "Total weight of the queries that meet their latency SLO")
        self._audits = Counter("circinus_audits", "Number of audited answers", ("query", "against"), registry=registry)
        self._score = gauge("audited_score", "Mean score of recent audits", "query")
        self._scores: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_SCORE_WINDOW))
        self._events = Counter("circinus_events", "Number of controller events", ("kind", "why"), registry=registry)
        self._server = server
        self.port = server.port
        """Port of the endpoint."""

    @classmethod
    async def open(cls, port: int, address: str = "127.0.0.1", tokens: HttpTokens | None = None) -> ControlMetrics:
        """Serve metrics on the running event loop.

        Args:
            port: port; 0 stands for a free one.
            address: address to listen at.
            tokens: tokens, of which each request needs one for all queries; by default none.

        Raises:
            ServingError: the client library is not installed, or the port is in use.
        """
        try:
            from prometheus_client import CollectorRegistry
        except ImportError as error:
            raise ServingError(
                f"the Prometheus client is not installed: {error}",
                code="control.no_metrics_client",
                hint="Run `pip install 'circinus-planner[metrics]'`.",
            ) from error
        registry = CollectorRegistry()
        try:
            server = await HttpServer.open(partial(_answer, registry, tokens or HttpTokens()), address, port)
        except OSError as error:
            raise ServingError(
                f"cannot serve metrics: {error.strerror or error}",
                code="control.metrics_port",
                location=f"{address}:{port}",
                hint="Choose another port.",
            ) from error
        return cls(registry, server)

    async def close(self) -> None:
        """End the endpoint, so that the port is free."""
        await self._server.close()

    def event(self, event: Event) -> None:
        self._events.labels(event.kind, event.details.get("why", "")).inc()

    def audited(self, scores: Sequence[AuditScore]) -> None:
        """Record the scores of audited answers."""
        for score in scores:
            self._audits.labels(score.query, "truth" if score.reference is None else "answer").inc()
            self._scores[score.query].append(score.score)

    def observe(self, status: EngineStatus, controlled: ManagedPlans, ladders: Mapping[str, LadderState]) -> None:
        """Update all gauges from the current state; remove the series of queries and deployments that are gone."""
        goodput = 0.0
        for entry in status.queries:
            query = controlled.queries.get(entry.query)
            if query is None:
                continue
            counts = {"entered": entry.received, "answered": entry.answered, "failed": entry.failed}
            counts["dropped"] = entry.dropped
            for kind, count in counts.items():
                self._requests.set(count, entry.query, kind)
            ordered = sorted(entry.recent_latency_s)
            for share in _PERCENTILES if ordered else ():
                index = min(len(ordered) - 1, int(len(ordered) * share / 100))
                self._latency.set(ordered[index], entry.query, str(share))
            completed, latency = len(ordered) + entry.recent_failed, query.slos.latency
            if completed:
                answered_share = len(ordered) / completed
                within = answered_share if latency is None else latency.fraction_within(ordered, entry.recent_failed)
                self._within.set(within, entry.query)
                goodput += query.weight if within >= query.slos.percentile / 100 else 0.0
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
            self._runs.set(deployment.requests, name)
            self._replicas.set(deployment.target_replicas, name, "wanted")
            self._replicas.set(deployment.replicas_ready, name, "ready")
        for series in self._series:
            series.sweep()


async def _answer(
    registry: CollectorRegistry, tokens: HttpTokens, method: str, path: str, headers: Mapping[str, str], *_: object
) -> HttpAnswer:
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    if not may_use(tokens.tenants(headers), ALL_TENANTS):
        return rejection(403, "the token is of one tenant, and the metrics are of all. Send one for all queries (`*`).")
    if method not in ("GET", "HEAD"):
        return rejection(405, f"method {method} is not allowed. Send GET.", {"allow": "GET, HEAD"})
    if path != "/metrics":
        return rejection(404, "the metrics are at /metrics")
    return HttpAnswer(200, CONTENT_TYPE_LATEST, generate_latest(registry))


class _Series:
    """Gauge that drops label values which were not set since the last sweep."""

    def __init__(self, gauge: Any) -> None:
        self._gauge = gauge
        self._previous: set[tuple[str, ...]] = set()
        self._current: set[tuple[str, ...]] = set()

    def set(self, value: float, *labels: str) -> None:
        (self._gauge.labels(*labels) if labels else self._gauge).set(value)
        self._current.add(labels)

    def sweep(self) -> None:
        """Remove label values that were not set since the last sweep."""
        for labels in self._previous - self._current:
            self._gauge.remove(*labels)
        self._previous, self._current = self._current, set()
