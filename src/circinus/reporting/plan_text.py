"""Plans in one line."""

from __future__ import annotations

from itertools import groupby

from circinus.estimation import Estimate
from circinus.spec import QueryPlan

PLAN_LEGEND = (
    "plan: POOL: OPERATOR VALUES (REPLICA), ... → POOL: ...; VALUES of the knobs in the order of their names, which"
    " are shown where there are more than two; REPLICA: what each replica is given and how many items it takes at once,"
    " where that is not 1 CPU and 1 item"
)
"""How to read a plan; printed once below the plans."""

_UNNAMED = 2
"""Knobs of an operator whose values can be told apart without their names."""


def plan_text(plan: QueryPlan, estimate: Estimate) -> str:
    """Configuration, placement and the size of replicas in the order of the flow.

    `phone: denoise none, voice_activity webrtc → office: speech_to_text 5 whisper-tiny (2 CPUs, batch 4)`: knobs show
    their values only, in the order of the knobs' names, up to two of an operator; operators next to each other on one
    pool stand together.

    Args:
        plan: what to show.
        estimate: of the plan; knows the order of the operators.
    """
    groups = groupby(estimate.stages, key=lambda stage: stage.pool)
    return " → ".join(
        f"{pool}: {', '.join(_operator_text(plan, stage.operator) for stage in stages)}" for pool, stages in groups
    )


def _operator_text(plan: QueryPlan, operator: str) -> str:
    knobs = plan.configuration[operator].values
    values = (str(value) if len(knobs) <= _UNNAMED else f"{name}={value}" for name, value in knobs)
    allocation = plan.allocation_of(operator)
    replica = []
    if allocation.cpus != 1:
        replica.append(f"{allocation.cpus:g} CPUs")
    if allocation.batch_size != 1:
        replica.append(f"batch {allocation.batch_size}")
    return " ".join((operator, *values, *((f"({', '.join(replica)})",) if replica else ())))
