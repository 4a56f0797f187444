"""The least cost of any plan of a synthetic pipeline that keeps an accuracy objective, found without listing it.

The mean score is a sum over operators, but for what knobs lose jointly, and so is the cost fully shared under a
placement, but for the size of what the operators hand on. So for each placement, size and kinds of the joint knobs it
is a knapsack with one choice for each operator, solved exactly by merging operators' undominated choices one after the
other. Waits and capacities are left out: what is found is the optimum of whoever must keep them too, if it does.
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
from circinus.planning import SearchSettings
from circinus.profiling.batch_time_ratios import allowed_allocations
from circinus.specification import Configuration, KnobValues, Network, OperatorSpec, Pool, Query, knob_values

_ROUNDING = 1e-12
_Kinds = tuple[tuple[int, int, int], ...]
"""(joint, number of its knob, kind of the choice)"""


@dataclass(frozen=True)
class Optimum:
    """The cheapest configuration whose mean score suffices."""

    configuration: Configuration
    cost_usd_per_h: float
    """Of its cheapest plan, fully shared, whatever its latency."""
    mean_score: float


@dataclass(frozen=True, eq=False)
class _Group:
    """Knob values of one operator that are of the same kinds and make outputs of the same size."""

    values: tuple[KnobValues, ...]
    size: float
    kinds: _Kinds
    time: FloatArray
    loss: FloatArray
    memory_bytes: FloatArray


def optimum(model: SyntheticModel, query: Query, network: Network, threshold: float) -> Optimum | None:
    """The optimum for a query's rate and source; its objectives are not looked at.

    Args:
        model: only the operators without parents may change the size of what they hand on.
        query: whose rate and source count.
        network: where operators may run.
        threshold: of the mean score.

    Returns:
        None where no configuration reaches the threshold.

    Raises:
        ValueError: sizes change further on, or `threshold` is so low that mean scores end there.
    """
    return _Search(model, query, network, threshold).run()


class _Search:
    def __init__(self, model: SyntheticModel, query: Query, network: Network, threshold: float) -> None:
        self._model, self._query, self._network, self._threshold = model, query, network, threshold
        self._order = model.pipeline.topological_order()
        self._groups = [_groups(model, operator) for operator in self._order]
        self._parts: dict[tuple[int, int, str, float], tuple[FloatArray, FloatArray, IntArray]] = {}
        self._target = max(SearchSettings().utilization_targets)
        later = [g.size for o, groups in zip(self._order, self._groups, strict=True) if o.after for g in groups]
        if any(size != 1.0 for size in later) or sum(not operator.after for operator in self._order) > 1:
            raise ValueError("found an operator that changes sizes, expected that of the first one only")

    def run(self) -> Optimum | None:
        """Cells by their least conceivable cost, each solved when it comes first; the first solved one wins."""
        serial = count()
        waiting = [(self._bound(*cell), next(serial), cell, None) for cell in self._cells()]
        queue: list[tuple[float, int, tuple[tuple[Pool, ...], tuple[int, ...]], Configuration | None]] = [
            entry for entry in waiting if np.isfinite(entry[0])
        ]
        heapq.heapify(queue)
        while queue:
            cost, _, cell, found = heapq.heappop(queue)
            if found is not None:
                return Optimum(found, cost, self._model.mean_score(found))
            solved = self._solve(*cell)
            if solved is not None:
                heapq.heappush(queue, (solved[0], next(serial), cell, solved[1]))
        return None

    def _cells(self) -> Iterator[tuple[tuple[Pool, ...], tuple[int, ...]]]:
        """(pool of each operator, group of each operator)"""
        pools = self._network.pools_for(self._query.source)
        allowed = [[p for p in pools if o.allowed_tiers is None or p.tier in o.allowed_tiers] for o in self._order]
        for groups in product(*(range(len(found)) for found in self._groups)):
            for placement in product(*allowed):
                yield placement, groups

    def _budget(self, groups: Sequence[int]) -> float:
        """What the operators' own knobs may lose."""
        kinds: dict[int, dict[int, int]] = {}
        for operator, group in zip(self._groups, groups, strict=True):
            for joint, number, kind in operator[group].kinds:
                kinds.setdefault(joint, {})[number] = kind
        lost = 0.0
        for at, each in enumerate(self._model.joints):
            lost += each.losses[tuple(kinds[at][knob] for knob in range(len(each.knobs)))]
        return self._model.best - self._threshold - lost + _ROUNDING

    def _bound(self, placement: Sequence[Pool], groups: Sequence[int]) -> float:
        """No plan of a cell costs less; infinite where none has the accuracy."""
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
        """(costs ascending, losses descending, numbers in the group) of the undominated choices that fit in a pool."""
        key = operator, group, pool.name, scale
        if key not in self._parts:
            spec, found = self._order[operator], self._groups[operator][group]
            cost = self._costs(spec, found, pool, scale)
            kept = undominated(cost, found.loss)
            self._parts[key] = cost[kept], found.loss[kept], kept
        return self._parts[key]

    def _costs(self, spec: OperatorSpec, group: _Group, pool: Pool, scale: float) -> FloatArray:
        """(values,) USD per hour of the cheapest allocation, fully shared; infinite where memory does not suffice."""
        model = self._model.operators[spec.name]
        busy = self._query.rate_per_s * model.service_s * scale * group.time / pool.hardware.guaranteed_speed
        least = np.full(len(busy), np.inf)
        for cpus, batch in allowed_allocations(spec):
            share = np.maximum(cpus / pool.cpus, group.memory_bytes / pool.memory_bytes)
            ratio = batch_ratio(group.time, cpus / min(spec.cpus), batch)
            cost = pool.price_usd_per_h * share * busy * ratio / batch / self._target
            least = np.minimum(least, np.where(share <= 1.0, cost, np.inf))
        return least

    def _transfers(self, placement: Sequence[Pool], groups: Sequence[int]) -> float:
        """USD per hour."""
        sites = {INPUT: self._query.source}
        sites |= {operator.name: pool.site for operator, pool in zip(self._order, placement, strict=True)}
        sent_to = destinations(self._order, self._model.pipeline.sinks(), sites)
        total = 0.0
        for producer, targets in sent_to.items():
            bytes_per_s = self._query.rate_per_s * self._sent_bytes[producer, self._scale(groups)]
            for target in targets:
                for link in path_between(self._network, sites[producer], target):
                    total += usd_per_h_for_bytes(link, bytes_per_s)
        return total

    @cached_property
    def _sent_bytes(self) -> Mapping[tuple[str, float], float]:
        """(producer, scale) -> mean size of what it sends."""
        items, found = self._model.items, {}
        for scale in {group.size for group in self._groups[0]}:
            found[INPUT, scale] = float(items.sizes(self._model.input_bytes).mean())
            for name, operator in self._model.operators.items():
                found[name, scale] = float(items.sizes(operator.output_bytes * scale).mean())
        return found


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
            values=tuple(found),
            size=size,
            kinds=kinds,
            time=np.array([model.effect(operator.name, v).time for v in found]),
            loss=np.array([model.effect(operator.name, v).loss for v in found]),
            memory_bytes=np.array([float(model.memory_bytes(operator.name, v)) for v in found]),
        )
        for (size, kinds), found in rows.items()
    )


