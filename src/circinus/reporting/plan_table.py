"""Tables of plans, deployments and shadow prices."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from circinus.estimation import Estimate, PlanCandidate
from circinus.matching import Assignment, Matching, ProfileCoverage, Rejection, SizedDeployment, TenantShare
from circinus.planning import BestEffortPlan
from circinus.planning.frontier import MEASUREMENTS
from circinus.planning.violations import describe_violation
from circinus.reporting.plan_text import operator_text, placement_text, plan_text, replica_text, split_text
from circinus.reporting.tables import FirstFitting, MetricNames, OneLine, WrappedTitle, make_table
from circinus.specification import Pool, Query, SloKind, Slos
from circinus.specification.formatting import (
    ACCURACY,
    ceil_significant,
    format_bytes,
    format_duration,
    format_latency_bound,
    format_percentage,
    format_score,
    format_usd_per_h,
    with_metric,
)

_MAX_REJECTED = 4
"""Maximum number of rejected queries that a sentence names."""
_FULL = 0.95
"""Share of a capacity from which a resource counts as full."""
_TIGHT = 0.05
"""Share of a limit below which the margin to it is highlighted."""
_MIN_LIMIT = 1e-9
_HINT = "`circinus explain QUERY` looks for changes that serve the query beside the others"
_SIMULATED, _ROUGH = "*", "~"
"""Marks of latencies for which formulas may be inaccurate."""
_DIVIDED = "÷"
"""Mark of the placement of a split plan, which is that of the largest share."""


def format_probability(value: float) -> str:
    """Return `0.83` for 0.834; never round to certainty: `> 0.99`."""
    if 0.995 <= value < 1:
        return "> 0.99"
    if 0 < value < 0.005:
        return "< 0.01"
    return f"{value:.2f}"


def latency_bound_text(estimate: Estimate, slos: Slos) -> str:
    """Return the upper bound of the latency; it is printed within a limit that it meets."""
    return format_latency_bound(estimate.latency_s.upper, limit=None if slos.latency is None else slos.latency.limit)


def added_cost_text(added_usd_per_h: float | None) -> str:
    """Return a change of the total cost with its sign; empty if the plan was not compared by cost."""
    if added_usd_per_h is None:
        return ""
    return f"{'-' if added_usd_per_h < 0 else '+'}{format_usd_per_h(abs(added_usd_per_h))}"


def best_effort_text(best: BestEffortPlan, query: Query, metric: str = ACCURACY, reason: str = "") -> str:
    """Return the best plan without a guarantee, its SLO probability, the bounds that miss SLOs, and the lacking items.

    Args:
        best: the plan.
        query: its query.
        metric: name of the metric.
        reason: printed above; bounds that it names are left out.
    """
    estimate, slos = best.candidate.estimate, query.slos.by_kind
    violations = estimate.violations(query.slos, sized=best.is_sized)
    missed = [describe_violation(estimate, slos[kind], sized=best.is_sized) for kind in violations]
    unnamed = [violation for violation in missed if violation not in reason]
    sizes = "as sized beside the other queries" if best.is_sized else "in isolation, at its utilization targets"
    items = "" if best.items is None else f", estimated from {best.items} of {best.population} items"
    text = (
        f"best plan so far: {plan_text(best.candidate.plan, estimate)}; {sizes}, it meets the SLOs with probability "
        f"{format_probability(best.probability)}{items}"
    )
    if unnamed:
        text += f"; its bounds miss the SLOs: {' and '.join(unnamed)}"
    if best.more_items is not None:
        text += f"; {_more_items(best.more_items)} besides held-out ones would guarantee accuracy {query.slos.accuracy}"
        text += " in about half of the cases"
    return with_metric(text, metric)


def _more_items(count: int) -> str:
    return "1 more item" if count == 1 else f"about {ceil_significant(count, 2):,.0f} more items"


def plan_table(
    matching: Matching,
    queries: Mapping[str, Query],
    metrics: Mapping[str, str] | None = None,
    coverage: Mapping[str, ProfileCoverage] | None = None,
) -> RenderableType:
    """Return a summary, one line for each served query, and the reason for each rejected one.

    Args:
        matching: plans and rejections.
        queries: queries by name.
        metrics: query -> name of its metric.
        coverage: pipeline -> what was measured of it.
    """
    names = MetricNames(metrics or {}, queries)
    served = [(assignment, queries[assignment.query]) for assignment in matching.assignments]
    plans: list[RenderableType] = []
    if served:
        codes = _pool_codes(stage.pool for assignment, _ in served for stage in assignment.chosen.estimate.stages)
        legend = f"pools of the operators in order: {', '.join(f'{code} {pool}' for pool, code in codes.items())}"
        tables = (_served_table(served, names, details) for details in (3, 2, 1))
        short = (Group(_served_table(served, names, details, codes), Text(legend, style="dim")) for details in (1, 0))
        plans = [FirstFitting(*tables, *short), *_latency_notes(matching), *_divisions(matching), Text()]
    return Group(
        _summary(matching),
        Text(),
        *plans,
        *rejection_lines(matching.rejections, names),
        *[Text(_HINT, style="dim")] * bool(matching.rejections),
        *_promising(matching.rejections, queries, coverage or {}),
        Text(_optimality(matching, coverage or {}), style="dim"),
        *_change_limit_line(matching),
        *map(tenant_line, matching.tenants),
    )


def _summary(matching: Matching) -> Text:
    served, rejected = len(matching.assignments), [rejection.query for rejection in matching.rejections]
    text = Text(
        f"{served} of {served + len(rejected)} queries served, weight {matching.satisfied_weight:g} of "
        f"{matching.total_weight:g}, {format_usd_per_h(matching.cost_usd_per_h)}",
        style="bold",
    )
    if rejected:
        below = ", see below" if len(rejected) > _MAX_REJECTED else ""
        text.append("; ").append("rejected", "red").append(f": {_named(rejected)}{below}")
    return text


def _named(queries: Sequence[str]) -> str:
    return ", ".join(queries) if len(queries) <= _MAX_REJECTED else f"{len(queries)} queries"


def _served_table(
    served: Sequence[tuple[Assignment, Query]],
    metrics: MetricNames,
    details: int,
    codes: Mapping[str, str] | None = None,
) -> Table:
    """Return a line for each query.

    Args:
        served: assignments with their queries.
        metrics: names of the metrics.
        details: 3 for all SLOs with their limits, 2 for the tightest with its limit, 1 for its kind only, 0 for none.
        codes: pool -> its code, one of which is written for each operator; None: the names of the pools.
    """
    percentiles = {assignment.chosen.estimate.percentile for assignment, _ in served}
    shared = f"p{percentiles.pop():g}" if len(percentiles) == 1 else ""
    placement = "pools" if codes else "placement"
    separator = " " if codes and any(len(code) > 1 for code in codes.values()) else ""
    table = make_table(None, ("query", placement), (f"{shared or 'latency'} ≤ bound",), one_line=True)
    for column in table.columns[:2]:  # else names are shortened before a title is wrapped
        column.no_wrap = True
    table.add_column(WrappedTitle(metrics.column), justify="right")
    table.add_column("cost", justify="right", no_wrap=True)
    for title in ("margin", "SLOs")[: 2 if details == 3 else 1]:
        table.add_column(title, no_wrap=True)
    for assignment, query in served:
        estimate = assignment.chosen.estimate
        share, slo = _tightest(estimate, query)
        divided = _DIVIDED if assignment.chosen.plan.is_split else ""
        tightest = f" of {metrics.text(query.name, slo)}" if details == 2 else f" {slo.partition(' ')[0]}"
        margin = f"{share:4.0%}{tightest if details else ''}" if slo else "no SLOs"
        table.add_row(
            OneLine(query.name, whole=True),
            OneLine(" ".join(filter(None, [placement_text(estimate), divided])), whole=True)
            if codes is None
            else OneLine(separator.join(codes[stage.pool] for stage in estimate.stages) + divided, whole=True),
            OneLine(_latency(estimate, query).removeprefix(f"{shared} "), whole=True),
            OneLine(metrics.cell(query.name, format_score(estimate.accuracy.value)), whole=True),
            format_usd_per_h(estimate.cost_usd_per_h.value),
            OneLine(margin, "yellow" if share < _TIGHT else "", whole=True),
            *([OneLine(metrics.text(query.name, query.slos), whole=True)] if details == 3 else []),
        )
    return table


def _tightest(estimate: Estimate, query: Query) -> tuple[float, str]:
    """Return the smallest margin to an SLO, as a share of its limit, and that SLO; infinity and "" without any."""
    margins = (
        (slo.margin(estimate.compared_value(slo, sized=True)) / max(abs(slo.limit), _MIN_LIMIT), f"{kind} {slo}")
        for kind, slo in query.slos.by_kind.items()
    )
    return min(margins, default=(math.inf, ""))


def _pool_codes(pools: Iterable[str]) -> dict[str, str]:
    """Return a code for each pool: its initial, its words' initials, or a number, the first without clashes."""
    names = list(dict.fromkeys(pools))
    for code in (lambda name: name[0], lambda name: "".join(re.findall(r"\b[^\W_]|(?<=_)[^\W_]|\d", name))):
        codes = {name: code(name) for name in names}
        if len(set(codes.values())) == len(names) and all(codes.values()):
            return codes
    return {name: f"{number}" for number, name in enumerate(names, 1)}


