"""Following the placements of many configurations along the DAG, operator by operator.

A label is a beginning of a configuration with a pool for each of its operators. It carries two latency vectors for each
value that is still needed: with the fastest options (the least of any option, scenario by scenario: no plan of this
placement is faster) and with the cheapest. A label is dropped when even the fastest options, here and in the best
placement of what remains, miss the latency limit, or when the least it takes exceeds a capacity. Labels of different
placements are never compared: what one takes from a pool the other takes elsewhere, so neither beats the other.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import BoolArray, IntArray
from circinus.planning.search_space import Limits, SearchSpace


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """The configurations of a search as a tree: level t holds the distinct choices of the first t + 1 operators."""

    rows: IntArray
    """(configurations, producers), sorted."""
    of: tuple[IntArray, ...]
    """For each level (configurations,) the beginning that each configuration has."""
    first: tuple[IntArray, ...]
    """For each level (beginnings,) the first configuration that has it."""

    @classmethod
    def of_rows(cls, rows: IntArray) -> PrefixTree:
        """The tree of configurations given by sorted rows."""
        same = np.cumprod(rows[1:] == rows[:-1], axis=1).astype(np.bool_)
        starts = [np.concatenate([[True], ~same[:, producer]]) for producer in range(1, rows.shape[1])]
        return cls(
            rows,
            tuple(np.cumsum(start) - 1 for start in starts),
            tuple(np.flatnonzero(start) for start in starts),
        )

    def rows_at(self, level: int, producer: int) -> IntArray:
        """(beginnings,) the row of `producer` in each beginning of `level`."""
        return np.asarray(self.rows[self.first[level], producer])

    def children(self, level: int) -> tuple[IntArray, IntArray]:
        """For each beginning of the level before (level 0: for the root) its first child in `level`, and how many."""
        if level == 0:
            return np.zeros(1, dtype=np.int64), np.array([len(self.first[0])])
        parents = self.of[level - 1][self.first[level]]
        count = np.bincount(parents, minlength=len(self.first[level - 1]))
        return np.cumsum(count) - count, count


FloatArray = NDArray[np.floating]

FASTEST, CHEAPEST = 0, 1

_RESULT = -1
"""Stands for the results that are back at the source, among the producers that a label keeps the finish of."""


@dataclass(frozen=True, eq=False)
class PartialPlacements:
    """n configurations with a pool for every operator (during the search: for the first operators)."""

    prefix: IntArray
    """(n,) of the configurations' beginnings; at the end the configuration, as an index into those searched."""
    pools: IntArray
    """(n, operators)"""
    sites: IntArray
    """(n, producers)"""
    finish_s: dict[int, FloatArray]
    """For each value still needed (n, 2, scenarios): when it is there, with the fastest and the cheapest options."""
    least: FloatArray
    """(n, columns) the least that any options take, column by column; transfers included."""
    cheapest: FloatArray
    """(n, columns) what the cheapest options take; transfers included."""
    transfers: FloatArray
    """(n, columns) what the transfers take."""

    @property
    def count(self) -> int:
        """n"""
        return len(self.prefix)

    @property
    def latency_s(self) -> FloatArray:
        """(n, 2, scenarios) until all results are back."""
        return self.finish_s[_RESULT]

    def take(self, which: IntArray | BoolArray) -> PartialPlacements:
        """Some of these."""
        return PartialPlacements(
            self.prefix[which],
            self.pools[which],
            self.sites[which],
            {producer: finish_s[which] for producer, finish_s in self.finish_s.items()},
            self.least[which],
            self.cheapest[which],
            self.transfers[which],
        )


