"""What Prometheus is told."""

from __future__ import annotations

import socket
from dataclasses import replace
from urllib.request import urlopen

import pytest

from circinus.control.metrics import ControlMetrics
from circinus.control.records import REPLAN, Event
from circinus.serving import DeploymentStatus, EngineStatus, Mode
from circinus.serving.engine import QueryStatus
from controlled_plans import planned

pytest.importorskip("prometheus_client")


def test_queries_and_deployments_that_are_gone_are_not_told_of() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    metrics = ControlMetrics(port)
    controlled, _ = planned(3)
    served = controlled.matching.assignments
    status = EngineStatus(
        Mode.REAL,
        tuple(DeploymentStatus(d.deployment, d.replicas, d.replicas, 2, 0, 0) for d in controlled.deployments),
        (),
        queries=tuple(QueryStatus(a.query, 10, 9, 1, (0.001,) * 9) for a in served),
    )

    def page() -> str:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as opened:
            return str(opened.read().decode())

    metrics.observe(status, controlled, controlled.at_first())
    metrics.event(Event(1.0, REPLAN, "plans", "edge has 0 of 4 nodes", {"why": "nodes"}))
    text = page()
    first, *others = [a.query for a in served]
    assert f'circinus_requests{{query="{first}",what="failed"}} 1.0' in text
    assert f'circinus_requests{{query="{others[0]}",what="answered"}} 9.0' in text
    assert 'circinus_events_total{kind="replan",why="nodes"} 1.0' in text
    gone = controlled.deployments[-1].deployment.name
    assert f'deployment="{gone}"' in text
    fewer = replace(controlled, matching=replace(controlled.matching, assignments=served[:1]))
    metrics.observe(
        replace(status, queries=status.queries[:1], deployments=status.deployments[:-1]), fewer, fewer.at_first()
    )
    text = page()
    assert f'query="{first}"' in text
    assert f'query="{others[0]}"' not in text
    assert f'deployment="{gone}"' not in text