def _latency(estimate: Estimate, query: Query) -> str:
    """Return the percentile with its bound, marked if formulas may be inaccurate: `p95 19.1 ≤ 21.2 ms*`."""
    value, bound = format_duration(estimate.latency_s.value), latency_bound_text(estimate, query.slos)
    unit = f" {bound.partition(' ')[2]}"
    mark = "" if not estimate.caveats else _SIMULATED if estimate.simulated else _ROUGH
    return f"p{estimate.percentile:g} {value.removesuffix(unit)} ≤ {bound}{mark}"


def _latency_notes(matching: Matching) -> list[Text]:
    doubtful = [a.chosen.estimate.simulated for a in matching.assignments if a.chosen.estimate.caveats]
    marks = [f"{_SIMULATED} simulated"] * any(doubtful) + [f"{_ROUGH} rough"] * (not all(doubtful))
    note = f"{', '.join(marks)}: formulas may be inaccurate under this load"
    return [Text(note, style="dim")] if marks else []


def _divisions(matching: Matching) -> list[RenderableType]:
    split = [(a.query, a.chosen) for a in matching.assignments if a.chosen.plan.is_split]
    return [division_line(f"{_DIVIDED} {query} divided", chosen) for query, chosen in split]


def division_line(title: str, candidate: PlanCandidate) -> RenderableType:
    """Return one line of the shares of a split plan and of what differs between its parts.

    Narrow terminals show what the others change of the largest share.
    """
    plan, operators = candidate.plan, candidate.estimate.operators
    texts = (split_text(plan, operators), split_text(plan, operators, of_first=False))
    full, short = (f"{title}: {text}" for text in texts)
    return FirstFitting(OneLine(full, whole=True), OneLine(short))


