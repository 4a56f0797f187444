"""Descriptions of violated SLOs."""

from __future__ import annotations

from circinus.estimation import Estimate
from circinus.specification import Slo, SloKind
from circinus.specification.formatting import (
    Rounding,
    digits_apart,
    format_duration,
    format_latency_bound,
    format_score,
    format_usd_per_h,
)


def as_sized(reason: str) -> str:
    """Return a description of violations with the sizes at which they hold: the final ones beside other queries."""
    return f"as sized, {reason}"


def describe_violation(estimate: Estimate, slo: Slo, *, sized: bool = False) -> str:
    """Return the guaranteed value next to a violated SLO, as text; see `Estimate.compared_value` for `sized`."""
    if slo.kind is SloKind.LATENCY:
        bounds = estimate.latency_s
        upper = format_latency_bound(bounds.upper, digits_apart(bounds.upper, slo.limit))
        value = f"{format_duration(bounds.value)} (at most {upper})"
        return f"p{estimate.percentile:g} {value} > {slo.limit_text}"
    if slo.kind is SloKind.COST:
        cost = estimate.cost_usd_per_h
        compared = cost.value if sized else cost.upper
        text = format_usd_per_h(compared, digits_apart(compared, slo.limit))
        value = f"share {text}" if sized else f"{text} dedicated ({format_usd_per_h(cost.lower)} fully shared)"
        return f"cost {value} > {slo.limit_text}"
    score, worst = estimate.accuracy.value, slo.worst(estimate.accuracy)
    name, mean = "accuracy" if slo.is_minimum else "error", format_score(score, digits_apart(score, slo.limit))
    side, rounding = ("at least", Rounding.DOWN) if slo.is_minimum else ("at most", Rounding.UP)
    bound = format_score(worst, digits_apart(worst, slo.limit), rounding=rounding)
    if slo.is_met_by(score):
        value = f"guaranteed {name} {bound} (measured {mean})"
    else:
        value = f"{name} {mean}" + ("" if worst == score else f" ({side} {bound})")
    return f"{value} {'<' if slo.is_minimum else '>'} {slo.limit_text}"
