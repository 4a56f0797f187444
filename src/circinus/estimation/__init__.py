"""What a plan would do: service, queueing, transfers, cost."""

from circinus.estimation.estimate import (
    Candidate,
    DeploymentUse,
    Estimate,
    LinkUse,
    ReplicaDemand,
    StageEstimate,
)

__all__ = ["Candidate", "DeploymentUse", "Estimate", "LinkUse", "ReplicaDemand", "StageEstimate"]
