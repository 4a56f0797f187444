"""Estimates of plans: service, queueing, transfers, cost."""

from circinus.estimation.corrections import NO_CORRECTIONS, Correction, Corrections, learn_corrections
from circinus.estimation.estimate import (
    DeploymentUse,
    Estimate,
    LinkUse,
    PlanCandidate,
    ReplicaDemand,
    StageEstimate,
)
from circinus.estimation.estimator import Estimator, QueryEstimators
from circinus.estimation.merged_load import DeploymentLoad, MergedLoad, merge_loads, replicas_for
from circinus.estimation.slo_probability import SloProbabilities
from circinus.estimation.traffic import RequestStream

__all__ = [
    "NO_CORRECTIONS",
    "Correction",
    "Corrections",
    "DeploymentLoad",
    "DeploymentUse",
    "Estimate",
    "Estimator",
    "LinkUse",
    "MergedLoad",
    "PlanCandidate",
    "QueryEstimators",
    "ReplicaDemand",
    "RequestStream",
    "SloProbabilities",
    "StageEstimate",
    "learn_corrections",
    "merge_loads",
    "replicas_for",
]
