"""Status table of an engine."""

from __future__ import annotations

from printed import printed

from circinus.reporting.control_table import status_table
from circinus.serving import DeploymentStatus, EngineStatus, Mode
from circinus.specification import Allocation, Deployment, KnobValues


def _status(operator: str, startup_s: float | None, message: str = "a replica was killed") -> DeploymentStatus:
    deployment = Deployment("p", operator, KnobValues(), "edge", Allocation(1.0, 1, 0.5))
    return DeploymentStatus(deployment, 2, 1, 3, 4, 5, message, startup_s=startup_s)


def test_it_says_how_long_replicas_took_to_start() -> None:
    shown = printed(status_table(EngineStatus(Mode.REAL, (_status("one", 0.25), _status("two", None)), ("q",))))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
    assert [row[1:] for row in rows] == [
        ["1/2", "3", "4", "5", "250 ms", "a replica was killed"],
        ["1/2", "3", "4", "5", "", "a replica was killed"],
    ]
    assert "start-up" in shown
    assert "queries: q" in shown


def test_without_messages_there_is_no_column_for_them() -> None:
    shown = printed(status_table(EngineStatus(Mode.REAL, (_status("one", 0.25, ""),), ("q",))))
    (row,) = (line for line in shown.splitlines() if line.startswith("│"))
    assert [cell.strip() for cell in row.split("│")[2:-1]] == ["1/2", "3", "4", "5", "250 ms"]