def rejection_lines(rejections: Sequence[Rejection], metrics: MetricNames) -> list[RenderableType]:
    """Return a sentence for each group of rejected queries that share it."""
    if not rejections:
        return []
    names: dict[str, list[str]] = {}
    for rejection in rejections:
        text = with_metric(_rejection_text(rejection), metrics.of(rejection.query))
        names.setdefault(text, []).append(rejection.query)
    table = Table.grid(padding=(0, 2, 0, 0))
    for text, rejected in names.items():
        table.add_row("[red]✗[/red]", Text.assemble((", ".join(rejected), "bold"), f": {text}"))
    return [table]


def _promising(
    rejections: Sequence[Rejection], queries: Mapping[str, Query], coverage: Mapping[str, ProfileCoverage]
) -> list[Text]:
    """Return a line for each pipeline of which more measurements may serve a rejected query.

    Unmeasured configurations may if no capacity excludes it. More items may, too: a profile ends where it decides the
    SLOs of its time, and stricter ones find configurations with few items.
    """
    lines = []
    for pipeline in dict.fromkeys(queries[rejection.query].pipeline for rejection in rejections):
        own = [rejection for rejection in rejections if queries[rejection.query].pipeline == pipeline]
        lacking = any({MEASUREMENTS, *SloKind}.issuperset(rejection.binding) for rejection in own)
        undecided = [rejection.query for rejection in own if _is_undecided(rejection, queries[rejection.query].slos)]
        covered = coverage.get(pipeline)
        if covered is not None and covered.promising and lacking:
            lines.append(f"pipeline {pipeline}: only {covered}; `circinus profile` finds out whether more help")
        elif covered is not None and undecided and (covered.promising or not covered.unmeasured):
            more = f"more measured items may give {_named(undecided)} a plan"
            lines.append(f"pipeline {pipeline}: {more}; `circinus profile` finds out")
    return [Text(line, style="yellow") for line in lines]


