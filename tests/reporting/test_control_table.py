"""Status table of an engine."""

from __future__ import annotations

import re

from printed import printed

from circinus.estimation import ReplicaDemand
from circinus.matching import SizedDeployment
from circinus.reporting.control_table import deployment_changes, status_table
from circinus.serving import DeploymentStatus, EngineStatus, Mode
from circinus.serving.engine import PartStatus, SplitStatus
from circinus.specification import Allocation, Deployment, KnobValues

_DEMAND = ReplicaDemand(1.0, 1.0, 0.0, 0.0, 0.0)


def _status(operator: str, startup_s: float | None, message: str = "a replica was killed") -> DeploymentStatus:
    deployment = Deployment("p", operator, KnobValues(), "edge", Allocation(1.0, 1, 0.5))
    return DeploymentStatus(deployment, 2, 1, 3, 4, 5, message, startup_s=startup_s)


def test_it_says_how_long_replicas_took_to_start() -> None:
    shown = printed(status_table(EngineStatus(Mode.REAL, (_status("one", 0.25), _status("two", None)), ("q",))))
    rows = [re.split(r" {2,}", line.strip()) for line in shown.splitlines() if line.startswith("p/")]
    assert [row[1:] for row in rows] == [
        ["1/2", "3", "4", "5", "250 ms", "a replica was killed"],
        ["1/2", "3", "4", "5", "a replica was killed"],
    ]
    assert "start-up" in shown
    assert "queries: q" in shown


def test_without_messages_there_is_no_column_for_them() -> None:
    shown = printed(status_table(EngineStatus(Mode.REAL, (_status("one", 0.25, ""),), ("q",))))
    (row,) = (line for line in shown.splitlines() if line.startswith("p/"))
    assert row.split()[1:] == ["1/2", "3", "4", "5", "250", "ms"]


def test_changes_of_deployments_are_counted_and_listed_where_some_run() -> None:
    running = EngineStatus(Mode.REAL, tuple(_status(name, None) for name in ("same", "grown", "gone")), ("q",))
    planned = [
        SizedDeployment(_status(operator, None).deployment, _DEMAND, (0,) * replicas, 0.5)
        for operator, replicas in (("same", 2), ("grown", 3), ("new", 1))
    ]
    summary, *lines = deployment_changes(running, planned, Mode.REAL).splitlines()
    assert [int(word) for word in summary.split() if word.isdigit()] == [1, 1, 1, 1]
    assert [line.split()[:2] for line in lines] == [
        ["start", "p/new@edge:c1b1u0.5:"], ["resize", "p/grown@edge:c1b1u0.5:"], ["end", "p/gone@edge:c1b1u0.5:"],
    ]  # fmt: skip
    assert "replaced" not in summary
    assert "replaced (mode real to replay)" in deployment_changes(running, planned, Mode.REPLAY)
    assert deployment_changes(None, planned, Mode.REAL).count("\n") == 0


def test_another_utilization_target_keeps_a_deployment() -> None:
    running, planned = (
        SizedDeployment(Deployment("p", "o", KnobValues(), "edge", Allocation(1.0, 1, target)), _DEMAND, (0, 0), 0.5)
        for target in (0.5, 0.7)
    )
    status = DeploymentStatus(running.deployment, 2, 2, 0, 0, 0)
    summary, *lines = deployment_changes(EngineStatus(Mode.REAL, (status,), ("q",)), [planned], Mode.REAL).splitlines()
    assert [int(word) for word in summary.split() if word.isdigit()] == [0, 0, 0, 1]
    assert not lines


def test_parts_of_split_queries_have_planned_and_measured_shares() -> None:
    parts = (PartStatus(0.7, 0.696, 348, available=True), PartStatus(0.3, 0.304, 152, available=False))
    splits = (SplitStatus("q", parts), SplitStatus("new", (PartStatus(1.0, None, 0, available=True),)))
    shown = printed(status_table(EngineStatus(Mode.REAL, (), ("q", "new"), splits=splits)))
    lines = [line.strip() for line in shown.splitlines() if ", part " in line]
    assert [re.findall(r"[\d.]+%|\(\d+|no \w+", line) for line in lines] == [
        ["70%", "69.6%", "(348"],
        ["30%", "30.4%", "(152", "no replica"],
        ["100%", "no request"],
    ]
