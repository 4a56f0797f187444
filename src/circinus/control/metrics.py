"""What a controller tells Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circinus.control.controlled import Controlled
from circinus.control.ladder_policy import LadderState
from circinus.control.records import Event
from circinus.errors import ServingError
from circinus.serving import EngineStatus

_PERCENTILES = (50, 95, 99)


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
                f"metrics need the Prometheus client: pip install 'circinus-planner[metrics]' ({error})"
            ) from error
        registry = CollectorRegistry()

        def gauge(name: str, about: str, *labels: str) -> Any:
            return Gauge(f"circinus_{name}", about, labels, registry=registry)

        self._requests = gauge("requests", "Requests so far", "query", "what")
        self._within = gauge("within_slo_ratio", "Share of the last answers within the latency objective", "query")
        self._latency = gauge("latency_seconds", "Of the last answers", "query", "percentile")
        self._predicted = gauge("predicted_latency_seconds", "At the objective's percentile", "query", "percentile")
        self._rung = gauge("rung", "Of the query's ladder; 0 is the top", "query")
        self._below = gauge("rungs_below_plan", "How far a query is stepped down", "query")
        self._queue = gauge("queue_length", "Requests that wait at a deployment", "deployment")
        self._replicas = gauge("replicas", "Of a deployment", "deployment", "what")
        self._price = gauge("resource_price", "What one more unit would be worth, in USD per hour", "resource")
        self._goodput = gauge("goodput_weight", "Weight of the queries whose last answers keep their latency objective")
        self._events = Counter("circinus_events", "What the controller did", ("kind", "why"), registry=registry)
        try:
            start_http_server(port, address, registry=registry)
        except OSError as error:
            raise ServingError(f"metrics cannot be served on {address}:{port}: {error}; choose another port") from error

    def event(self, event: Event) -> None:
        """One more."""
        self._events.labels(event.kind, event.details.get("why", "")).inc()

    def observe(self, status: EngineStatus, controlled: Controlled, ladders: Mapping[str, LadderState]) -> None:
        """As things are now."""
        goodput = 0.0
        for found in status.queries:
            query = controlled.queries.get(found.query)
            if query is None:
                continue
            self._requests.labels(found.query, "entered").set(found.entered)
            self._requests.labels(found.query, "answered").set(found.answered)
            self._requests.labels(found.query, "failed").set(found.failed)
            ordered = sorted(found.recent_latency_s)
            for percentile in _PERCENTILES:
                if ordered:
                    place = min(len(ordered) - 1, int(len(ordered) * percentile / 100))
                    self._latency.labels(found.query, percentile).set(ordered[place])
            latency = query.slos.latency
            if latency is not None and ordered:
                within = sum(seconds <= latency.limit_s for seconds in ordered) / len(ordered)
                self._within.labels(found.query).set(within)
                goodput += query.weight if within >= latency.percentile / 100 else 0.0
        self._goodput.set(goodput)
        for name, state in ladders.items():
            estimate = controlled.rungs[name][state.rung].candidate.estimate
            self._rung.labels(name).set(state.rung)
            self._below.labels(name).set(state.rung - state.chosen)
            self._predicted.labels(name, f"{estimate.percentile:g}").set(estimate.latency_s.value)
        for price in controlled.matching.prices:
            self._price.labels(price.resource).set(price.saving_usd_per_h)
        for deployment in status.deployments:
            name = deployment.deployment.name
            self._queue.labels(name).set(deployment.queue_length)
            self._replicas.labels(name, "wanted").set(deployment.replicas_wanted)
            self._replicas.labels(name, "ready").set(deployment.replicas_ready)
