"""Plans and objectives in one line."""

from __future__ import annotations

from itertools import groupby

from circinus.estimation import Estimate
from circinus.reporting.quantities import duration, usd_per_h
from circinus.spec import Plan, Slos


def slos_text(slos: Slos) -> str:
    """All objectives."""
    parts = []
    if slos.latency is not None:
        parts.append(f"p{slos.latency.percentile:g} ≤ {duration(slos.latency.limit_s)}")
    if slos.accuracy is not None:
        sign = "≥" if slos.accuracy.comparison == ">=" else "≤"
        parts.append(f"accuracy {sign} {slos.accuracy.threshold:g}")
    if slos.cost is not None:
        parts.append(f"cost ≤ {usd_per_h(slos.cost.limit_usd_per_h)}")
    return ", ".join(parts) or "none"


def plan_text(plan: Plan, estimate: Estimate) -> str:
    """Configuration and placement in the order of the flow.

    `phone: denoise none, voice_activity webrtc → office: speech_to_text 5 whisper-tiny`: knobs show their values only,
    in the order of the knobs' names; operators next to each other on one pool stand together.

    Args:
        plan: what to show.
        estimate: of the plan; knows the order of the operators.
    """
    groups = groupby(estimate.stages, key=lambda stage: stage.pool)
    return " → ".join(
        f"{pool}: {', '.join(_operator_text(plan, stage.operator) for stage in stages)}" for pool, stages in groups
    )


def _operator_text(plan: Plan, operator: str) -> str:
    values = (str(value) for _, value in plan.configuration[operator].values)
    return " ".join((operator, *values))
