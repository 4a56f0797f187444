"""Pools and links with their use and price."""

from __future__ import annotations

from collections.abc import Iterator

from circinus.matching import ShadowPrice
from circinus.reporting.html_report.content import ReportContent
from circinus.reporting.html_report.markup import Html, bar, join, paragraph, table
from circinus.reporting.plan_table import unpriced_text
from circinus.reporting.resource_use import UNUSED, capacity_text, marginal_values_text, nodes_text, running_amount
from circinus.specification import Network
from circinus.specification.formatting import format_usd_per_h

_HEADS = ("pool or link", "resource", "allocated", "capacity", "price", "marginal value")


def resource_section(content: ReportContent) -> Html:
    """Return the use and price of pools and links; links that are hardly used are only named."""
    rows = list(_rows(content))
    idle = [name for name, kind, amount, _ in rows if kind == "bandwidth" and _is_idle(amount)]
    cells = [
        (name, kind, bar(amount.used, f"{amount.used:.0%}"), capacity_text(amount), price, marginal_values_text(amount))
        for name, kind, amount, price in rows
        if name not in idle
    ]
    notes = [f"Hardly used: {', '.join(idle)}."] if idle else []
    if any(row[-1] for row in cells):
        notes.append("Marginal values as if queries and replicas were divisible; a replica may need several units.")
        resources = table(_HEADS, cells)
    else:
        text = unpriced_text(content.matching)
        notes.append(f"{text[0].upper()}{text[1:]}.")
        resources = table(_HEADS[:-1], [row[:-1] for row in cells])
    return join((resources, paragraph(" ".join(notes), style="remark")))


def _is_idle(amount: ShadowPrice) -> bool:
    return amount.used < UNUSED and not marginal_values_text(amount)


def _rows(content: ReportContent) -> Iterator[tuple[str, str, ShadowPrice, str]]:
    """Yield name, resource, amount and price for each resource of a pool and each direction of a link."""
    infrastructure = content.specification.required_infrastructure
    names = {
        f"pool {pool.name}": (
            pool.name,
            f"{nodes_text(pool, content.matching, '×')}{format_usd_per_h(pool.paid_usd_per_h)}",
        )
        for pool in infrastructure.pools
    }
    for link in Network(infrastructure).links:
        price = f"${link.price_usd_per_gb:g}/GB" if link.price_usd_per_gb else ""
        names[f"link {link.name}"] = f"{link.source} → {link.target}", price
    pools = {f"pool {pool.name}": pool for pool in infrastructure.pools}
    for amount in content.matching.prices:
        resource, _, kind = amount.resource.partition(": ")
        name, price = names[resource]
        if resource in pools:
            amount = running_amount(amount, pools[resource], content.matching)
        yield name, kind or "bandwidth", amount, price
        names[resource] = name, ""
