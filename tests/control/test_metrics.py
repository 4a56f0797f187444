"""What Prometheus is told."""

from __future__ import annotations

import socket
from dataclasses import replace
from urllib.request import urlopen

import pytest

from circinus.control.drift.audit_scores import AuditScore
from circinus.control.metrics import ControlMetrics
from circinus.control.records import REPLAN, Event
from circinus.serving import DeploymentStatus, EngineStatus, Mode
from circinus.serving.engine import QueryStatus
from controlled_plans import planned

pytest.importorskip("prometheus_client")


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _page(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as opened:
        return str(opened.read().decode())


def test_queries_and_deployments_that_are_gone_are_not_told_of(port: int) -> None:
    metrics = ControlMetrics(port)
    controlled, _ = planned(3)
    served = controlled.matching.assignments
    status = EngineStatus(
        Mode.REAL,
        tuple(DeploymentStatus(d.deployment, d.replicas, d.replicas, 2, 0, 0) for d in controlled.deployments),
        (),
        queries=tuple(QueryStatus(a.query, 10, 9, 1, (0.001,) * 9) for a in served),
    )

    first, *others = [a.query for a in served]
    metrics.audited(
        [AuditScore(name, "p", "i", "c", score, None, 1.0) for name in (first, others[0]) for score in (0.5, 1.0)]
    )
    metrics.observe(status, controlled, controlled.at_first())
    metrics.event(Event(1.0, REPLAN, "plans", "edge has 0 of 4 nodes", {"why": "nodes"}))
    text = _page(port)
    assert f'circinus_audited_score{{query="{first}"}} 0.75' in text
    assert f'circinus_audited_score{{query="{others[0]}"}} 0.75' in text
    assert f'circinus_requests{{query="{first}",what="failed"}} 1.0' in text
    assert f'circinus_requests{{query="{others[0]}",what="answered"}} 9.0' in text
    assert 'circinus_events_total{kind="replan",why="nodes"} 1.0' in text
    gone = controlled.deployments[-1].deployment.name
    assert f'deployment="{gone}"' in text
    fewer = replace(controlled, matching=replace(controlled.matching, assignments=served[:1]))
    metrics.observe(
        replace(status, queries=status.queries[:1], deployments=status.deployments[:-1]), fewer, fewer.at_first()
    )
    text = _page(port)
    assert f'query="{first}"' in text
    assert f'circinus_audited_score{{query="{first}"}} 0.75' in text
    gauges = [line for line in text.splitlines() if not line.startswith("circinus_audits_")]  # a counter goes on
    assert not any(f'query="{others[0]}"' in line for line in gauges)
    assert f'deployment="{gone}"' not in text
