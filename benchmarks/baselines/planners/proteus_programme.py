"""Mixed-integer programme of workers, variants and divided load: see `proteus`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.baselines.planners.query_plans import kind_of
from benchmarks.baselines.planners.visible_plans import VisiblePlan
from circinus.arrays import FloatArray
from circinus.estimation import ReplicaDemand
from circinus.matching.solvers.highs import LpModel, solve_milp
from circinus.specification import Deployment, DirectedLink, Infrastructure, PlanShare, Query, QueryPlan, Specification

_TIME_LIMIT_S, _GAP = 15.0, 0.005
"""Limits of a programme: time, and gap as a share of the weight."""
_PRICE = 1e-3
"""Weight of the price of all workers beside the weight of all queries."""
_ROUNDING = 1e-5
_MIN_SHARE = 1e-6
_MIXING = 0.01
"""Addition to what variants below the accuracy objective miss of it, as shares are rounded."""


class Programme:
    """Mixed-integer programme: columns of at least 0, and rows with upper limits."""

    def __init__(self) -> None:
        self._model, self._objective = LpModel(upper=[], is_large=True), list[float]()

    def column(self, objective: float, upper: float, *, integer: bool) -> int:
        """Add a column and return its number."""
        number = len(self._objective)
        self._objective.append(objective)
        self._model.upper.append(upper)
        if not integer:
            self._model.continuous.append(number)
        return number

    def at_most(self, line: Mapping[int, float], limit: float) -> None:
        """Add the row of a line (column -> factor)."""
        columns, values = np.array(list(line), dtype=np.int64), np.array(list(line.values()), dtype=np.float64)
        self._model.add_row(columns, values, -np.inf, limit)

    def solve(self, gap: float) -> FloatArray:
        """Return the values of the columns with the lowest objective, up to a gap; all 0 if time is over before."""
        zero, objective = np.zeros(len(self._objective)), np.array(self._objective)
        values, _ = solve_milp(self._model, objective, zero, time_limit_s=_TIME_LIMIT_S, gap=gap, seed=0)
        return zero if values is None else values


def divided_load(
    specification: Specification, options: Mapping[Query, Sequence[VisiblePlan]], dearer: Mapping[Query, float]
) -> Mapping[Query, QueryPlan]:
    """Return the served queries with their plans, which divide the requests among variants.

    Args:
        specification: with an infrastructure.
        options: variants for each kind of query.
        dearer: factor of the cost of each kind.
    """
    queries, infrastructure = specification.queries, specification.required_infrastructure
    waiting = defaultdict[Query, list[Query]](list)
    for query in sorted(queries, key=lambda query: -query.weight):
        if options[kind_of(query)]:
            waiting[kind_of(query)].append(query)
    if not waiting:
        return {}
    programme, total_weight = Programme(), sum(query.weight for query in queries)
    served = {kind: _served_columns(programme, own) for kind, own in waiting.items()}
    load = {
        kind: [programme.column(0.0, len(own), integer=False) for _ in options[kind]] for kind, own in waiting.items()
    }
    busy, sent = defaultdict[Deployment, dict[int, float]](dict), defaultdict[DirectedLink, dict[int, float]](dict)
    demands = dict[Deployment, ReplicaDemand]()
    for kind, own in load.items():
        _add_objectives(programme, kind, served[kind], own, options[kind], dearer[kind])
        for column, option in zip(own, options[kind], strict=True):
            for use in option.candidate.deployments:
                busy[use.deployment][column] = use.fractional_replicas
                demands[use.deployment] = use.demand
            for crossing in option.candidate.links:
                sent[crossing.link][column] = crossing.bytes_per_s / crossing.link.bandwidth_bytes_per_s
    for line in sent.values():
        programme.at_most(line, infrastructure.usable_link_share * (1 - _ROUNDING))
    _add_workers(programme, busy, demands, infrastructure, total_weight)
    values = programme.solve(_GAP * total_weight)
    plans = dict[Query, QueryPlan]()
    for kind, of_kind in waiting.items():
        shares = values[load[kind]]
        count = round(sum(values[c] for c in served[kind]))
        if count:
            parts = [
                PlanShare(float(share / shares.sum()), option.candidate.plan)
                for share, option in zip(shares, options[kind], strict=True)
                if share > _MIN_SHARE * shares.sum()
            ]
            plans |= dict.fromkeys(of_kind[:count], QueryPlan.split(parts))
    return plans


def _served_columns(programme: Programme, queries: Sequence[Query]) -> list[int]:
    """Add the numbers of served queries of each weight."""
    weights = [query.weight for query in queries]
    return [programme.column(-weight, weights.count(weight), integer=True) for weight in sorted(set(weights))]


def _add_objectives(
    programme: Programme,
    kind: Query,
    served: Sequence[int],
    load: Sequence[int],
    options: Sequence[VisiblePlan],
    dearer: float,
) -> None:
    """Add the rows by which all requests of served queries are divided, within their objectives."""
    programme.at_most(dict.fromkeys(served, 1.0) | dict.fromkeys(load, -1.0), 0.0)
    programme.at_most(dict.fromkeys(served, -1.0) | dict.fromkeys(load, 1.0), 0.0)
    accuracy, cost = kind.slos.accuracy, kind.slos.cost
    if accuracy is not None:
        margins = [accuracy.margin(option.configuration.accuracy.value) for option in options]
        missing = [-m if m >= 0 else _ROUNDING - (1 + _MIXING) * m for m in margins]
        programme.at_most(dict(zip(load, missing, strict=True)), 0.0)
    if cost is not None:
        costs = {column: dearer * option.usd_per_h for column, option in zip(load, options, strict=True)}
        programme.at_most(dict.fromkeys(served, -cost.limit_usd_per_h) | costs, 0.0)


def _add_workers(
    programme: Programme,
    busy: Mapping[Deployment, Mapping[int, float]],
    demands: Mapping[Deployment, ReplicaDemand],
    infrastructure: Infrastructure,
    total_weight: float,
) -> None:
    """Add the numbers of workers of each variant, and the rows that limit them."""
    price = sum(pool.price_usd_per_h * pool.nodes for pool in infrastructure.pools)
    for pool in infrastructure.pools:
        own = {d: demand for d, demand in demands.items() if d.pool == pool.name}
        workers = {
            d: programme.column(
                _PRICE * total_weight * demand.cost_usd_per_h / price,
                float(pool.cpus // demand.cpus * pool.nodes),
                integer=True,
            )
            for d, demand in own.items()
        }
        for deployment, column in workers.items():
            programme.at_most({**busy[deployment], column: _ROUNDING - 1.0}, 0.0)
        for resource, available in enumerate(pool.amounts):
            if not available:
                continue
            amounts = {workers[d]: demand.amounts[resource] / available for d, demand in own.items()}
            programme.at_most(amounts, float(pool.nodes))
            for on_node in (1, 2):  # so many large replicas fit on a node
                large = {c: 1.0 for c, amount in amounts.items() if amount * (on_node + 1) > 1 + _ROUNDING}
                programme.at_most(large, float(on_node * pool.nodes))
