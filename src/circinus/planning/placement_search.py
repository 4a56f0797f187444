"""Label-setting search over the placements of many configurations, operator by operator along the DAG.

A label is a prefix of a configuration with a pool for each of its operators. For each value that is still needed it has
two latency vectors: with the fastest options (the minimum over options in each scenario, so that no plan of the
placement is faster) and with the cheapest options. A label is pruned if its latency lower bound (fastest options, best
placement of the remaining operators) exceeds the latency limit, or its minimum usage exceeds a capacity. Labels of
different placements are never compared: they use different pools, so neither dominates the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.planning.search_space import Limits, SearchSpace


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """Prefix tree of the configurations: level t holds the distinct choices of the first t + 1 operators."""

    rows: IntArray
    """(configurations, producers), sorted."""
    prefixes: tuple[IntArray, ...]
    """(configurations,) prefix of each configuration, by level."""
    first_configurations: tuple[IntArray, ...]
    """(prefixes,) first configuration with each prefix, by level."""

    @classmethod
    def of_rows(cls, rows: IntArray) -> PrefixTree:
        """Build the tree of configurations given by sorted rows."""
        same = np.cumprod(rows[1:] == rows[:-1], axis=1).astype(np.bool_)
        starts = [np.concatenate([[True], ~same[:, producer]]) for producer in range(1, rows.shape[1])]
        return cls(
            rows,
            tuple(np.cumsum(start) - 1 for start in starts),
            tuple(np.flatnonzero(start) for start in starts),
        )

    def rows_at(self, level: int, producer: int) -> IntArray:
        """Return (prefixes,) the row of `producer` in each prefix of `level`."""
        return np.asarray(self.rows[self.first_configurations[level], producer])

    def children(self, level: int) -> tuple[IntArray, IntArray]:
        """Return the first child in `level`, and the number of children, of each prefix of the level above."""
        if level == 0:
            return np.zeros(1, dtype=np.int64), np.array([len(self.first_configurations[0])])
        parents = self.prefixes[level - 1][self.first_configurations[level]]
        count = np.bincount(parents, minlength=len(self.first_configurations[level - 1]))
        return np.cumsum(count) - count, count


FASTEST, CHEAPEST = 0, 1

RESULT = -1
"""Key of the results that are back at the source, among the producers of `finish_s`."""


def latest(times_s: Iterable[FloatArray]) -> FloatArray:
    """Return the elementwise maximum of at least one array."""
    return reduce(np.maximum, times_s)


def finished(
    operator: int, consumers: Sequence[Sequence[int]], finish_s: dict[int, FloatArray], end_s: FloatArray
) -> dict[int, FloatArray]:
    """Return the finish times of the values that are needed after an operator, which ends at `end_s`."""
    needed = {key: times_s for key, times_s in finish_s.items() if key == RESULT or consumers[key][-1] > operator}
    if consumers[operator + 1]:
        return {**needed, operator + 1: end_s}
    return {**needed, RESULT: np.maximum(needed[RESULT], end_s) if RESULT in needed else end_s}


@dataclass(frozen=True, eq=False)
class PartialPlacements:
    """The n configurations (during the search: prefixes) with a pool for every operator."""

    prefix: IntArray
    """(n,) index of the prefix; after the last operator the index into the searched configurations."""
    pools: IntArray
    """(n, operators)"""
    sites: IntArray
    """(n, producers)"""
    finish_s: dict[int, FloatArray]
    """Value still needed -> (n, 2, scenarios) finish time with the fastest and the cheapest options, or the fastest."""
    min_resources: FloatArray
    """(n, columns) minimum usage over options, column by column, transfers included."""
    cheapest: FloatArray
    """(n, columns) usage of the cheapest options, transfers included."""
    transfers: FloatArray
    """(n, columns) usage of the transfers."""

    @property
    def count(self) -> int:
        return len(self.prefix)

    @property
    def latency_s(self) -> FloatArray:
        """(n, 2, scenarios) time until all results are back."""
        return self.finish_s[RESULT]

    def take(self, selected: IntArray | BoolArray) -> PartialPlacements:
        return PartialPlacements(
            self.prefix[selected],
            self.pools[selected],
            self.sites[selected],
            {producer: finish_s[selected] for producer, finish_s in self.finish_s.items()},
            self.min_resources[selected],
            self.cheapest[selected],
            self.transfers[selected],
        )


class PlacementSearch:
    """Search over the placements of some configurations of one space."""

    def __init__(self, space: SearchSpace, configurations: IntArray, *, only_fastest: bool = False) -> None:
        """Prepare the search.

        Args:
            configurations: ascending indexes into the configurations of the space.
            only_fastest: whether latencies are those with the fastest options only, which takes half the time.
        """
        self._space = space
        self._only_fastest = only_fastest
        self._tree = PrefixTree.of_rows(space.arrays.rows[configurations])
        self._edges: dict[tuple[int, int], FloatArray] = {}
        self._through: dict[tuple[int, int], FloatArray] = {}
        for operator in reversed(range(len(space.arrays.order))):
            self._add_operator(operator)

    def lower_bounds_s(self) -> FloatArray:
        """Return (configurations, scenarios) latency lower bounds over all placements."""
        return self._remaining_by_configuration(-1, 0)[:, self._space.source]

    def run(self, limits: Limits, max_labels: int, considered: Counter[str]) -> PartialPlacements:
        """Return all placements that may satisfy `limits`.

        Beyond `max_labels` after an operator, the cheapest and the fastest labels are retained. `considered` counts
        the dropped placements by reason.
        """
        space = self._space
        nothing = np.zeros((1, space.columns.count))
        labels = PartialPlacements(
            prefix=np.zeros(1, dtype=np.int64),
            pools=np.zeros((1, 0), dtype=np.int64),
            sites=np.full((1, 1), space.source),
            finish_s={0: np.zeros((1, 1, space.arrays.percentile.grid.count), dtype=space.transfer_s[0].dtype)},
            min_resources=nothing,
            cheapest=nothing,
            transfers=nothing,
        )
        for operator in range(len(space.arrays.order)):
            labels = self._place(operator, labels, limits, considered)
            labels = self._advance(operator, labels)
            labels = self._prune(operator, labels, limits, max_labels, considered)
        return labels

    def _add_operator(self, operator: int) -> None:
        """Prepare the latencies through one operator; those of its consumers must be present.

        `_edges[producer, operator]` is (prefixes, sites, pools, 1 or 2, scenarios): from `producer` at a site
        to the end of `operator` in a pool (transfer, wait, service, and for a sink the return to the source).
        `_through[producer, operator]` is (configurations, sites, scenarios): the minimum from such an output to the
        last result.
        """
        space, tree, table = self._space, self._tree, self._space.options[operator]
        rows = tree.rows_at(operator, operator + 1)
        times_s = [table.fastest_s] if self._only_fastest else [table.fastest_s, table.cheapest_s]
        node_s = np.stack([of_options[rows] for of_options in times_s], axis=2)
        consumers = space.arrays.consumers[operator + 1]
        if not consumers:
            node_s += space.transfer_s[operator + 1][rows, :, space.source][:, space.pool_sites][:, :, None]
        for producer in space.arrays.parents[operator]:
            transfer_s = space.transfer_s[producer][tree.rows_at(operator, producer)][:, :, space.pool_sites]
            edges = transfer_s[:, :, :, None] + node_s[:, None]
            through_s = edges[:, :, :, FASTEST][tree.prefixes[operator]]
            if consumers:
                downstream_s = self._remaining_by_configuration(operator, operator + 1)
                through_s = through_s + downstream_s[:, space.pool_sites][:, None]
            self._edges[producer, operator] = edges
            self._through[producer, operator] = through_s.min(axis=2)

    def _remaining_by_configuration(self, level: int, producer: int) -> FloatArray:
        """Return (configurations, sites, scenarios) minimum time from an output of `producer` to the last result.

        Only results that depend on its consumers after `level` count.
        """
        consumers = [c for c in self._space.arrays.consumers[producer] if c > level]
        return np.asarray(np.maximum.reduce([self._through[producer, consumer] for consumer in consumers]))

    def _place(
        self, operator: int, labels: PartialPlacements, limits: Limits, considered: Counter[str]
    ) -> PartialPlacements:
        """Return every label extended by every choice of `operator` and every pool; finish times are unchanged."""
        space, tree, table = self._space, self._tree, self._space.options[operator]
        start, count = tree.children(operator)
        pools = len(space.pool_sites)
        children = count[labels.prefix]
        label = np.repeat(np.arange(labels.count), children * pools)
        offset = np.arange(len(label)) - np.repeat(np.cumsum(children * pools) - children * pools, children * pools)
        prefix = start[labels.prefix[label]] + offset // pools
        pool = offset % pools
        row = tree.rows_at(operator, operator + 1)[prefix]
        usable = table.usable[row, pool]
        considered["placements without a fitting option"] += int((~usable).sum())
        label, prefix, pool, row = label[usable], prefix[usable], pool[usable], row[usable]
        sites = np.column_stack([labels.sites[label], space.pool_sites[pool]])
        connected = self._connected(operator, sites)
        if not connected.all():
            considered["placements without a path of links"] += int((~connected).sum())
            label, prefix, pool, row, sites = (a[connected] for a in (label, prefix, pool, row, sites))
        transfers = self._transfer_usage(operator, prefix, sites)
        min_resources = labels.min_resources[label] + transfers + table.min_resources[row, pool]
        fitting = limits.satisfied(min_resources)
        considered["placements above a capacity"] += int((~fitting).sum())
        label, prefix, pool, row = label[fitting], prefix[fitting], pool[fitting], row[fitting]
        usage = table.resources[row, pool, table.cheapest[row, pool]]
        return PartialPlacements(
            prefix=prefix,
            pools=np.column_stack([labels.pools[label], pool]),
            sites=sites[fitting],
            finish_s={producer: finish_s[label] for producer, finish_s in labels.finish_s.items()},
            min_resources=min_resources[fitting],
            cheapest=labels.cheapest[label] + transfers[fitting] + usage,
            transfers=labels.transfers[label] + transfers[fitting],
        )

    def _connected(self, operator: int, sites: IntArray) -> BoolArray:
        """Return (n,) whether there are paths for the inputs of `operator` and, of a sink, for its result."""
        space, target = self._space, sites[:, operator + 1]
        connected = [space.connected[p][sites[:, p], target] for p in space.arrays.parents[operator]]
        if not space.arrays.consumers[operator + 1]:
            connected.append(space.connected[operator + 1][target, space.source])
        return np.asarray(np.logical_and.reduce(connected))

    def _transfer_usage(self, operator: int, prefix: IntArray, sites: IntArray) -> FloatArray:
        """Return (n, columns) usage of sending the inputs of `operator`; a value is sent to each site once."""
        space, tree = self._space, self._tree
        target = sites[:, operator + 1]
        total = np.zeros((len(prefix), space.columns.count))
        for producer in space.arrays.parents[operator]:
            rows = tree.rows_at(operator, producer)[prefix]
            is_new = np.ones(len(prefix), dtype=np.bool_)
            for previous_consumer in space.arrays.consumers[producer]:
                if previous_consumer < operator:
                    is_new &= sites[:, previous_consumer + 1] != target
            total += space.transfer_resources[producer][rows, sites[:, producer], target] * is_new[:, None]
        if not space.arrays.consumers[operator + 1]:
            rows = tree.rows_at(operator, operator + 1)[prefix]
            total += space.transfer_resources[operator + 1][rows, target, space.source]
        return total

    def _advance(self, operator: int, labels: PartialPlacements) -> PartialPlacements:
        """Return the labels with the finish time of `operator`, without the values that are no longer needed."""
        arrays = self._space.arrays
        pool = labels.pools[:, operator]
        end_s = latest(
            self._edges[producer, operator][labels.prefix, labels.sites[:, producer], pool] + labels.finish_s[producer]
            for producer in arrays.parents[operator]
        )
        return replace(labels, finish_s=finished(operator, arrays.consumers, labels.finish_s, end_s))

    def _prune(
        self, operator: int, labels: PartialPlacements, limits: Limits, max_labels: int, considered: Counter[str]
    ) -> PartialPlacements:
        """Return the labels within the latency limit, reduced to the maximum number."""
        bound_s = self._bound_s(operator, labels)
        if np.isfinite(limits.latency_s):
            retained = self._space.percentile.within(bound_s, limits.latency_s)
            considered["placements above the latency limit"] += int((~retained).sum())
            labels, bound_s = labels.take(retained), bound_s[retained]
        if labels.count > max_labels:
            considered["placements dropped at the label limit"] += labels.count - max_labels
            cheap = np.argsort(labels.min_resources[:, self._space.columns.dedicated_cost], kind="stable")
            fast = np.argsort(self._space.percentile.upper(bound_s), kind="stable")
            selected = np.concatenate([cheap[: max_labels // 2], fast[: max_labels - max_labels // 2]])
            labels = labels.take(np.unique(selected))
        return labels

    def _bound_s(self, operator: int, labels: PartialPlacements) -> FloatArray:
        """Return (n, scenarios) latency lower bounds of all plans with these prefixes."""
        bounds_s = []
        for producer, finish_s in labels.finish_s.items():
            fastest_s = finish_s[:, FASTEST]
            if producer != RESULT:
                by_configuration = self._remaining_by_configuration(operator, producer)
                remaining_s = np.minimum.reduceat(by_configuration, self._tree.first_configurations[operator], axis=0)
                fastest_s = fastest_s + remaining_s[labels.prefix, labels.sites[:, producer]]
            bounds_s.append(fastest_s)
        return latest(bounds_s)
