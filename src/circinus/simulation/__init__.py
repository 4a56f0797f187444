"""Discrete-event simulation of requests at deployments and links."""

from circinus.simulation.model_builder import PlannedQuery
from circinus.simulation.report import QueryOutcome, SimulationReport, StageOutcome, StationOutcome
from circinus.simulation.simulate import Progress, simulate

__all__ = [
    "PlannedQuery",
    "Progress",
    "QueryOutcome",
    "SimulationReport",
    "StageOutcome",
    "StationOutcome",
    "simulate",
]
