"""Rows of plans in tables and JSON documents, parts of split plans included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from circinus.estimation import PlanCandidate
from circinus.specification import Allocation, QueryPlan
from circinus.specification.formatting import format_share

COLUMNS = ("configuration", "placement", "latency_s", "accuracy", "cost_usd_per_h", "slo_probability")


def columns(candidate: PlanCandidate) -> dict[str, Any]:
    """Return the values of `COLUMNS` of a plan."""
    plan, estimate = candidate.plan, candidate.estimate
    values = (
        _of_parts(plan, lambda part: str(part.configuration)),
        _of_parts(plan, lambda part: ", ".join(f"{name}: {pool}" for name, pool in part.placement)),
        estimate.latency_s.value,
        estimate.accuracy.value,
        estimate.cost_usd_per_h.value,
        None if estimate.slo_probability is None else estimate.slo_probability.joint,
    )
    return dict(zip(COLUMNS, values, strict=True))


def _of_parts(plan: QueryPlan, text: Callable[[QueryPlan], str]) -> str:
    """Return the text of a plan, or those of the parts of a split one: `70% ... + 30% ...`; once if they are equal."""
    texts = [(format_share(part.share), text(part.plan)) for part in plan.parts]
    if len({of_part for _, of_part in texts}) == 1:
        return texts[0][1]
    return " + ".join(f"{share} {of_part}" for share, of_part in texts)


def allocations(plan: QueryPlan) -> str:
    """Return the allocations of a plan by operator."""
    return _of_parts(plan, lambda part: ", ".join(f"{name}: {_allocation(a)}" for name, a in part.allocations))


def part_rows(candidate: PlanCandidate) -> list[dict[str, Any]]:
    """Return a row for each part of a split plan: its share, plan and estimate."""
    parts = zip(candidate.plan.parts, candidate.parts, strict=True)
    return [{"share": p.share, **columns(found), "allocation": allocations(p.plan)} for p, found in parts]


def _allocation(allocation: Allocation) -> str:
    batch = f" b{allocation.batch_size}" if allocation.batch_size > 1 else ""
    return f"{allocation.cpus:g} CPU{batch} {allocation.utilization_target:.0%}"
