"""Why a query got the plan it got, or none."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from circinus.estimation import Estimate
from circinus.matching import Admission, Alternative, Assignment, Rejection, ShadowPrice
from circinus.planning import Ladder, Rung
from circinus.reporting.plan_table import best_effort_text, format_probability, plan_text
from circinus.specification import PoissonArrivals, Query
from circinus.specification.formatting import (
    format_duration,
    format_interval,
    format_latency_bound,
    format_score,
    format_usd_per_h,
)


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


def admission_text(admission: Admission) -> RenderableType:
    """Its plan, or why it gets none and what a little more of what binds would be worth."""
    if admission.assignment is not None:
        return assignment_explanation(admission.assignment, admission.query)
    assert admission.rejection is not None
    worth = [Text(_worth(price)) for price in admission.binding]
    return Group(rejection_explanation(admission.rejection, admission.query), *worth)


def _worth(price: ShadowPrice) -> str:
    """`pool edge: cpus is 97% used; one more CPU is worth a weight of 0.4 to those that were planned together`."""
    words = [f"a weight of {price.weight:.3g}"] if price.weight > 0 else []
    words += [f"{format_usd_per_h(price.saving_usd_per_h)} saved"] if price.saving_usd_per_h > 0 else []
    said = " and ".join(words) or "nothing"
    return (
        f"{price.resource} is {price.used:.0%} used; one more {price.unit} is worth {said} to those that were planned "
        "together"
    )