def _is_undecided(rejection: Rejection, slos: Slos) -> bool:
    """Return whether the best plan so far may meet the accuracy SLO, and has items left to measure."""
    best = rejection.best_so_far
    if best is None or best.items is None or best.items >= best.population or slos.accuracy is None:
        return False
    bounds = best.candidate.estimate.accuracy
    return slos.accuracy.is_met_by(bounds.lower) != slos.accuracy.is_met_by(bounds.upper)


def _rejection_text(rejection: Rejection) -> str:
    """Return what the nearest plan misses, and the number of items that the data set lacks.

    Relaxed SLOs are left to `explain`: only an admission beside the other queries tells which ones suffice.
    """
    if not rejection.alternatives:
        return rejection.reason
    nearest, best = rejection.alternatives[0], rejection.best_so_far
    if nearest.reason.startswith("needs "):  # another plan may need less
        return f"its nearest plan {nearest.full_reason}"
    if best is None or best.more_items is None or best.candidate.plan != nearest.plan:
        return nearest.full_reason
    return f"{nearest.full_reason} → {_more_items(best.more_items)}"


def tenant_line(share: TenantShare) -> Text:
    """Return the weight that a tenant's served queries have, and its guarantee."""
    text = f"tenant {share.tenant}: weight {share.satisfied_weight:g} of {share.total_weight:g} ({share.share:.0%})"
    if share.guaranteed_share == 0:
        return Text(text)
    if share.is_met:
        return Text(f"{text}, guaranteed {share.guaranteed_share:.0%}")
    return Text(
        f"{text}, below the guaranteed {share.guaranteed_share:.0%}: no matching with more was found", style="yellow"
    )


def _optimality(matching: Matching, coverage: Mapping[str, ProfileCoverage]) -> str:
    """Return the bounds on the weight and cost of all matchings.

    Where they are of plans at utilization targets, others may do better: a query without such a plan is served by a
    second look at times (see `second_look`).
    """
    measured = " of measured configurations" if any(covered.promising for covered in coverage.values()) else ""
    undivided = "" if matching.covers_divided_requests else "undivided "
    targets = "" if matching.covers_all_utilizations else " at utilization targets"
    bounds = f"bounds over all {undivided}plans{measured}{targets}"
    if matching.cost_at_targets_usd_per_h is not None:
        saving = 1.0 - matching.cost_usd_per_h / matching.cost_at_targets_usd_per_h
        return f"{bounds}: this costs {format_percentage(saving)} less than any of them can"
    if matching.optimal:
        return f"{bounds}: {'proved optimal among them' if matching.assignments else 'none serves a query'}"
    weight = f"weight at most {matching.weight_bound:.4g}, " if matching.rejections else ""
    if matching.weight_bound <= matching.satisfied_weight and weight:
        otherwise = "" if matching.covers_all_utilizations else ", although plans sized otherwise may serve more"
        weight = f"no more weight{otherwise}, "
    return f"{bounds}: {weight}{cost_gap_text(matching)}"


def cost_gap_text(matching: Matching) -> str:
    """Return the gap to the lower bound on the cost, or that there is no useful bound."""
    if matching.has_cost_bound:
        return f"cost gap at most {format_percentage(matching.cost_gap)}"
    return "no useful lower bound on the cost"


