"""Probabilities in words, and the best plan so far of a query that has no promised one."""

from __future__ import annotations

from circinus.planning import BestEffortPlan
from circinus.profiling import MIN_ITEMS
from circinus.reporting.plan_text import plan_text
from circinus.spec import Query
from circinus.spec.spoken import ceil_significant


def format_probability(value: float) -> str:
    """`0.834` -> `0.83`; what is rounded to certainty without being it says so: `> 0.99`."""
    if 0.995 <= value < 1:
        return "> 0.99"
    if 0 < value < 0.005:
        return "< 0.01"
    return f"{value:.2f}"


def best_effort_text(best: BestEffortPlan, query: Query) -> str:
    """The plan, how likely it keeps the objectives, and what would help to have it promised.

    A higher risk helps with latency; accuracies are bounded for all configurations of a run together, which takes more
    items than any risk makes up for.
    """
    estimate = best.candidate.estimate
    words = (
        f"best plan so far: {plan_text(best.candidate.plan, estimate)}, keeps its objectives with probability "
        f"{format_probability(best.probability)} as far as {best.items} of {best.population} items tell"
    )
    advice = []
    if best.items < best.population:
        advice.append("measure for longer (circinus profile)")
    higher = 0.5 <= best.probability < 1 - query.risk
    if higher and best.items >= MIN_ITEMS and estimate.violations(query.slos) == ("latency",):
        advice.append(f"accept a risk above {ceil_significant(1 - best.probability, 2):g} (spec.risk)")
    return f"{words}; {', or '.join(advice)}" if advice else words
