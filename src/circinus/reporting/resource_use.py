"""Allocation of pools and links, utilization of deployments, and prices, one line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby

from rich.console import Group, RenderableType
from rich.text import Text

from circinus.matching import Matching, ShadowPrice, SizedDeployment
from circinus.reporting.plan_text import format_cpus
from circinus.reporting.tables import OneLine, bar, make_table
from circinus.specification import Infrastructure, Network, Pool
from circinus.specification.formatting import (
    format_amount,
    format_bandwidth,
    format_bytes,
    format_range,
    format_usd_per_h,
)

UNUSED = 5e-4
"""Share of a capacity below which a link counts as unused."""


def use_table(matching: Matching, infrastructure: Infrastructure) -> RenderableType:
    """Return a line for each pool, one for its deployments of equal size, and one for each link in use.

    Pools and links show the share that is allocated, elastic pools that of the nodes that run; deployments show how
    utilized they are.
    """
    prices = {
        name: sorted(group, key=lambda price: -price.used)
        for name, group in groupby(matching.prices, key=lambda price: price.resource.partition(": ")[0])
    }
    table = make_table(None, ("pools and links",), (), one_line=True)
    table.add_column("allocated", no_wrap=True)
    table.add_column("price", justify="right", no_wrap=True)
    for pool in infrastructure.pools:
        amounts = [running_amount(price, pool, matching) for price in prices.get(f"pool {pool.name}", [])]
        deployments = list(_deployments(matching, pool.name))
        if amounts or deployments or matching.nodes.get(pool.name):
            used, number = _used(amounts), nodes_text(pool, matching)
            if pool.is_elastic:
                running = matching.nodes.get(pool.name, 0)
                nodes = f"{running} of at most {pool.nodes} nodes"
                used, number = f"{used}\n{nodes}" if running and used else f"{bar(0.0)} {nodes}", f"{running} x "
            table.add_row(OneLine(pool.name), used, f"{number}{format_usd_per_h(pool.paid_usd_per_h)}")
        for row in deployments:
            table.add_row(*row)
    unused = []
    for link in Network(infrastructure).links:
        amounts = prices.get(f"link {link.name}", [])
        if any(price.used >= UNUSED or marginal_values_text(price) for price in amounts):
            per_gb = f"${link.price_usd_per_gb:g}/GB" if link.price_usd_per_gb else ""
            table.add_row(OneLine(link.name), _used(amounts), per_gb)
        elif amounts:
            unused.append(link.name)
    notes = [f"hardly used: {', '.join(unused)}"] if unused else []
    tables = [table] if table.row_count else []
    return Group(*tables, *(Text(note, style="dim") for note in notes))


def nodes_text(pool: Pool, matching: Matching, times: str = "x") -> str:
    """Return the number of a pool's nodes as a factor, of an elastic pool with those that run; "" for one node."""
    if pool.is_elastic:
        return f"{matching.nodes.get(pool.name, 0)} of at most {pool.nodes} {times} "
    return f"{pool.nodes} {times} " if pool.nodes > 1 else ""


def running_amount(amount: ShadowPrice, pool: Pool, matching: Matching) -> ShadowPrice:
    """Return the capacity and use of a pool's resource; of an elastic pool those of the nodes that run."""
    running = matching.nodes.get(pool.name, 0) / pool.nodes if pool.is_elastic else 1.0
    used = amount.used / running if running else 0.0
    return replace(amount, capacity=amount.capacity * running, used=used)


def _deployments(matching: Matching, pool: str) -> Iterable[tuple[RenderableType, ...]]:
    """Return a row for the deployments of equal size in a pool, in the order of the pipeline."""
    stages = [stage.operator for assignment in matching.assignments for stage in assignment.chosen.estimate.stages]
    several = len({sized.deployment.pipeline for sized in matching.deployments}) > 1
    sized = [sized for sized in matching.deployments if sized.deployment.pool == pool]
    sized.sort(key=lambda sized: (*_size(sized), stages.index(sized.deployment.operator)))
    for (pipeline, replicas, cpus, gpus, batch_size), equal in groupby(sized, key=_size):
        group = list(equal)
        parts = [f"{f'{replicas} x ' if replicas > 1 else ''}{format_cpus(cpus)}"]
        parts += [format_amount("gpus", gpus)] if gpus else []
        parts += [f"batch {batch_size}"] if batch_size > 1 else []
        used = [sized.utilization for sized in group]
        utilization = format_range("{:.0%}".format, min(used), max(used))
        each = " each" if len(group) > 1 else ""
        name = f"{pipeline}: " if several else ""
        yield (
            OneLine(f"  {name}{', '.join(_counted(sized.deployment.operator for sized in group))}"),
            f"{bar(max(used))} {utilization} utilized, {', '.join(parts)}{each}",
            format_usd_per_h(sum(sized.cost_usd_per_h for sized in group)),
        )


def _counted(operators: Iterable[str]) -> list[str]:
    """Return each operator once, with the number of its deployments with different knobs if there are several."""
    return [f"{name} x{count}" if count > 1 else name for name, count in Counter(operators).items()]


def _size(sized: SizedDeployment) -> tuple[str, int, float, float, int]:
    deployment = sized.deployment
    replica = sized.demand.cpus, sized.demand.gpus, deployment.allocation.batch_size
    return deployment.pipeline, sized.replicas, *replica


def _used(amounts: list[ShadowPrice]) -> str:
    """Return the use of a pool's resources or of a link, as a bar for the first one, and what one more unit adds."""
    if not amounts:  # no plan at utilization targets may use the pool
        return ""
    parts = (f"{price.used:.0%} of {capacity_text(price)}" for price in amounts)
    return "\n".join([f"{bar(amounts[0].used)} {', '.join(parts)}", *filter(None, map(marginal_values_text, amounts))])


def capacity_text(price: ShadowPrice) -> str:
    """Return the capacity of a resource with its unit."""
    match price.unit:
        case "GiB":
            return format_bytes(price.capacity * 2.0**30)
        case "MB/s":
            return f"{format_bandwidth(price.capacity * 1e6)} usable"
        case _:
            return format_amount(price.unit + "s", price.capacity)


def marginal_values_text(price: ShadowPrice) -> str:
    """Return the marginal weight and saving of a binding resource."""
    effects = [f"weight +{price.weight:.3g}"] if price.weight > 0 else []
    effects += [f"-{format_usd_per_h(price.saving_usd_per_h)}"] if price.saving_usd_per_h > 0 else []
    return f"one more {price.unit}: {', '.join(effects)}" if effects else ""
