"""Rungs of fallback ladders, as plan files have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from circinus.estimation import PlanCandidate

Change = Literal["knobs", "pool", "allocation"]
_CHANGES: tuple[Change, ...] = ("knobs", "pool", "allocation")


@dataclass(frozen=True)
class OperatorChange:
    """Change of one operator's deployment in a step."""

    operator: str
    changed: tuple[Change, ...]


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


def plan_changes(upper: PlanCandidate, lower: PlanCandidate) -> tuple[OperatorChange, ...]:
    """Return the differences between two plans of a query, by operator in topological order."""
    previous = {use.deployment.operator: use.deployment for use in upper.deployments}
    changes = []
    for use in lower.deployments:
        old, new = previous.get(use.deployment.operator), use.deployment
        changed = tuple(name for name in _CHANGES if getattr(old, name, None) != getattr(new, name))
        if changed:
            changes.append(OperatorChange(new.operator, changed))
    return tuple(changes)
