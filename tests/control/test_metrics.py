"""Tests of the Prometheus endpoint."""

from __future__ import annotations

import asyncio
import http.client
import math
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from functools import wraps

import pytest

from budget import HANG_LIMIT_S
from circinus.control.drift.audit_scores import AuditScore
from circinus.control.metrics import ControlMetrics
from circinus.control.state_store import Event, EventKind
from circinus.errors import ServingError
from circinus.serving import DeploymentStatus, EngineStatus, Mode
from circinus.serving.counters import RequestCounters
from circinus.serving.engine import QueryStatus
from circinus.serving.http_tokens import HttpTokens
from circinus.specification import LatencySlo, Slos
from managed_plans import planned
from raised import raises_code

IN_TIME = Slos(latency=LatencySlo(limit_s=0.1, percentile=90.0))

pytest.importorskip("prometheus_client")


def in_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run a test in an event loop of its own."""

    @wraps(test)
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), HANG_LIMIT_S))

    return run


async def _page(port: int) -> str:
    status, page = await asyncio.to_thread(_get, port)
    assert status == 200
    return page


def _get(port: int, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_LIMIT_S)
    with closing(connection):
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()


@in_loop
async def test_queries_whose_requests_fail_are_not_in_time() -> None:
    """Failures count even after many answers in time, with a latency SLO or without."""
    metrics = await ControlMetrics.open(0)
    controlled, _ = planned(3)
    first, second, *_ = served = [a.query for a in controlled.matching.assignments]
    weights = {name: query.weight for name, query in controlled.queries.items()}
    specification = replace(
        controlled.specification,
        queries=tuple(
            query.model_copy(update={"slos": Slos() if query.name == second else IN_TIME})
            for query in controlled.specification.queries
        ),
    )
    controlled, counts = replace(controlled, specification=specification), RequestCounters()

    def come(name: str, answered: int, failed: int) -> None:
        for _ in range(answered + failed):
            counts.entered(name)
        for _ in range(answered):
            counts.answered(name, 0.001)
        for _ in range(failed):
            counts.failed(name)

    async def observed() -> dict[str, float]:
        metrics.observe(
            EngineStatus(Mode.REAL, (), (), queries=counts.status()), controlled, controlled.initial_ladder_states()
        )
        lines = [line.rpartition(" ") for line in (await _page(metrics.port)).splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    for name in served:
        come(name, 50, 1)
    page = await observed()
    for name in served:
        assert page[f'circinus_within_slo_ratio{{query="{name}"}}'] == pytest.approx(50 / 51)
    assert page["circinus_goodput_weight"] == pytest.approx(sum(weights[name] for name in served))
    come(first, 0, 49)
    page = await observed()
    assert page[f'circinus_within_slo_ratio{{query="{first}"}}'] == 0.5
    assert page["circinus_goodput_weight"] == pytest.approx(sum(weights[name] for name in served if name != first))
    come(second, 0, 1000)
    page = await observed()
    assert page[f'circinus_within_slo_ratio{{query="{second}"}}'] == 0.0
    both = {first, second}
    assert page["circinus_goodput_weight"] == pytest.approx(sum(weights[name] for name in served if name not in both))


@in_loop
async def test_queries_and_deployments_that_are_gone_are_not_told_of() -> None:
    metrics = await ControlMetrics.open(0)
    controlled, _ = planned(3)
    served = controlled.matching.assignments
    status = EngineStatus(
        Mode.REAL,
        tuple(DeploymentStatus(d.deployment, d.replicas, d.replicas, 2, 0, 0) for d in controlled.deployments),
        (),
        queries=tuple(QueryStatus(a.query, 13, 9, 1, (0.001,) * 9 + (math.inf,) * 3, dropped=3) for a in served),
    )

    first, *others = [a.query for a in served]
    metrics.audited(
        [AuditScore(name, "p", "i", "c", score, None, 1.0) for name in (first, others[0]) for score in (0.5, 1.0)]
    )
    metrics.observe(status, controlled, controlled.initial_ladder_states())
    metrics.event(Event(1.0, EventKind.REPLAN, "plans", "edge has 0 of 4 nodes", {"why": "nodes"}))
    text = await _page(metrics.port)
    assert f'circinus_audited_score{{query="{first}"}} 0.75' in text
    assert f'circinus_audited_score{{query="{others[0]}"}} 0.75' in text
    assert f'circinus_requests{{query="{first}",what="failed"}} 1.0' in text
    assert f'circinus_requests{{query="{others[0]}",what="answered"}} 9.0' in text
    assert f'circinus_requests{{query="{others[0]}",what="dropped"}} 3.0' in text
    assert 'circinus_events_total{kind="replan",why="nodes"} 1.0' in text
    gone = controlled.deployments[-1].deployment.name
    assert f'deployment="{gone}"' in text
    fewer = replace(controlled, matching=replace(controlled.matching, assignments=served[:1]))
    metrics.observe(
        replace(status, queries=status.queries[:1], deployments=status.deployments[:-1]),
        fewer,
        fewer.initial_ladder_states(),
    )
    text = await _page(metrics.port)
    assert f'query="{first}"' in text
    assert f'circinus_audited_score{{query="{first}"}} 0.75' in text
    gauges = [line for line in text.splitlines() if not line.startswith("circinus_audits_")]  # counters stay
    assert not any(f'query="{others[0]}"' in line for line in gauges)
    assert f'deployment="{gone}"' not in text


@in_loop
async def test_a_port_in_use_is_an_error_that_names_it() -> None:
    metrics = await ControlMetrics.open(0)
    with raises_code(ServingError, "control.metrics_port") as caught:
        await ControlMetrics.open(metrics.port)
    assert caught.value.location == f"127.0.0.1:{metrics.port}"
    await metrics.close()
    await (await ControlMetrics.open(metrics.port)).close()


@in_loop
async def test_metrics_are_of_no_use_to_strangers() -> None:
    everyone, tenant = "a" * 32, "t" * 32
    metrics = await ControlMetrics.open(0, tokens=HttpTokens.parse(f"* {everyone}\nacme {tenant}", "test"))
    valid = {"authorization": f"Bearer {everyone}"}
    for expected, request in (
        (200, valid),
        (401, {}),
        (401, {"authorization": f"Bearer {everyone}x"}),
        (403, {"authorization": f"Bearer {tenant}"}),
        (403, {**valid, "origin": "http://page.example"}),
        (403, {**valid, "host": "page.example"}),
        (404, {**valid, "path": "/<script>"}),
        (404, {**valid, "path": "/metrics/../etc/passwd"}),
        (405, {**valid, "method": "POST"}),
        (405, {**valid, "method": "DELETE"}),
    ):
        status, page = await asyncio.to_thread(_get, metrics.port, **request)
        assert status == expected, request
        assert ("circinus_goodput_weight" in page) == (status == 200)
    await metrics.close()


@in_loop
async def test_markup_in_a_name_stays_within_its_label() -> None:
    metrics = await ControlMetrics.open(0)
    metrics.event(Event(1.0, EventKind.REPLAN, "plans", "", {"why": 'a"} 1\n<script>'}))
    text = await _page(metrics.port)
    assert 'why="a\\"} 1\\n<script>"' in text
    await metrics.close()