class PlacementSearch:
    """The search over the placements of some configurations of one space."""

    def __init__(self, space: SearchSpace, configurations: IntArray) -> None:
        """`configurations`: ascending indexes into those of the space."""
        self._space = space
        self._tree = PrefixTree.of_rows(space.arrays.rows[configurations])
        self._edges: dict[tuple[int, int], FloatArray] = {}
        self._through: dict[tuple[int, int], FloatArray] = {}
        for operator in reversed(range(len(space.arrays.order))):
            self._add_operator(operator)

    def lower_bounds_s(self) -> FloatArray:
        """(configurations, scenarios) latencies that no plan of a configuration beats, whatever its placement."""
        return self._remaining_by_configuration(-1, 0)[:, self._space.source]

    def run(self, limits: Limits, max_labels: int, considered: Counter[str]) -> PartialPlacements:
        """All placements that may keep `limits`.

        Args:
            limits: what plans must keep to.
            max_labels: most labels to follow from one operator to the next; beyond that the cheapest and the
                fastest stay.
            considered: counts what was dropped, and why.
        """
        space = self._space
        nothing = np.zeros((1, space.columns.count))
        labels = PartialPlacements(
            prefix=np.zeros(1, dtype=np.int64),
            pools=np.zeros((1, 0), dtype=np.int64),
            sites=np.full((1, 1), space.source),
            finish_s={0: np.zeros((1, 2, space.arrays.percentile.grid.count), dtype=space.transfer_s[0].dtype)},
            least=nothing,
            cheapest=nothing,
            transfers=nothing,
        )
        for operator in range(len(space.arrays.order)):
            labels = self._place(operator, labels, limits, considered)
            labels = self._follow(operator, labels)
            labels = self._prune(operator, labels, limits, max_labels, considered)
        return labels

    def _add_operator(self, operator: int) -> None:
        """Prepare the ways through one operator; those behind it must have been prepared.

        `_edges[producer, operator]` is (beginnings, sites, pools, 2, scenarios): from an output of `producer` at a
        site to the end of `operator` in a pool - transfer, wait, service, and for a sink the way back to the source.
        `_through[producer, operator]` is (configurations, sites, scenarios): the least from there to the last result.
        """
        space, tree, table = self._space, self._tree, self._space.options[operator]
        node_s = np.stack([table.fastest_s, table.cheapest_s], axis=2)
        consumers = space.arrays.consumers[operator + 1]
        if not consumers:
            node_s += space.transfer_s[operator + 1][:, space.pool_sites, space.source][:, :, None]
        node_s = node_s[tree.rows_at(operator, operator + 1)]
        for producer in space.arrays.parents[operator]:
            transfer_s = space.transfer_s[producer][tree.rows_at(operator, producer)][:, :, space.pool_sites]
            edges = transfer_s[:, :, :, None] + node_s[:, None]
            through_s = edges[:, :, :, FASTEST][tree.of[operator]]
            if consumers:
                behind_s = self._remaining_by_configuration(operator, operator + 1)
                through_s = through_s + behind_s[:, space.pool_sites][:, None]
            self._edges[producer, operator] = edges
            self._through[producer, operator] = through_s.min(axis=2)

    def _remaining_by_configuration(self, level: int, producer: int) -> FloatArray:
        """(configurations, sites, scenarios) the least from an output of `producer` to the last of the results that
        its consumers after `level` lead to."""
        consumers = [c for c in self._space.arrays.consumers[producer] if c > level]
        return np.asarray(np.maximum.reduce([self._through[producer, consumer] for consumer in consumers]))

    def _place(
        self, operator: int, labels: PartialPlacements, limits: Limits, considered: Counter[str]
    ) -> PartialPlacements:
        """Every label with every choice of `operator` and every pool for it. The finish is still that before it."""
        space, tree, table = self._space, self._tree, self._space.options[operator]
        start, count = tree.children(operator)
        pools = len(space.pool_sites)
        children = count[labels.prefix]
        label = np.repeat(np.arange(labels.count), children * pools)
        within = np.arange(len(label)) - np.repeat(np.cumsum(children * pools) - children * pools, children * pools)
        beginning = start[labels.prefix[label]] + within // pools
        pool = within % pools
        row = tree.rows_at(operator, operator + 1)[beginning]
        usable = table.usable[row, pool]
        considered["placements without a fitting option"] += int((~usable).sum())
        label, beginning, pool, row = label[usable], beginning[usable], pool[usable], row[usable]
        sites = np.column_stack([labels.sites[label], space.pool_sites[pool]])
        sent = self._sent(operator, beginning, sites)
        least = labels.least[label] + sent + table.least[row, pool]
        held = limits.satisfied(least)
        considered["placements beyond a capacity"] += int((~held).sum())
        label, beginning, pool, row = label[held], beginning[held], pool[held], row[held]
        taken = table.resources[row, pool, table.cheapest[row, pool]]
        return PartialPlacements(
            prefix=beginning,
            pools=np.column_stack([labels.pools[label], pool]),
            sites=sites[held],
            finish_s={producer: finish_s[label] for producer, finish_s in labels.finish_s.items()},
            least=least[held],
            cheapest=labels.cheapest[label] + sent[held] + taken,
            transfers=labels.transfers[label] + sent[held],
        )

    def _sent(self, operator: int, beginning: IntArray, sites: IntArray) -> FloatArray:
        """(n, columns) what sending the inputs of `operator` takes; what its site has already got is not sent."""
        space, tree = self._space, self._tree
        target = sites[:, operator + 1]
        total = np.zeros((len(beginning), space.columns.count))
        for producer in space.arrays.parents[operator]:
            rows = tree.rows_at(operator, producer)[beginning]
            new = np.ones(len(beginning), dtype=np.bool_)
            for earlier in space.arrays.consumers[producer]:
                if earlier < operator:
                    new &= sites[:, earlier + 1] != target
            total += space.transfer_resources[producer][rows, sites[:, producer], target] * new[:, None]
        if not space.arrays.consumers[operator + 1]:
            rows = tree.rows_at(operator, operator + 1)[beginning]
            total += space.transfer_resources[operator + 1][rows, target, space.source]
        return total

    def _follow(self, operator: int, labels: PartialPlacements) -> PartialPlacements:
        """Add the end of `operator`, and forget what nothing needs any more."""
        arrays = self._space.arrays
        pool = labels.pools[:, operator]
        end_s: FloatArray | None = None
        for producer in arrays.parents[operator]:
            edges = self._edges[producer, operator][labels.prefix, labels.sites[:, producer], pool]
            edges += labels.finish_s[producer]
            end_s = edges if end_s is None else np.maximum(end_s, edges)
        assert end_s is not None
        finish_s = {
            producer: known
            for producer, known in labels.finish_s.items()
            if producer == _RESULT or arrays.consumers[producer][-1] > operator
        }
        if arrays.consumers[operator + 1]:
            finish_s[operator + 1] = end_s
        else:
            finish_s[_RESULT] = np.maximum(finish_s[_RESULT], end_s) if _RESULT in finish_s else end_s
        return PartialPlacements(
            labels.prefix, labels.pools, labels.sites, finish_s, labels.least, labels.cheapest, labels.transfers
        )

    def _prune(
        self, operator: int, labels: PartialPlacements, limits: Limits, max_labels: int, considered: Counter[str]
    ) -> PartialPlacements:
        """Drop what cannot keep the latency limit, and what exceeds the number of labels."""
        bound_s = self._bound_s(operator, labels)
        if np.isfinite(limits.latency_s):
            kept = self._space.percentile.within(bound_s, limits.latency_s)
            considered["placements beyond the latency limit"] += int((~kept).sum())
            labels, bound_s = labels.take(kept), bound_s[kept]
        if labels.count > max_labels:
            considered["placements cut"] += labels.count - max_labels
            cheap = np.argsort(labels.least[:, self._space.columns.alone_cost], kind="stable")
            fast = np.argsort(self._space.percentile.upper(bound_s), kind="stable")
            chosen = np.concatenate([cheap[: max_labels // 2], fast[: max_labels - max_labels // 2]])
            labels = labels.take(np.unique(chosen))
        return labels

    def _bound_s(self, operator: int, labels: PartialPlacements) -> FloatArray:
        """(n, scenarios) latencies that no plan with these beginnings beats."""
        bound_s: FloatArray | None = None
        for producer, finish_s in labels.finish_s.items():
            fastest_s = finish_s[:, FASTEST]
            if producer != _RESULT:
                by_configuration = self._remaining_by_configuration(operator, producer)
                remaining_s = np.minimum.reduceat(by_configuration, self._tree.first[operator], axis=0)
                fastest_s = fastest_s + remaining_s[labels.prefix, labels.sites[:, producer]]
            bound_s = fastest_s if bound_s is None else np.maximum(bound_s, fastest_s)
        assert bound_s is not None
        return bound_s
