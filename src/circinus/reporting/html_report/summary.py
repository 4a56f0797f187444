"""First part of a report: what is served at what cost, and what is rejected and why."""

from __future__ import annotations

from circinus.matching import Assignment, Matching, Rejection
from circinus.reporting.html_report.content import ReportContent
from circinus.reporting.html_report.markup import Html, bar, element, join, paragraph, table
from circinus.reporting.plan_table import cost_gap_text, latency_bound_text, tenant_line
from circinus.reporting.plan_text import placements_text
from circinus.reporting.tables import MetricNames
from circinus.specification.formatting import (
    Rounding,
    format_duration,
    format_score,
    format_usd_per_h,
    with_metric,
)


def summary_section(content: ReportContent) -> Html:
    """Return the figures of the whole plan, a line for each query, and the reasons of rejections."""
    matching, queries = content.matching, content.queries
    metrics = MetricNames(content.specification.metric_names, queries)
    served = len(matching.assignments)
    facts = [
        ("queries served", f"{served} of {len(queries)}", ""),
        (
            "weight served",
            f"{matching.satisfied_weight:g} of {matching.total_weight:g}",
            f"no plan{'' if matching.covers_all_utilizations else ' at utilization targets'} serves more than "
            f"{matching.weight_bound:g}",
        ),
        (
            "cost",
            format_usd_per_h(matching.cost_usd_per_h),
            _cost_bound(matching),
        ),
        ("deployments", str(len(matching.deployments)), f"{sum(d.replicas for d in matching.deployments)} replicas"),
    ]
    return join(
        (
            element("dl", *(_fact(*fact) for fact in facts), class_="facts"),
            *(paragraph(tenant_line(share).plain) for share in matching.tenants),
            table(
                ("query", "plan", "latency", "limit", metrics.column, "limit", "cost", "limit"),
                [
                    *(_served(content, assignment, metrics) for assignment in matching.assignments),
                    *(_rejected(content, rejection) for rejection in matching.rejections),
                ],
            ),
            paragraph("After ≤ or ≥: the bound that the plan promises.", style="remark"),
            *_reasons(content),
        )
    )


def _cost_bound(matching: Matching) -> str:
    if matching.optimal:
        return "proved optimal"
    if matching.has_cost_bound:
        return f"at least {format_usd_per_h(matching.cost_bound_usd_per_h)}"
    return cost_gap_text(matching)


def _fact(name: str, value: str, remark: str) -> Html:
    remarks = [element("dd", remark, class_="remark")] if remark else []
    return element("div", element("dt", name), element("dd", value), *remarks)


def _link(content: ReportContent, query: str) -> Html:
    return element("a", query, href=f"#query-{list(content.queries).index(query)}")


def _served(content: ReportContent, assignment: Assignment, metrics: MetricNames) -> tuple[str, ...]:
    """Return the cells of a served query: estimates with their unfavourable bounds, and limits."""
    estimate = assignment.chosen.estimate
    latency_limit, accuracy_limit, cost_limit = _limits(content, assignment.query)
    slos = content.queries[assignment.query].slos
    latency = f"{format_duration(estimate.latency_s.value)} ≤ {latency_bound_text(estimate, slos)}"
    share = None if slos.latency is None else estimate.latency_s.upper / slos.latency.limit
    limit = None if slos.accuracy is None else slos.accuracy.limit
    sign, bound = "≥", format_score(estimate.accuracy.lower, rounding=Rounding.DOWN, limit=limit)
    if slos.accuracy is not None and not slos.accuracy.is_minimum:
        sign, bound = "≤", format_score(estimate.accuracy.upper, rounding=Rounding.UP, limit=limit)
    scores = metrics.cell(assignment.query, f"{format_score(estimate.accuracy.value)} {sign} {bound}")
    return (
        _link(content, assignment.query),
        placements_text(assignment.chosen),
        latency if share is None else bar(share, latency),
        latency_limit,
        scores,
        accuracy_limit,
        format_usd_per_h(estimate.cost_usd_per_h.value),
        cost_limit,
    )


def _rejected(content: ReportContent, rejection: Rejection) -> tuple[str, ...]:
    limits = ((cell, "") for cell in _limits(content, rejection.query))
    cells = [cell for pair in limits for cell in pair][:-1]
    return (_link(content, rejection.query), element("span", "✗ rejected", class_="bad"), "", *cells)


def _limits(content: ReportContent, query: str) -> tuple[str, str, str]:
    """Return the limits of latency, accuracy and cost; empty without an SLO."""
    slos = content.queries[query].slos
    return (
        "" if slos.latency is None else f"p{slos.latency.percentile:g} ≤ {slos.latency.limit_text}",
        "" if slos.accuracy is None else f"{'≥' if slos.accuracy.is_minimum else '≤'} {slos.accuracy.limit_text}",
        "" if slos.cost is None else f"≤ {slos.cost.limit_text}",
    )


def _reasons(content: ReportContent) -> list[Html]:
    """Return the reason of each rejection; queries that share it are named together."""
    names: dict[str, list[str]] = {}
    for rejection in content.matching.rejections:
        reason = with_metric(rejection.reason, content.metric(rejection.query))
        names.setdefault(reason, []).append(rejection.query)
    lines = [element("li", element("strong", ", ".join(queries)), f": {reason}") for reason, queries in names.items()]
    return [element("h3", "Rejected, and why"), element("ul", *lines)] if lines else []
