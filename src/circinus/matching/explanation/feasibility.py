"""Feasibility check of a choice, with the reason for a violation."""

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
    """A violated constraint of a choice."""

    binding: tuple[str, ...]
    """Resources (`pool edge: cpus`, `link home->edge`) or SLOs (`latency`), the scarcest first."""
    reason: str
    excess: float
    """Missing amount of the scarcest resource, as a share of its capacity."""
    pools: frozenset[int] = frozenset()
    """Pools in which more nodes would help."""


@dataclass(frozen=True)
class FeasibleSolution:
    """A feasible choice with its sizes."""

    usage: Usage
    sizing: Sizing


def check_feasibility(
    problem: Problem, chosen: IntArray, slos: Sequence[Slos], reestimate: Reestimate
) -> Infeasibility | FeasibleSolution:
    """Check capacities, then packing on nodes, then every query's SLOs at the final sizes."""
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
            reason=f"its replicas do not fit on the nodes of pool {' and '.join(names)} next to the others",
            excess=0.0,
            pools=pools,
        )
    sizing = evaluate_sizing(problem, chosen, usage, slos, reestimate)
    if sizing.violations:
        violation = sizing.violations[0]
        return Infeasibility(violation.slos, f"query {problem.queries[violation.query]}: {violation.reason}", 0.0)
    return FeasibleSolution(usage, sizing)


def capacity_violation(problem: Problem, usage: Usage) -> Infeasibility | None:
    """Return the capacities that a usage exceeds, or None."""
    violations: list[tuple[float, str, str, int | None]] = []
    rows = problem.rows
    over = usage.rows > rows.limit * (1 + CAPACITY_TOLERANCE)
    for pool, resource in sorted(set(zip(rows.pool[over].tolist(), rows.resource[over].tolist(), strict=True))):
        rows_over = np.flatnonzero(over & (rows.pool == pool) & (rows.resource == resource))
        resource_name, location = RESOURCES[resource], f"pool {problem.pools[pool]}"
        excess = float((usage.rows[rows_over] / rows.limit[rows_over] - 1).max())
        need = f"more nodes at {location} for whole replicas ({resource_name})"
        for row in rows_over[rows.plain[rows_over]]:  # at most one; an amount is more useful than a count of nodes
            need = f"{format_amount(resource_name, float(usage.rows[row] - rows.limit[row]))} more at {location}"
        violations.append((excess, f"{location}: {resource_name}", need, pool))
    for link in np.flatnonzero(
        usage.traffic_bytes_per_s > problem.link_capacity_bytes_per_s * (1 + CAPACITY_TOLERANCE)
    ):
        usable = float(problem.link_capacity_bytes_per_s[link])
        missing_bytes_per_s = float(usage.traffic_bytes_per_s[link]) - usable
        name = f"link {problem.links[link]}"
        violations.append(
            (missing_bytes_per_s / usable, name, f"{format_bandwidth(missing_bytes_per_s)} more on {name}", None)
        )
    if not violations and np.any(usage.replicas > problem.max_replicas):
        worst = int(np.argmax(usage.replicas - problem.max_replicas))
        pool = int(problem.pool_of[worst])
        need = f"nodes at pool {problem.pools[pool]} that hold {usage.replicas[worst]} replicas of "
        need += problem.deployments[worst].name
        violations.append((1.0, f"pool {problem.pools[pool]}: whole replicas on nodes", need, pool))
    if not violations:
        return None
    violations.sort(key=lambda entry: -entry[0])
    return Infeasibility(
        binding=tuple(binding for _, binding, _, _ in violations),
        reason=f"needs {' and '.join(need for _, _, need, _ in violations)}",
        excess=violations[0][0],
        pools=frozenset(pool for _, _, _, pool in violations if pool is not None),
    )
