"""Why a query got the plan it got, or none."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from circinus.estimation import Estimate
from circinus.matching import Alternative, Assignment, Rejection
from circinus.reporting.ladder_table import ladder_table
from circinus.reporting.odds_text import best_effort_text, format_probability
from circinus.reporting.plan_text import plan_text
from circinus.spec import PoissonArrivals, Query
from circinus.spec.spoken import format_duration, format_interval, format_latency_bound, format_score, format_usd_per_h


def assignment_explanation(assignment: Assignment, query: Query) -> RenderableType:
    """The chosen plan, its estimate against each objective, where the time goes, and the best alternatives."""
    estimate = assignment.chosen.estimate
    return Group(
        _heading(query),
        Text(f"plan: {plan_text(assignment.chosen.plan, estimate)}"),
        Text(f"why:  {assignment.reason}"),
        _objectives(estimate, query),
        *_probability(estimate, query),
        *_doubts(estimate),
        _stages(assignment),
        *_ladder(assignment),
        _alternatives(assignment.alternatives),
        Text(""),
    )


def _heading(query: Query) -> Text:
    """What is asked for; Poisson arrivals go without saying."""
    arrivals = "" if isinstance(query.arrivals, PoissonArrivals) else f" ({query.arrivals})"
    asked = f"  {query.pipeline} from {query.source}, {query.rate_per_s:g}/s{arrivals}"
    return Text.assemble((query.name, "bold"), asked)


def rejection_explanation(rejection: Rejection, query: Query) -> RenderableType:
    """What stands in the way, the cheapest relaxation, and how near the best plans come."""
    lines = [
        _heading(query),
        Text.assemble(("rejected", "red"), f": {rejection.reason}"),
        Text(f"objectives: {query.slos}"),
        Text(f"binding: {', '.join(rejection.binding)}"),
    ]
    if rejection.best_so_far is not None:
        lines.append(Text(best_effort_text(rejection.best_so_far, query)))
    relaxation = rejection.relaxation
    if relaxation is None:
        lines.append(Text("no relaxation of a single objective would let it in beside the other queries"))
    else:
        lines.append(
            Text(
                f"cheapest relaxation beside the other queries: {relaxation.change}, "
                f"with {plan_text(relaxation.plan, relaxation.estimate)}"
            )
        )
    return Group(*lines, _alternatives(rejection.alternatives), Text(""))


def _probability(estimate: Estimate, query: Query) -> list[Text]:
    odds, slos = estimate.slo_probability, query.slos
    if odds is None or (slos.latency is None and slos.accuracy is None):
        return []
    parts = [f"latency {format_probability(odds.latency)}"] if slos.latency is not None else []
    parts += [f"accuracy {format_probability(odds.accuracy)}"] if slos.accuracy is not None else []
    words = f"probability that it keeps its objectives: {format_probability(odds.joint)} ({', '.join(parts)})"
    return [Text(words)]


def _doubts(estimate: Estimate) -> list[Text]:
    """What formulas are not good for, and whether the latency is that of a simulation instead."""
    if not estimate.caveats:
        return []
    words = "formulas are not good for it, so its latency is that of a simulation of all queries together"
    if not estimate.simulated:
        words = "its latency is a guess, as formulas are not good for it"
    return [Text(f"{words}: {'; '.join(estimate.caveats)}")]


def _ladder(assignment: Assignment) -> list[RenderableType]:
    ladder = assignment.ladder
    if ladder is None:
        return []
    return [ladder_table(ladder)] if len(ladder.rungs) > 1 else [Text("no ladder: no other plan is a step up or down")]


def _objectives(estimate: Estimate, query: Query) -> Table:
    table = Table("objective", "estimate (bounds)", "wanted", "margin")
    slos = query.slos
    wanted = margin = "-"
    if slos.latency is not None:
        wanted = str(slos.latency)
        margin = format_duration(max(slos.latency.limit_s - estimate.latency_s.upper, 0.0))
    table.add_row(
        f"latency p{estimate.percentile:g}", format_interval(format_latency_bound, estimate.latency_s), wanted, margin
    )
    wanted = margin = "-"
    if slos.accuracy is not None:
        worst = estimate.accuracy.lower if slos.accuracy.comparison == ">=" else estimate.accuracy.upper
        wanted = str(slos.accuracy)
        margin = format_score(abs(worst - slos.accuracy.threshold))
    table.add_row("accuracy", format_interval(format_score, estimate.accuracy), wanted, margin)
    wanted = margin = "-"
    if slos.cost is not None:
        wanted = str(slos.cost)
        margin = format_usd_per_h(slos.cost.limit_usd_per_h - estimate.cost_usd_per_h.value)
    table.add_row(
        "cost: its share (fully shared to alone)",
        format_interval(format_usd_per_h, estimate.cost_usd_per_h),
        wanted,
        margin,
    )
    return table


def _stages(assignment: Assignment) -> Table:
    table = Table("operator", "pool", "transfer", "wait", "service", title="mean time", title_justify="left")
    for stage in assignment.chosen.estimate.stages:
        table.add_row(
            stage.operator,
            stage.pool,
            format_duration(stage.transfer_s),
            format_duration(stage.wait_s),
            format_duration(stage.service_s),
        )
    table.add_row("(result back)", "", format_duration(assignment.chosen.estimate.return_s), "", "")
    return table


def _alternatives(alternatives: tuple[Alternative, ...]) -> RenderableType:
    if not alternatives:
        return Text("no alternatives")
    title = (
        "alternatives, each estimated for this query alone with deployments as busy as they may get (the chosen plan's "
        "as they will run); 'more in total' counts what the others run already"
    )
    table = Table()
    table.add_column("plan", overflow="fold")
    for column in ("latency", "accuracy", "cost alone\n(fully shared)"):
        table.add_column(column, justify="right")
    table.add_column("why not", overflow="fold")
    for alternative in alternatives:
        estimate = alternative.estimate
        table.add_row(
            escape(plan_text(alternative.plan, estimate)),
            format_duration(estimate.latency_s.value),
            format_score(estimate.accuracy.value),
            f"{format_usd_per_h(estimate.cost_usd_per_h.upper)}\n({format_usd_per_h(estimate.cost_usd_per_h.lower)})",
            escape(alternative.reason),
        )
    return Group(Text(title, style="italic"), table)
