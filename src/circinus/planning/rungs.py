"""Rungs of fallback ladders, as plan files have them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from circinus.estimation import PlanCandidate
from circinus.specification import Deployment

Change = Literal["knobs", "pool", "allocation", "share"]
_CHANGES: tuple[Change, ...] = ("knobs", "pool", "allocation")


@dataclass(frozen=True)
class OperatorChange:
    """Change of one operator's deployments in a step."""

    operator: str
    changed: tuple[Change, ...]
    """`share` if only the division of requests among the deployments changes."""


@dataclass(frozen=True)
class Rung:
    """A plan of a ladder, guaranteed to meet its query's SLOs at the query's rate."""

    candidate: PlanCandidate
    """Estimate for this query by itself, with deployments at their utilization targets."""
    cpu_s_per_request: float
    """CPU seconds of busy replicas per request, over all operators."""
    shared_usd_per_h: float
    """Cost if its replicas are fully shared, transfers included."""
    changes: tuple[OperatorChange, ...]
    """Differences to the rung above, in topological order; empty for the top rung."""


@dataclass(frozen=True)
class Ladder:
    """Rungs from the largest margin down to the lowest usage.

    A step down never takes more CPU seconds per request, never costs more if fully shared, takes less of one of the
    two, and is never more accurate.
    """

    rungs: tuple[Rung, ...]
    chosen: int
    """Index of the rung of the selected plan."""

    def __post_init__(self) -> None:
        if not 0 <= self.chosen < len(self.rungs):
            raise ValueError(f"chosen must be the index of one of {len(self.rungs)} rungs, got {self.chosen}")


def plan_changes(upper: PlanCandidate, lower: PlanCandidate) -> tuple[OperatorChange, ...]:
    """Return the differences between two plans of a query, by operator in topological order."""
    before, after = _shares(upper), _shares(lower)
    changes = []
    for operator in dict.fromkeys(use.deployment.operator for use in lower.deployments):
        old, new = before.get(operator, {}), after[operator]
        if old != new:
            changed = tuple(
                name for name in _CHANGES if {getattr(d, name) for d in old} != {getattr(d, name) for d in new}
            )
            changes.append(OperatorChange(operator, changed or ("share",)))
    return tuple(changes)


def _shares(candidate: PlanCandidate) -> dict[str, dict[Deployment, float]]:
    """Return operator -> its deployments under a plan, each with its share of the requests."""
    shares: dict[str, dict[Deployment, float]] = defaultdict(dict)
    for part, estimated in zip(candidate.plan.parts, candidate.unsplit, strict=True):
        for use in estimated.deployments:
            of_operator = shares[use.deployment.operator]
            of_operator[use.deployment] = of_operator.get(use.deployment, 0.0) + part.share
    return shares