def _change_limit_line(matching: Matching) -> list[Text]:
    if matching.weight_with_more_changes is None:
        return []
    text = f"weight {matching.weight_with_more_changes:g} was found with more changes of running plans than are allowed"
    return [Text(text, style="yellow")]


def price_table(matching: Matching) -> RenderableType:
    """Return a table of the binding resources and their shadow prices, the most valuable first."""
    binding = [price for price in matching.prices if price.weight > 0 or price.saving_usd_per_h > 0]
    if not binding:
        return Text(unpriced_text(matching))
    figures = ("allocated", "capacity", "weight per unit", "saving per unit")
    table = make_table("Binding resources", ("resource",), figures)
    for price in sorted(binding, key=lambda price: (-price.weight * price.capacity, -price.saving_usd_per_h)):
        table.add_row(
            price.resource,
            f"{price.used:.0%}",
            f"{price.capacity:.4g} {price.unit}",
            f"{price.weight:.3g}" if price.weight > 0 else "",
            format_usd_per_h(price.saving_usd_per_h) if price.saving_usd_per_h > 0 else "",
        )
    note = "Marginal values, as if queries and replicas were divisible; a whole replica may need several units."
    return Group(table, Text(note, style="dim"))


def unpriced_text(matching: Matching) -> str:
    """Return that no resource has a shadow price, and which ones are full or short all the same, in whole replicas."""
    notes = []
    for price in matching.prices:
        short = [rejection.query for rejection in matching.rejections if price.resource in rejection.binding]
        need = f", and {_named(short)} would need more" if short else ""
        if short or price.used >= _FULL:
            notes.append(f"{price.resource} is {price.used:.0%} allocated{need}")
    text = (
        "no resource has a shadow price: if queries and replicas were divisible, more of it would neither serve more "
        "weight nor lower the cost"
    )
    return f"{text}; in whole replicas, {'; '.join(notes)}" if notes else text


def deployment_table(deployments: tuple[SizedDeployment, ...]) -> RenderableType:
    """Return a table of the sized deployments, without memory and start-up times where names need the room."""
    return FirstFitting(_deployments(deployments, whole=True), _deployments(deployments, whole=False))


def _deployments(deployments: tuple[SizedDeployment, ...], *, whole: bool) -> RenderableType:
    figures = ("replicas", "utilization", *(("start-up",) if whole else ()), "cost")
    table = make_table("Deployments", ("operator", "pool"), figures, one_line=True)
    for sized in sorted(deployments, key=lambda d: (d.deployment.pool, d.deployment.pipeline, d.deployment.operator)):
        deployment, startup_s = sized.deployment, sized.startup_s
        replicas = f"{sized.replicas} x {replica_text(deployment.allocation)}"
        memory = f", {format_bytes(sized.demand.memory_bytes)}" if whole else ""
        startup = "" if startup_s is None else format_duration(startup_s)
        table.add_row(
            OneLine(f"{deployment.pipeline}/{operator_text(deployment.operator, deployment.knobs)}", whole=whole),
            OneLine(deployment.pool, whole=whole),
            f"{replicas}{memory}",
            f"{sized.utilization:.0%}",
            *((startup,) if whole else ()),
            format_usd_per_h(sized.cost_usd_per_h),
        )
    return table


def spare_replicas_text(deployments: tuple[SizedDeployment, ...], pools: Sequence[Pool]) -> str:
    """Return how many replicas are spare on spot nodes, and why; empty if no deployment is on such nodes."""
    lines = []
    for pool in pools:
        spot, own = pool.spot, [sized for sized in deployments if sized.deployment.pool == pool.name]
        if spot is None or not own:
            continue
        counts = " or ".join(map(str, sorted({sized.demand.spare_replicas for sized in own})))
        late = max(sized.demand.late_share for sized in own)
        lines.append(
            f"{pool.name}: {counts} of each operator's replicas spare, as each node is interrupted "
            f"{spot.interruptions_per_h:g} times an hour and takes {format_duration(pool.node_startup_s)} to replace; "
            f"the requests that are delayed all the same, at most {ceil_significant(100 * late, 2):g}%, count as late"
        )
    return "\n".join(lines)
