"""Minimum cost of a synthetic pipeline's plans under an accuracy SLO, computed without enumeration.

The mean score is a sum over operators, except for joint losses of knobs. The fully shared cost under a placement is a
sum, too, except for the sizes of outputs. So for each placement, size and combination of joint kinds, the problem is a
multiple-choice knapsack, solved exactly by merging the operators' undominated choices one after the other. Waiting
times and capacities are ignored; if the result respects them, it is the optimum with them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, product

import numpy as np

from benchmarks.workloads.synthetic.pipeline_model import SyntheticModel, batch_ratio
from circinus.arrays import FloatArray, IntArray
from circinus.estimation.cost import usd_per_h_for_bytes
from circinus.estimation.transfer import INPUT, destinations, path_between
from circinus.profiling.batch_time_ratios import allowed_allocations
from circinus.specification import Configuration, KnobValues, Network, OperatorSpec, Pool, Query, knob_values

_ROUNDING = 1e-12
_Kinds = tuple[tuple[int, int, int], ...]
"""(joint, index of its knob, kind of the choice)"""


@dataclass(frozen=True)
class Optimum:
    """Cheapest configuration with a sufficient mean score."""

    configuration: Configuration
    cost_usd_per_h: float
    """Cost of its cheapest plan, fully shared, for any latency."""
    mean_score: float


@dataclass(frozen=True, eq=False)
class _Group:
    """Knob values of one operator with equal kinds and output size."""

    values: tuple[KnobValues, ...]
    size: float
    kinds: _Kinds
    time: FloatArray
    loss: FloatArray
    memory_bytes: FloatArray


def optimum(model: SyntheticModel, query: Query, network: Network, threshold: float) -> Optimum | None:
    """Compute the optimum for a query's rate and source; its SLOs are ignored.

    Args:
        model: only operators without parents may change the size of their output.
        query: query with rate and source.
        network: pools and links.
        threshold: minimum mean score.

    Returns:
        None if no configuration reaches the threshold.

    Raises:
        ValueError: another operator changes sizes, or `threshold` is so low that mean scores are clipped there.
    """
    return _Search(model, query, network, threshold).run()


class _Search:
    def __init__(self, model: SyntheticModel, query: Query, network: Network, threshold: float) -> None:
        self._model, self._query, self._network, self._threshold = model, query, network, threshold
        self._order = model.pipeline.topological_order()
        self._groups = [_groups(model, operator) for operator in self._order]
        self._parts: dict[tuple[int, int, str, float], tuple[FloatArray, FloatArray, IntArray]] = {}
        self._target = max(network.infrastructure.utilization_targets)
        later = [g.size for o, groups in zip(self._order, self._groups, strict=True) if o.after for g in groups]
        if any(size != 1.0 for size in later) or sum(not operator.after for operator in self._order) > 1:
            raise ValueError("only the first operator may change output sizes")

    def run(self) -> Optimum | None:
        """Solve cells in the order of their lower bounds; the first solved one that is reached is optimal."""
        serial = count()
        cells = [(self._bound(*cell), next(serial), cell, None) for cell in self._cells()]
        queue: list[tuple[float, int, tuple[tuple[Pool, ...], tuple[int, ...]], Configuration | None]] = [
            entry for entry in cells if np.isfinite(entry[0])
        ]
        heapq.heapify(queue)
        while queue:
            cost, _, cell, configuration = heapq.heappop(queue)
            if configuration is not None:
                return Optimum(configuration, cost, self._model.mean_score(configuration))
            solved = self._solve(*cell)
            if solved is not None:
                heapq.heappush(queue, (solved[0], next(serial), cell, solved[1]))
        return None

    def _cells(self) -> Iterator[tuple[tuple[Pool, ...], tuple[int, ...]]]:
        """Yield (pool of each operator, group of each operator)."""
        pools = self._network.pools_for(self._query.source)
        allowed = [[p for p in pools if o.allowed_tiers is None or p.tier in o.allowed_tiers] for o in self._order]
        for groups in product(*(range(len(operator_groups)) for operator_groups in self._groups)):
            for placement in product(*allowed):
                yield placement, groups

    def _budget(self, groups: Sequence[int]) -> float:
        """Return the loss that the operators' own knobs may have."""
        kinds: dict[int, dict[int, int]] = {}
        for operator, group in zip(self._groups, groups, strict=True):
            for joint, number, kind in operator[group].kinds:
                kinds.setdefault(joint, {})[number] = kind
        lost = 0.0
        for at, each in enumerate(self._model.joints):
            lost += each.losses[tuple(kinds[at][knob] for knob in range(len(each.knobs)))]
        return self._model.best - self._threshold - lost + _ROUNDING

    def _bound(self, placement: Sequence[Pool], groups: Sequence[int]) -> float:
        """Return a lower bound of the cost of a cell; infinite if no configuration is accurate enough."""
        parts = self._cell_parts(placement, groups)
        if sum(float(loss[-1]) if len(loss) else np.inf for _, loss, _ in parts) > self._budget(groups):
            return np.inf
        return self._transfers(placement, groups) + sum(float(cost[0]) for cost, _, _ in parts)

    def _solve(self, placement: Sequence[Pool], groups: Sequence[int]) -> tuple[float, Configuration] | None:
        parts, budget = self._cell_parts(placement, groups), self._budget(groups)
        chosen = cheapest_choices([(cost, loss) for cost, loss, _ in parts], budget)
        if chosen is None:
            return None
        cost = sum(float(part[0][at]) for part, at in zip(parts, chosen, strict=True))
        values = {
            operator.name: self._groups[o][groups[o]].values[int(parts[o][2][chosen[o]])]
            for o, operator in enumerate(self._order)
        }
        return cost + self._transfers(placement, groups), Configuration.of(values)

    def _scale(self, groups: Sequence[int]) -> float:
        return self._groups[0][groups[0]].size

    def _cell_parts(
        self, placement: Sequence[Pool], groups: Sequence[int]
    ) -> list[tuple[FloatArray, FloatArray, IntArray]]:
        scale = self._scale(groups)
        return [
            self._part(o, groups[o], placement[o], scale if operator.after else 1.0)
            for o, operator in enumerate(self._order)
        ]

    def _part(self, operator: int, group: int, pool: Pool, scale: float) -> tuple[FloatArray, FloatArray, IntArray]:
        """(costs ascending, losses descending, indices in the group) of the undominated choices that fit in a pool."""
        key = operator, group, pool.name, scale
        if key not in self._parts:
            spec, values = self._order[operator], self._groups[operator][group]
            cost = self._costs(spec, values, pool, scale)
            selected = undominated(cost, values.loss)
            self._parts[key] = cost[selected], values.loss[selected], selected
        return self._parts[key]

    def _costs(self, spec: OperatorSpec, group: _Group, pool: Pool, scale: float) -> FloatArray:
        """(values,) USD per hour of the cheapest allocation, fully shared; infinite if memory does not suffice."""
        model = self._model.operators[spec.name]
        busy = self._query.rate_per_s * model.service_s * scale * group.time / pool.hardware.guaranteed_speed
        lowest = np.full(len(busy), np.inf)
        for cpus, batch in allowed_allocations(spec):
            share = np.maximum(cpus / pool.cpus, group.memory_bytes / pool.memory_bytes)
            ratio = batch_ratio(group.time, cpus / min(spec.cpus), batch)
            cost = pool.price_usd_per_h * share * busy * ratio / batch / self._target
            lowest = np.minimum(lowest, np.where(share <= 1.0, cost, np.inf))
        return lowest

    def _transfers(self, placement: Sequence[Pool], groups: Sequence[int]) -> float:
        """Return the cost of transfers in USD per hour."""
        sites = {INPUT: self._query.source}
        sites |= {operator.name: pool.site for operator, pool in zip(self._order, placement, strict=True)}
        sent_to = destinations(self._order, self._model.pipeline.sinks(), sites)
        total = 0.0
        for producer, targets in sent_to.items():
            bytes_per_s = self._query.rate_per_s * self._sent_bytes[producer, self._scale(groups)]
            for target in targets:
                results = producer in self._model.pipeline.sinks()
                for link in path_between(self._network, sites[producer], target, results=results):
                    total += usd_per_h_for_bytes(link, bytes_per_s)
        return total

    @cached_property
    def _sent_bytes(self) -> Mapping[tuple[str, float], float]:
        """(producer, scale) -> mean size of its output."""
        items, sizes = self._model.items, {}
        for scale in {group.size for group in self._groups[0]}:
            sizes[INPUT, scale] = float(items.sizes(self._model.input_bytes).mean())
            for name, operator in self._model.operators.items():
                sizes[name, scale] = float(items.sizes(operator.output_bytes * scale).mean())
        return sizes


