"""Feasibility check of a choice, with the reason for a violation, and repair of infeasible choices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circinus.arrays import IntArray
from circinus.estimation import Estimate
from circinus.estimation.merged_load import MergedLoad
from circinus.matching.cuts import PackingCut, PoolCut
from circinus.matching.pool_packing import pack_pools, share_of_pool
from circinus.matching.problem import RESOURCES, Problem, Usage
from circinus.matching.sizing import Reestimate, Sizing, SloViolation, evaluate_sizing, is_doubtful
from circinus.matching.solvers.greedy import IncrementalSolution, drop_violating_queries
from circinus.matching.tolerances import CAPACITY_TOLERANCE
from circinus.planning.violations import as_sized
from circinus.specification import SloKind, Slos
from circinus.specification.formatting import format_amount, format_bandwidth


@dataclass(frozen=True)
class Infeasibility:
    """A violated constraint of a choice."""

    binding: tuple[str, ...]
    """Resources (`pool edge: cpus`, `link home->edge`) or SLOs (`latency`), the scarcest first."""
    reason: str
    excess: float = 0.0
    """Missing amount of the scarcest resource as a share of its capacity, or `Estimate.excess`."""
    packing_cuts: tuple[PackingCut | PoolCut, ...] = ()
    """Cut for every pool on whose nodes the replicas do not fit, although linear capacities hold."""
    violations: tuple[SloViolation, ...] = ()
    """Violated SLOs, if capacities and packing hold."""
    conditions: MergedLoad | None = None
    """Load of all queries under which these are violated."""
    is_shortage: bool = False
    """True if linear capacities are exceeded."""
    sized: Estimate | None = None
    """Estimate at the final sizes of the plan that violates SLOs, if `reason` is about that."""
    is_sized: bool = False
    """True if `reason` is about SLOs at the final sizes beside the other queries."""
    query: str | None = None
    """Query whose SLOs are violated; None: the query of the plan that was tried, or no SLO is."""
    is_withdrawn: bool = False
    """True if the search withdrew the plan after an earlier violation, which `reason` is about."""

    def is_of(self, query: str) -> bool:
        """Return whether `reason` is about the plan of a query as it was tried."""
        return not self.is_withdrawn and self.query in (None, query)

    def description(self, query: str, *, sizes_named: bool = False) -> str:
        """Return the reason with its subject and sizes.

        Args:
            query: of the plan that was tried; others are named.
            sizes_named: whether the text before names the final sizes.
        """
        subject = "" if self.is_of(query) else "withdrawn: " if self.is_withdrawn else f"query {self.query}: "
        return subject + (as_sized(self.reason) if self.is_sized and not sizes_named else self.reason)


@dataclass(frozen=True, eq=False)
class FeasibleSolution:
    """A feasible choice with its sizes."""

    chosen: IntArray
    """(Q,) candidate of each query, -1 for none."""
    usage: Usage
    nodes: Mapping[int, tuple[int, ...]]
    """Deployment -> the node of each replica."""
    sizing: Sizing


def check_feasibility(
    problem: Problem,
    chosen: IntArray,
    slos: Sequence[Slos],
    reestimate: Reestimate,
    *,
    widely: bool = False,
    min_replicas: IntArray | None = None,
    doubtful: bool = False,
) -> Infeasibility | FeasibleSolution:
    """Check capacities, then packing on nodes, then every query's SLOs at the final sizes.

    Args:
        problem: the problem of the choice.
        chosen: (Q,) candidate of each query, -1 for none.
        slos: of each query.
        reestimate: estimates a plan under the merged load.
        widely: see `pack_pools`.
        min_replicas: see `Problem.usage_of`.
        doubtful: whether a choice is feasible, with violations in its sizing, if a simulation has to decide on each.
    """
    usage = problem.usage_of(chosen, min_replicas)
    shortage = capacity_violation(problem, usage)
    if shortage is not None:
        return shortage
    nodes, cuts = pack_pools(problem, usage, widely=widely)
    if cuts:
        names = [problem.pools[pool] for pool in sorted({cut.pool for cut in cuts})]
        return Infeasibility(
            binding=tuple(f"pool {name}: whole replicas on nodes" for name in names),
            reason=f"the plan's replicas do not fit on the nodes of pool {' and '.join(names)} next to the others",
            packing_cuts=cuts,
        )
    sizing = evaluate_sizing(problem, chosen, usage, slos, reestimate)
    sure = tuple(v for v in sizing.violations if not (doubtful and is_doubtful(v.sized, slos[v.query])))
    if sure:
        violation = sure[0]
        sized = sizing.final[violation.query].estimate
        return Infeasibility(
            violation.slos,
            violation.reason,
            sized.excess(slos[violation.query], sized=True),
            violations=sure,
            conditions=sizing.conditions,
            sized=sized,
            is_sized=True,
            query=problem.queries[violation.query],
        )
    return FeasibleSolution(chosen, usage, nodes, sizing)


def repair(
    problem: Problem, chosen: IntArray, slos: Sequence[Slos], reestimate: Reestimate, *, widely: bool = False
) -> FeasibleSolution:
    """Drop queries from a choice until the rest is feasible: of the lowest level first, lowest weight per resource.

    If plans are late, lowest weight per weight that is late because of the query's transfers: on workloads of several
    pipelines, 133 of 154 in weight remain instead of 109, and 227 of 263 instead of 168, before others are added.

    The arguments are those of `check_feasibility`; `chosen` is not modified.
    """
    solution, levels = IncrementalSolution(problem, chosen), problem.priority_levels
    drop_violating_queries(solution, ())
    chosen = solution.chosen
    while isinstance(outcome := check_feasibility(problem, chosen, slos, reestimate, widely=widely), Infeasibility):
        if outcome.packing_cuts:
            pool = outcome.packing_cuts[0].pool
            shares = {query: share_of_pool(problem, candidate, pool) for query, candidate in problem.served(chosen)}
            value = {query: levels.weight[query] / share for query, share in shares.items() if share > 0}
        elif outcome.conditions is not None:
            harm = _late_weight(problem, chosen, outcome.violations, outcome.conditions)
            value = {query: levels.weight[query] / weight for query, weight in harm.items()}
        else:  # by rounding, a capacity may be exceeded although no load was
            value = {query: levels.weight[query] for query, _ in problem.served(chosen)}
        chosen[min(value, key=lambda query: (levels.rank[query], value[query], levels.weight[query], query))] = -1
    return outcome


def _late_weight(
    problem: Problem, chosen: IntArray, violated: Sequence[SloViolation], conditions: MergedLoad
) -> dict[int, float]:
    """Return query -> weight of the queries that violate SLOs because of it: its own, and that of late ones.

    The weight of a late query is divided among its links by their mean waits, and there among all transfers by their
    parts in the wait, which are rates times mean squares (Pollaczek-Khinchine).
    """
    weight, links = problem.priority_levels.weight, conditions.links
    late_weight = defaultdict(float, {violation.query: float(weight[violation.query]) for violation in violated})
    per_square_s = dict.fromkeys(links, 0.0)
    for violation in violated:
        if SloKind.LATENCY in violation.slos:
            crossed = {use.link: links[use.link] for use in problem.candidates[violation.candidate].links}
            relative = {link: 1.0 / (1.0 - load.offered_load) for link, load in crossed.items()}
            total_s = sum(load.rate_per_s * load.square_s2 * relative[link] for link, load in crossed.items())
            for link in crossed if total_s > 0.0 else ():
                per_square_s[link] += float(weight[violation.query]) * relative[link] / total_s
    for query, candidate in problem.served(chosen):
        for use in problem.candidates[candidate].links:
            if per_square_s[use.link] * use.traffic.square_s2 > 0.0:
                late_weight[query] += per_square_s[use.link] * use.traffic.rate_per_s * use.traffic.square_s2
    return late_weight


def capacity_violation(problem: Problem, usage: Usage) -> Infeasibility | None:
    """Return the capacities that a usage exceeds, or None."""
    violations: list[tuple[float, str, str]] = []
    rows = problem.rows
    over = usage.rows > rows.limit * (1 + CAPACITY_TOLERANCE)
    for pool, resource in sorted(set(zip(rows.pool[over].tolist(), rows.resource[over].tolist(), strict=True))):
        rows_over = np.flatnonzero(over & (rows.pool == pool) & (rows.resource == resource))
        resource_name, location = RESOURCES[resource], f"pool {problem.pools[pool]}"
        excess = float((usage.rows[rows_over] / rows.limit[rows_over] - 1).max())
        need = f"more nodes at {location} for whole replicas ({resource_name})"
        for row in rows_over[rows.plain[rows_over]]:  # at most one; an amount is more useful than a count of nodes
            need = f"{format_amount(resource_name, float(usage.rows[row] - rows.limit[row]))} more at {location}"
        violations.append((excess, f"{location}: {resource_name}", need))
    for link in np.flatnonzero(
        usage.traffic_bytes_per_s > problem.link_capacity_bytes_per_s * (1 + CAPACITY_TOLERANCE)
    ):
        usable = float(problem.link_capacity_bytes_per_s[link])
        missing_bytes_per_s = float(usage.traffic_bytes_per_s[link]) - usable
        name = f"link {problem.links[link]}"
        violations.append(
            (missing_bytes_per_s / usable, name, f"{format_bandwidth(missing_bytes_per_s)} more on {name}")
        )
    if not violations and np.any(usage.replicas > problem.max_replicas):
        worst = int(np.argmax(usage.replicas - problem.max_replicas))
        pool = int(problem.pool_of[worst])
        need = f"nodes at pool {problem.pools[pool]} that hold {usage.replicas[worst]} replicas of "
        need += problem.deployments[worst].name
        violations.append((1.0, f"pool {problem.pools[pool]}: whole replicas on nodes", need))
    if not violations:
        return None
    violations.sort(key=lambda entry: -entry[0])
    return Infeasibility(
        binding=tuple(binding for _, binding, _ in violations),
        reason=f"needs {' and '.join(need for _, _, need in violations)}",
        excess=violations[0][0],
        is_shortage=True,
    )