def undominated(cost: FloatArray, loss: FloatArray) -> IntArray:
    """Numbers of those with a finite cost that no other undercuts in both; costs ascend, losses descend."""
    order = np.lexsort((loss, cost))
    order = order[np.isfinite(cost[order])]
    least = np.minimum.accumulate(np.concatenate([[np.inf], loss[order]]))
    return np.asarray(order[loss[order] < least[:-1]])


def cheapest_choices(parts: Sequence[tuple[FloatArray, FloatArray]], budget: float) -> tuple[int, ...] | None:
    """One choice of each part, together of the least cost among those whose losses are at most `budget`.

    Args:
        parts: (costs, losses) of the choices.
        budget: of the losses.

    Returns:
        None where there is none.
    """
    ends = [float(loss.min(initial=np.inf)) for _, loss in parts]
    cost, loss = np.zeros(1), np.zeros(1)
    backwards: list[tuple[IntArray, int]] = []
    for number, (more_cost, more_loss) in enumerate(parts):
        all_cost = (cost[:, None] + more_cost[None, :]).ravel()
        all_loss = (loss[:, None] + more_loss[None, :]).ravel()
        all_cost[all_loss + sum(ends[number + 1 :]) > budget] = np.inf
        kept = undominated(all_cost, all_loss)
        if not len(kept):
            return None
        backwards.append((kept, len(more_cost)))
        cost, loss = all_cost[kept], all_loss[kept]
    at, chosen = 0, []
    for kept, choices in reversed(backwards):
        at, choice = divmod(int(kept[at]), choices)
        chosen.append(choice)
    return tuple(reversed(chosen))