def _groups(model: SyntheticModel, operator: OperatorSpec) -> tuple[_Group, ...]:
    rows: dict[tuple[float, _Kinds], list[KnobValues]] = {}
    own = [
        (j, n)
        for j, joint in enumerate(model.joints)
        for n, (name, _) in enumerate(joint.knobs)
        if name == operator.name
    ]
    for values in knob_values(operator):
        kinds = tuple((j, n, model.joints[j].kind(model.pipeline, n, values)) for j, n in own)
        rows.setdefault((model.effect(operator.name, values).size, kinds), []).append(values)
    return tuple(
        _Group(
            values=tuple(members),
            size=size,
            kinds=kinds,
            time=np.array([model.effect(operator.name, v).time for v in members]),
            loss=np.array([model.effect(operator.name, v).loss for v in members]),
            memory_bytes=np.array([float(model.memory_bytes(operator.name, v)) for v in members]),
        )
        for (size, kinds), members in rows.items()
    )


def undominated(cost: FloatArray, loss: FloatArray) -> IntArray:
    """Return indices of finite choices that no other undercuts in both; costs ascend, losses descend."""
    order = np.lexsort((loss, cost))
    order = order[np.isfinite(cost[order])]
    lowest_loss = np.minimum.accumulate(np.concatenate([[np.inf], loss[order]]))
    return np.asarray(order[loss[order] < lowest_loss[:-1]])


def cheapest_choices(parts: Sequence[tuple[FloatArray, FloatArray]], budget: float) -> tuple[int, ...] | None:
    """Select one choice of each part with minimum total cost and a total loss of at most `budget`.

    Args:
        parts: (costs, losses) of the choices.
        budget: maximum total loss.

    Returns:
        None if no selection meets the budget.
    """
    min_losses = [float(loss.min(initial=np.inf)) for _, loss in parts]
    cost, loss = np.zeros(1), np.zeros(1)
    backwards: list[tuple[IntArray, int]] = []
    for part, (more_cost, more_loss) in enumerate(parts):
        all_cost = (cost[:, None] + more_cost[None, :]).ravel()
        all_loss = (loss[:, None] + more_loss[None, :]).ravel()
        all_cost[all_loss + sum(min_losses[part + 1 :]) > budget] = np.inf
        selected = undominated(all_cost, all_loss)
        if not len(selected):
            return None
        backwards.append((selected, len(more_cost)))
        cost, loss = all_cost[selected], all_loss[selected]
    at, chosen = 0, []
    for selected, choices in reversed(backwards):
        at, choice = divmod(int(selected[at]), choices)
        chosen.append(choice)
    return tuple(reversed(chosen))
