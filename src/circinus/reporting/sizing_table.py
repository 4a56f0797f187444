"""Tables of a sizing: nodes, what each query adds, what looser SLOs save, and the cost over the share of weight."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from circinus.matching.machine_sizing import CurvePoint, MachineSizing
from circinus.matching.sufficient_machines import added_nodes
from circinus.reporting.plan_table import rejection_lines
from circinus.reporting.tables import MetricNames, OneLine, bar, make_table
from circinus.specification import Infrastructure
from circinus.specification.formatting import format_percentage, format_usd_per_h, with_metric

_MAX_UNSERVED = 3
"""Maximum number of queries that a line of the curve names."""


def sizing_table(
    sizing: MachineSizing, infrastructure: Infrastructure, sufficient: MachineSizing | None = None
) -> RenderableType:
    """Return the tables of a sizing.

    Args:
        sizing: the cheapest machines.
        infrastructure: with the chosen numbers of nodes.
        sufficient: the cheapest machines that serve more, beyond those allowed.
    """
    matching, metrics = sizing.matching, sizing.specification.metric_names
    served, queries = len(matching.assignments), len(sizing.specification.queries)
    which = f"all {queries} queries" if served == queries else f"{served} of {queries} queries"
    weight = f"weight {matching.satisfied_weight:g} of {matching.total_weight:g}"
    summary = f"{format_usd_per_h(sizing.cost_usd_per_h)} for the cheapest machines that serve {which}, {weight}"
    parts: list[RenderableType] = [Text(summary, style="bold"), Text(_certificate(sizing), style="dim"), Text()]
    parts.append(_pools(sizing, infrastructure))
    if matching.rejections:
        parts += [Text(), *_rejections(sizing, sufficient, MetricNames(metrics, metrics))]
    if sizing.added_usd_per_h:
        parts += [Text(), *_added(sizing), *_savings(sizing), Text(), _curve(sizing.curve)]
    return Group(*parts)


def _rejections(sizing: MachineSizing, sufficient: MachineSizing | None, metrics: MetricNames) -> list[RenderableType]:
    """Return the reasons of rejections, and the nodes with which rejected queries are served instead of theirs."""
    served = frozenset[str]() if sufficient is None else sufficient.matching.served
    reasons = [rejection for rejection in sizing.matching.rejections if rejection.query not in served]
    lines = rejection_lines(reasons, metrics)
    if sufficient is None:
        return lines
    names = ", ".join(rejection.query for rejection in sizing.matching.rejections if rejection.query in served)
    options = " ".join(f"--max-nodes {pool}={nodes}" for pool, nodes in added_nodes(sizing, sufficient).items())
    count, queries = len(served), len(sizing.specification.queries)
    text = f": the allowed machines are too small; with {options}, {count} of {queries} queries are served"
    price = f" for {format_usd_per_h(sufficient.cost_usd_per_h)}"
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row("[red]✗[/red]", Text.assemble((names, "bold"), text, price))
    return [*lines, grid]


def _certificate(sizing: MachineSizing) -> str:
    """Return what is proved of the cost."""
    matching = sizing.matching
    targets = "" if matching.covers_all_utilizations else " at utilization targets"
    of = f"plans{targets}" + ("" if matching.covers_divided_requests else " that divide no requests")
    if not matching.assignments:
        return "no allowed machines serve any query"
    if sizing.has_open_spares:
        return "not proved: spare replicas depend on the number of nodes of spot pools"
    if matching.cost_at_targets_usd_per_h is not None:
        lowest = format_usd_per_h(matching.cost_at_targets_usd_per_h)
        return f"cheaper than any with {of}, which cost at least {lowest}"
    if sizing.is_optimal:
        return f"proved: with {of}, no allowed machines that serve as much are cheaper"
    gap = 1.0 - sizing.cost_bound_usd_per_h / sizing.cost_usd_per_h
    lowest = format_usd_per_h(sizing.cost_bound_usd_per_h)
    return f"with {of}, others that serve as much cost at least {lowest}: gap {format_percentage(gap)}"


def _pools(sizing: MachineSizing, infrastructure: Infrastructure) -> Table:
    table = make_table(None, ("pool",), ("nodes", "price", "cost"), one_line=True)
    for pool in infrastructure.pools:
        candidate = sizing.specification.required_infrastructure.pool(pool.name)
        nodes = f"{pool.nodes} of {candidate.nodes}" if candidate.min_nodes is not None else f"{pool.nodes} kept"
        cost = format_usd_per_h(pool.nodes * pool.paid_usd_per_h) if pool.bills_nodes else ""
        table.add_row(OneLine(pool.name), nodes, format_usd_per_h(pool.paid_usd_per_h), cost)
    if transfers_usd_per_h := sizing.matching.transfer_cost_usd_per_h:
        table.add_row("transfers", "", "", format_usd_per_h(transfers_usd_per_h))
    return table


def _added(sizing: MachineSizing) -> list[RenderableType]:
    """Return a line for each query that adds to the cost, and the names of the others."""
    queries = {query.name: query for query in sizing.specification.queries}
    adding = {name: usd_per_h for name, usd_per_h in sizing.added_usd_per_h.items() if usd_per_h > 0}
    at_least = "" if sizing.are_added_exact else " at least"
    others = ", ".join(name for name in sizing.added_usd_per_h if name not in adding)
    notes: list[RenderableType] = (
        [Text(f"the machines cost as much without any one of: {others}", style="dim")] if others else []
    )
    if not adding:
        return notes
    table = make_table(None, ("query", "SLOs"), ("weight", f"adds{at_least}"), one_line=True)
    for name, usd_per_h in sorted(adding.items(), key=lambda item: -item[1]):
        slos = with_metric(str(queries[name].slos), sizing.specification.metric_names[name])
        table.add_row(OneLine(name), OneLine(slos), f"{queries[name].weight:g}", format_usd_per_h(usd_per_h))
    return [table, *notes]


def _savings(sizing: MachineSizing) -> list[RenderableType]:
    """Return a line for each looser SLO with which cheaper machines do."""
    if not any(sizing.added_usd_per_h.values()):
        return [Text("so no single looser SLO saves anything", style="dim")]
    if not sizing.savings:
        return [Text("no single looser SLO was found to save anything", style="dim")]
    metrics, grid = sizing.specification.metric_names, Table.grid(padding=(0, 2, 0, 0))
    for saving in sizing.savings:
        change = f"{saving.query}: {with_metric(saving.change, metrics[saving.query])}"
        grid.add_row(f"saves {format_usd_per_h(saving.saving_usd_per_h)}", Text(change))
    return [grid]


def _curve(points: tuple[CurvePoint, ...]) -> Table:
    table = make_table(None, (), ("weight served", "cost"), "not served", one_line=True)
    highest = points[0].cost_usd_per_h
    for point in points:
        share = point.cost_usd_per_h / highest if highest else 0.0
        unserved = list(point.unserved)
        more = f" and {len(unserved) - _MAX_UNSERVED} more" if len(unserved) > _MAX_UNSERVED else ""
        names = f"{', '.join(unserved[:_MAX_UNSERVED])}{more}"
        cost = f"{bar(share)} {format_usd_per_h(point.cost_usd_per_h)}"
        table.add_row(format_percentage(point.share), cost, OneLine(names))
    return table
