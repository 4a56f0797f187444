"""What a plan would do: service, queueing, transfers, cost."""

from circinus.estimation.conditions import Conditions, DeploymentLoad, merge, replicas_for
from circinus.estimation.estimate import (
    Candidate,
    DeploymentUse,
    Estimate,
    LinkUse,
    ReplicaDemand,
    StageEstimate,
)
from circinus.estimation.estimator import Estimator
from circinus.estimation.odds import Odds
from circinus.estimation.traffic import Traffic

__all__ = [
    "Candidate",
    "Conditions",
    "DeploymentLoad",
    "DeploymentUse",
    "Estimate",
    "Estimator",
    "LinkUse",
    "Odds",
    "ReplicaDemand",
    "StageEstimate",
    "Traffic",
    "merge",
    "replicas_for",
]
