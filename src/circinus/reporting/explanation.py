"""Explanations of plans and rejections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from circinus.estimation import Estimate, PlanCandidate
from circinus.matching import Alternative, Assignment, Rejection, ShadowPrice
from circinus.planning import Ladder
from circinus.reporting.plan_table import (
    added_cost_text,
    best_effort_text,
    division_line,
    format_probability,
    latency_bound_text,
)
from circinus.reporting.plan_text import (
    knobs_text,
    part_texts,
    placements_text,
    plan_differences,
    plan_text,
    replica_text,
)
from circinus.reporting.tables import FirstFitting, OneLine, make_table, stacked_bar
from circinus.specification import PoissonArrivals, Query, QueryPlan, SloKind, Slos
from circinus.specification.formatting import (
    ACCURACY,
    Formatting,
    IntervalLike,
    Rounding,
    format_bounds,
    format_duration,
    format_latency_bound,
    format_score,
    format_share,
    format_usd_per_h,
    with_metric,
)
from circinus.statistics.interval import Interval

if TYPE_CHECKING:
    from circinus.matching import Admission

_MAX_ALTERNATIVES = 5
_MAX_UNSERVED = 5
_MAX_SUBJECTS = 2
"""Maximum number of operators and links that a sentence names."""
_CERTAIN = 0.995
"""Probability from which no reason is given why it is not higher."""
_MIN_SHOWN_S = 5e-7
"""Time below which none is shown."""
_SMALLEST = "smallest relaxation found that admits the query beside the running plans, which stay"


def ladder_table(ladder: Ladder, sized: Estimate, slos: Slos, metric: str = ACCURACY) -> RenderableType:
    """Return a row for the selected plan and each rung below it: what the rung changes of the plan.

    No query steps to a rung above its plan. All rows are at utilization targets, as replicas fill up under bursts.

    Args:
        ladder: with rungs below the selected plan.
        sized: estimate of the selected plan as sized.
        slos: SLOs of the query.
        metric: name of the metric.
    """
    notes = (
        "ladder: plans to step down to under bursts, all with replicas as utilized as their targets allow",
        f"(as sized, the selected plan has {_latency_and_cost(sized, slos)})",
    )
    figures = ("CPU time", "cost", f"p{sized.percentile:g} at most", metric, "SLOs met")
    table = make_table(None, ("change",), figures, one_line=True)
    rungs = ladder.rungs[ladder.chosen :]
    texts = plan_differences([rung.candidate.plan for rung in rungs], rungs[0].candidate.plan, sized.operators)
    for rung, text in zip(rungs, texts, strict=True):
        estimate = rung.candidate.estimate
        table.add_row(
            escape(text or "selected plan"),
            format_duration(rung.cpu_s_per_request),
            format_usd_per_h(rung.shared_usd_per_h),
            latency_bound_text(estimate, slos),
            format_score(estimate.accuracy.value),
            "-" if estimate.slo_probability is None else format_probability(estimate.slo_probability.joint),
        )
    return Group(*(Text(note, style="italic") for note in notes), table)


def _latency_and_cost(estimate: Estimate, slos: Slos) -> str:
    simulated = " in a simulation" if estimate.simulated else ""
    latency = f"p{estimate.percentile:g} at most {latency_bound_text(estimate, slos)}{simulated}"
    return f"{latency} at {format_usd_per_h(estimate.cost_usd_per_h.value)}"


def assignment_explanation(assignment: Assignment, query: Query, metric: str = ACCURACY) -> RenderableType:
    """Return the selected plan with its estimate for each SLO, latency budget, ladder and nearest alternatives.

    Args:
        assignment: the plan.
        query: its query.
        metric: name of the metric of the query's pipeline.
    """
    estimate, plan = assignment.chosen.estimate, assignment.chosen.plan
    return Group(
        _heading(query),
        Text.assemble(
            ("served", "green"), f" on {placements_text(assignment.chosen)}: {with_metric(assignment.reason, metric)}"
        ),
        *([division_line("requests divided", assignment.chosen)] if plan.is_split else []),
        Text(),
        _slo_table(estimate, query, metric),
        *_probability(estimate, query, metric),
        *_caveats(estimate),
        Text(),
        *_latency_budgets(assignment.chosen, query.slos, metric),
        *_ladder(assignment, query.slos, metric),
        _alternatives(assignment.alternatives, plan, "selected plan", metric),
        Text(),
    )


def _heading(query: Query) -> Text:
    """Return the query with its load; Poisson arrivals are the default and omitted."""
    arrivals = "" if isinstance(query.arrivals, PoissonArrivals) else f" ({query.arrivals})"
    load = f"  {query.pipeline} from {query.source}, {query.rate_per_s:g}/s{arrivals}"
    return Text.assemble((query.name, "bold"), load)


def rejection_explanation(rejection: Rejection, query: Query, metric: str = ACCURACY) -> RenderableType:
    """Return the reason of the rejection, the changes that would serve the query, and the best alternatives.

    Args:
        rejection: the rejection.
        query: its query.
        metric: name of the metric of the query's pipeline.
    """
    lines = [
        _heading(query),
        Text(f"SLOs: {with_metric(str(query.slos), metric)}"),
        Text.assemble(("rejected", "red"), f": {with_metric(rejection.reason, metric)}"),
        Text(f"binding: {', '.join(rejection.binding)}"),
    ]
    best, relaxation = rejection.best_so_far, rejection.relaxation
    if best is not None:
        lines.append(Text(best_effort_text(best, query, metric, rejection.reason)))
    if rejection.unrelaxable:
        lines.append(
            Text("no relaxation of a single SLO was found that admits the query beside the running plans, which stay")
        )
    if relaxation is not None:
        is_best = best is not None and best.candidate.plan == relaxation.plan
        admitted = "the best plan so far" if is_best else plan_text(relaxation.plan, relaxation.estimate)
        kind = "several relaxed together admit it" if rejection.unrelaxable else _SMALLEST
        lines += [
            Text(f"{kind}: {with_metric(relaxation.change, metric)}; in its specification: slos: [{relaxation.slos}]"),
            Text(f"with {admitted}; as sized, it has {_latency_and_cost(relaxation.estimate, relaxation.slos)}"),
        ]
    lines += [Text(with_metric(advice.sentence, metric)) for advice in rejection.advice]
    base, label = None, "nearest plan"
    if best is not None and rejection.alternatives and best.candidate.plan == rejection.alternatives[0].plan:
        base, label = best.candidate.plan, "best plan so far"
    return Group(*lines, Text(), _alternatives(rejection.alternatives, base, label, metric), Text())


def _probability(estimate: Estimate, query: Query, metric: str) -> list[Text]:
    probability, slos = estimate.slo_probability, query.slos
    uncertain = slos.without_cost.by_kind
    if probability is None or not uncertain:
        return []
    names = {kind: metric if kind is SloKind.ACCURACY else kind for kind in uncertain}
    texts = {kind: format_probability(getattr(probability, kind)) for kind in names}
    if SloKind.LATENCY in texts and probability.latency_items is not None and probability.latency < _CERTAIN:
        texts[SloKind.LATENCY] += f", the most that {probability.latency_items} items can show"
    parts = [f"{name} {texts[kind]}" for kind, name in names.items()]
    return [Text(f"probability of meeting the SLOs: {format_probability(probability.joint)} ({'; '.join(parts)})")]


def _caveats(estimate: Estimate) -> list[Text]:
    """Return why the latency formula may be inaccurate, and whether the latency was simulated instead."""
    if not estimate.caveats:
        return []
    latency = "is from a joint simulation of all queries" if estimate.simulated else "is a rough estimate"
    subjects: dict[str, list[str]] = {}
    for caveat in estimate.caveats:
        subject, _, reason = caveat.rpartition(": ")
        subjects.setdefault(reason, []).append(subject)
    reasons = "; ".join(f"{reason}{_subjects(names)}" for reason, names in subjects.items())
    return [Text(f"the latency {latency}, as formulas may be inaccurate: {reasons}")]


def _subjects(names: Sequence[str]) -> str:
    """Return ` (operator split, link home->edge)`, or ` (4 operators, 2 links)` of many names."""
    named = list(dict.fromkeys(filter(None, names)))
    if len(named) > _MAX_SUBJECTS:
        kinds = Counter(name.partition(" ")[0] for name in named)
        named = [f"{count} {kind}{'s' * (count > 1)}" for kind, count in kinds.items()]
    return f" ({', '.join(named)})" if named else ""


def _ladder(assignment: Assignment, slos: Slos, metric: str) -> list[RenderableType]:
    ladder = assignment.ladder
    if ladder is None:
        return []
    if ladder.chosen == len(ladder.rungs) - 1:
        selected = format_duration(ladder.rungs[ladder.chosen].cpu_s_per_request)
        return [
            Text(
                f"no ladder: no other plan takes less CPU time at no more cost and accuracy. The selected plan takes "
                f"{selected} per request, with batches and replicas as full as utilization targets allow"
            ),
            Text(),
        ]
    return [ladder_table(ladder, assignment.chosen.estimate, slos, metric), Text()]


def _slo_table(estimate: Estimate, query: Query, metric: str) -> Table:
    table = make_table(None, ("SLO",), ("estimate", "bounds", "margin"), one_line=True)
    bounds_s, scores, cost = estimate.latency_s, estimate.accuracy, Interval.exact(estimate.cost_usd_per_h.value)
    rows: tuple[tuple[SloKind, str, IntervalLike, Formatting], ...] = (
        (SloKind.LATENCY, f"latency p{estimate.percentile:g}", bounds_s, format_latency_bound),
        (SloKind.ACCURACY, metric, scores, format_score),
        (SloKind.COST, "cost", cost, format_usd_per_h),
    )
    for kind, name, interval, format_value in rows:
        slo = query.slos.by_kind.get(kind)
        title = name if slo is None else f"{'latency' if kind is SloKind.LATENCY else name} {slo}"
        bounds = format_bounds(format_value, interval, None if slo is None else slo.limit)
        slack = None if slo is None else slo.margin(estimate.compared_value(slo, sized=True))
        margin = "" if slack is None else format_value(slack, rounding=Rounding.DOWN)
        table.add_row(OneLine(title), format_value(interval.value, rounding=Rounding.NEAREST), bounds, margin)
    return table


def _latency_budgets(candidate: PlanCandidate, slos: Slos, metric: str) -> Iterator[RenderableType]:
    """Yield the latency budget of a plan, or a row for each part of a split plan, and the latency budget of each."""
    parts = list(zip(candidate.plan.parts, candidate.unsplit, strict=True))
    if candidate.plan.is_split:
        percentile = f"p{candidate.estimate.percentile:g} at most"
        table = make_table(None, ("part",), ("share", percentile, metric, "cost"), one_line=True)
        texts = part_texts(candidate.plan, candidate.estimate.operators)
        for (part, found), text in zip(parts, texts, strict=True):
            table.add_row(
                escape(text),
                format_share(part.share),
                latency_bound_text(found.estimate, slos),
                format_score(found.estimate.accuracy.value),
                format_usd_per_h(found.estimate.cost_usd_per_h.value),
            )
        yield from (table, Text())
    for part, found in parts:
        if candidate.plan.is_split:
            yield Text(f"{format_share(part.share)} of the requests:", style="italic")
        yield from (_latency_budget(part.plan, found.estimate), Text())


def _latency_budget(plan: QueryPlan, estimate: Estimate) -> RenderableType:
    """Return a row for each operator and the return of the result, with its mean times as a bar.

    Narrow terminals show knobs and replicas in a line of text above instead.
    """
    narrow = Group(Text(f"plan: {plan_text(plan, estimate)}"), Text(), _budget_table(plan, estimate, details=False))
    return FirstFitting(_budget_table(plan, estimate, details=True), narrow)


def _budget_table(plan: QueryPlan, estimate: Estimate, *, details: bool) -> Table:
    stages = [(stage.operator, (stage.transfer_s, stage.wait_s, stage.service_s)) for stage in estimate.stages]
    linked = estimate.return_s > 0 or any(stage.transfer_s > 0 for stage in estimate.stages)
    rows = [*stages, ("", (estimate.return_s, 0.0, 0.0))] if linked else stages
    longest_s = max(sum(parts) for _, parts in rows)
    columns = ("operator", "pool", "replica") if details else ("operator", "pool")
    runs = {stage.operator: stage.runs for stage in estimate.stages}
    has_runs = any(count != 1 for count in runs.values())
    table = make_table("mean times: ─ link, ░ queue, █ service", columns, (), one_line=True)
    for title in ("", "link", "queue", "service"):
        if linked or title != "link":
            table.add_column(title, justify="right" if title else "left", no_wrap=True)
    if has_runs:
        table.add_column("runs", justify="right", no_wrap=True)
    for operator, parts in rows:
        cells = ["(return)", "", ""]
        if operator:
            replica = replica_text(plan.allocation_of(operator))
            cells = [knobs_text(plan, operator) if details else operator, plan.pool_of(operator), replica]
        durations = [format_duration(seconds) if seconds >= _MIN_SHOWN_S else "" for seconds in parts]
        table.add_row(
            *(OneLine(cell, whole=details) for cell in cells[: len(columns)]),
            stacked_bar("─░█", parts, longest_s),
            *durations[not linked :],
            *([f"{runs[operator]:.3g}" if operator else ""] if has_runs else []),
        )
    return table


def _alternatives(
    alternatives: Sequence[Alternative], base: QueryPlan | None, label: str, metric: str
) -> RenderableType:
    """Return a row for each of the nearest alternatives: what it changes of a plan, and why it was not chosen.

    Args:
        alternatives: the nearest first.
        base: the plan that the changes are from; None for the nearest alternative, which is printed then.
        label: name of the base.
        metric: name of the metric.
    """
    if not alternatives:
        return Text("no alternatives")
    shown, nearest = alternatives[:_MAX_ALTERNATIVES], alternatives[0]
    more = f"; {len(alternatives) - len(shown)} more with --json" if len(alternatives) > len(shown) else ""
    sizes = "each in isolation at its utilization targets"
    if any(alternative.is_sized for alternative in shown):
        sizes += ", or as sized where the reason says so"
    all_as_sized = all(alternative.misses_as_sized for alternative in shown)
    if all_as_sized:
        sizes = "as sized beside the other queries"
    notes = [f"nearest alternatives, {sizes}{more}"]
    if base is None:
        notes.append(f"{label}: {plan_text(nearest.plan, nearest.estimate)}")
    plans = [alternative.plan for alternative in shown]
    texts = plan_differences(plans, base or nearest.plan, nearest.estimate.operators)
    reasons = [with_metric(other.reason if all_as_sized else other.full_reason, metric) for other in shown]
    is_compared = any(alternative.added_usd_per_h is not None for alternative in shown)
    if is_compared:
        others = "; if their plans change, too, undivided requests may cost less" if base and base.is_split else ""
        notes.append(f"total cost: change for all queries together, the others on their plans{others}")
    shared = len(set(reasons)) == 1
    if shared:
        notes.append(f"reason{' of all' * (len(shown) > 1)}: {reasons[0]}")
    cost = "total cost" if is_compared else "cost alone"
    table = make_table(None, ("change",), ("latency", metric, cost), "" if shared else "reason", one_line=True)
    for index, (alternative, text) in enumerate(zip(shown, texts, strict=True)):
        estimate = alternative.estimate
        reason = "as above" if index and reasons[index] == reasons[index - 1] else reasons[index]
        table.add_row(
            escape(text or label),
            format_duration(estimate.latency_s.value),
            format_score(estimate.accuracy.value),
            added_cost_text(alternative.added_usd_per_h)
            if is_compared
            else format_usd_per_h(estimate.cost_usd_per_h.upper),
            *([] if shared else [escape(reason)]),
        )
    return Group(*(Text(note, style="italic") for note in notes), table)


def admission_text(admission: Admission, metric: str = ACCURACY) -> RenderableType:
    """Return the explanation of an admission decision; that of a rejection includes shadow prices."""
    if admission.assignment is not None:
        return assignment_explanation(admission.assignment, admission.query, metric)
    assert admission.rejection is not None
    prices = [Text(_shadow_price_text(price)) for price in admission.binding]
    return Group(rejection_explanation(admission.rejection, admission.query, metric), *prices)


def unserved_text(
    rejections: Iterable[Rejection], unplanned: Iterable[str], metrics: Mapping[str, str], plan_file: Path
) -> str:
    """Return the queries that a plan does not serve, each with the command or the change that may serve it.

    Args:
        rejections: rejected queries.
        unplanned: queries that the plan has no decision on.
        metrics: query -> name of its metric.
        plan_file: file of the plan.
    """
    reasons = []
    for rejection in rejections:
        metric, change = metrics.get(rejection.query, ACCURACY), rejection.relaxation
        advice = f"`circinus explain {rejection.query}`"
        if change is not None:
            advice = f"would be admitted with {with_metric(change.change, metric)}"
        reasons.append(f"{rejection.query} (rejected; {advice})")
    reasons += [f"{query} (not planned yet; `circinus admit {query}`)" for query in unplanned]
    more = [f"{len(reasons) - _MAX_UNSERVED} more (`circinus explain`)"] if len(reasons) > _MAX_UNSERVED else []
    return f"not served by {plan_file}: {', '.join([*reasons[:_MAX_UNSERVED], *more])}"


def _shadow_price_text(price: ShadowPrice) -> str:
    """Return `pool edge: cpus is 97% allocated; if queries ... were divisible, one more CPU would ...`."""
    effects = [f"add a weight of {price.weight:.3g}"] if price.weight > 0 else []
    effects += [f"save {format_usd_per_h(price.saving_usd_per_h)}"] if price.saving_usd_per_h > 0 else []
    used = f"{price.resource} is {price.used:.0%} allocated"
    marginal = f"if queries and replicas were divisible, one more {price.unit} would"
    return f"{used}; {marginal} {' and '.join(effects)}" if effects else used
