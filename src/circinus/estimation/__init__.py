"""What a plan would do: service, queueing, transfers, cost."""

from circinus.estimation.conditions import Conditions, DeploymentLoad, merge, replicas_for
from circinus.estimation.corrections import NO_CORRECTIONS, Correction, Corrections, learn_corrections
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
    "NO_CORRECTIONS",
    "Candidate",
    "Conditions",
    "Correction",
    "Corrections",
    "DeploymentLoad",
    "DeploymentUse",
    "Estimate",
    "Estimator",
    "LinkUse",
    "Odds",
    "ReplicaDemand",
    "StageEstimate",
    "Traffic",
    "learn_corrections",
    "merge",
    "replicas_for",
]
