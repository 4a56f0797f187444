"""The ladder of a plan as a table."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from circinus.planning import Ladder, Rung
from circinus.reporting.odds_text import format_probability
from circinus.reporting.plan_text import plan_text
from circinus.spec.spoken import format_duration, format_latency_bound, format_score, format_usd_per_h


def ladder_table(ladder: Ladder) -> Table:
    """A row for each rung, the one with most margin first; the chosen plan is marked."""
    table = Table(
        title="ladder: plans to step down to under a burst, each estimated for this query alone",
        title_justify="left",
    )
    table.add_column("")
    table.add_column("plan", overflow="fold")
    for column in ("CPU a request", "cost\nfully shared", "latency", "accuracy", "probability"):
        table.add_column(column, justify="right")
    table.add_column("changes", overflow="fold")
    for index, rung in enumerate(ladder.rungs):
        estimate = rung.candidate.estimate
        table.add_row(
            "→" if index == ladder.chosen else "",
            escape(plan_text(rung.candidate.plan, estimate)),
            format_duration(rung.cpu_s_per_request),
            format_usd_per_h(rung.shared_usd_per_h),
            f"≤ {format_latency_bound(estimate.latency_s.upper)}",
            format_score(estimate.accuracy.value),
            "-" if estimate.slo_probability is None else format_probability(estimate.slo_probability.joint),
            _changes(rung),
        )
    return table


def _changes(rung: Rung) -> str:
    return "; ".join(f"{change.operator}: {', '.join(change.changed)}" for change in rung.changes)
