"""Why a choice cannot be: the first thing that stands in its way, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from circinus.arrays import IntArray
from circinus.matching.bin_packing import pack_pools
from circinus.matching.problem import CAPACITY_TOLERANCE, RESOURCES, Problem, Usage
from circinus.matching.sizing import Reestimate, Sizing, evaluate_sizing
from circinus.specification import Slos
from circinus.specification.formatting import format_amount, format_bandwidth


@dataclass(frozen=True)
class Infeasibility:
    """What stands in the way of a choice."""

    binding: tuple[str, ...]
    """Resources (`pool edge: cpus`, `link home->edge`) or objectives (`latency`), the scarcest first."""
    reason: str
    excess: float
    """How much more than there is would be needed of the scarcest, as a share of it."""
    pools: frozenset[int] = frozenset()
    """Pools that more nodes would help."""


@dataclass(frozen=True)
class FeasibleSolution:
    """A choice that holds, as it would run."""

    usage: Usage
    sizing: Sizing


def check_feasibility(
    problem: Problem, chosen: IntArray, slos: Sequence[Slos], reestimate: Reestimate
) -> Infeasibility | FeasibleSolution:
    """Look at capacities, then at nodes, then at every query's objectives as sized."""
    usage = problem.usage_of(chosen)
    shortage = capacity_violation(problem, usage)
    if shortage is not None:
        return shortage
    _, cuts = pack_pools(problem, usage)
    if cuts:
        pools = frozenset(cut.pool for cut in cuts)
        names = [problem.pools[pool] for pool in sorted(pools)]
        return Infeasibility(
            binding=tuple(f"pool {name}: whole replicas on nodes" for name in names),
            reason=f"its replicas do not go on the nodes of pool {' and '.join(names)} beside the others",
            excess=0.0,
            pools=pools,
        )
    sizing = evaluate_sizing(problem, chosen, usage, slos, reestimate)
    if sizing.broken:
        first = sizing.broken[0]
        return Infeasibility(first.objectives, f"query {problem.queries[first.query]}: {first.reason}", 0.0)
    return FeasibleSolution(usage, sizing)


def capacity_violation(problem: Problem, usage: Usage) -> Infeasibility | None:
    """What a usage needs beyond the capacities."""
    found: list[tuple[float, str, str, int | None]] = []
    rows = problem.rows
    over = usage.rows > rows.limit * (1 + CAPACITY_TOLERANCE)
    for pool, resource in sorted(set(zip(rows.pool[over].tolist(), rows.resource[over].tolist(), strict=True))):
        here = np.flatnonzero(over & (rows.pool == pool) & (rows.resource == resource))
        called, where = RESOURCES[resource], f"pool {problem.pools[pool]}"
        excess = float((usage.rows[here] / rows.limit[here] - 1).max())
        words = f"more nodes at {where} for whole replicas ({called})"
        for row in here[rows.plain[here]]:  # at most one; an amount says more than the rounding behind it
            words = f"{format_amount(called, float(usage.rows[row] - rows.limit[row]))} more at {where}"
        found.append((excess, f"{where}: {called}", words, pool))
    for link in np.flatnonzero(
        usage.traffic_bytes_per_s > problem.link_capacity_bytes_per_s * (1 + CAPACITY_TOLERANCE)
    ):
        usable = float(problem.link_capacity_bytes_per_s[link])
        lacking = float(usage.traffic_bytes_per_s[link]) - usable
        name = f"link {problem.links[link]}"
        found.append((lacking / usable, name, f"{format_bandwidth(lacking)} more on {name}", None))
    if not found and np.any(usage.replicas > problem.max_replicas):
        worst = int(np.argmax(usage.replicas - problem.max_replicas))
        pool = int(problem.pool_of[worst])
        words = f"nodes at pool {problem.pools[pool]} that hold {usage.replicas[worst]} replicas of "
        words += problem.deployments[worst].name
        found.append((1.0, f"pool {problem.pools[pool]}: whole replicas on nodes", words, pool))
    if not found:
        return None
    found.sort(key=lambda entry: -entry[0])
    return Infeasibility(
        binding=tuple(binding for _, binding, _, _ in found),
        reason=f"needs {' and '.join(words for _, _, words, _ in found)}",
        excess=found[0][0],
        pools=frozenset(pool for _, _, _, pool in found if pool is not None),
    )
