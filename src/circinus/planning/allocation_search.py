"""Label-setting search over the options of every operator for given placements, along the DAG.

A label is a partial plan: options for the first operators of one placement of one configuration (together a *cell*),
with the finish times of the values that are still needed and the resource usage so far. It is pruned if

- the fastest options for the remaining operators miss the latency limit, or their minimum usage exceeds a capacity;
- an existing plan uses no more in any column than the label plus the minimum usage of the remaining operators;
- another label of its cell uses no more and is nowhere slower (within the slack), or uses no more and is *settled*: it
  meets the limit even with the slowest remaining options. Latency below the limit has no value, so any completion of
  the first label also completes the settled one at lower usage.

The search is exact except for the slack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.planning.dominance import DOMINANCE_TOLERANCE, GrowingArchive
from circinus.planning.placement_search import RESULT, PartialPlacements, finished, latest
from circinus.planning.plan_arrays import PlanArrays, PlanMetrics
from circinus.planning.search_space import Limits, SearchSpace

_ROUNDING = 1e-4
"""Relative rounding error of means in single precision."""


@dataclass(frozen=True, eq=False)
class _Labels:
    """The n partial plans."""

    cell: IntArray
    """(n,) ascending."""
    options: IntArray
    """(n, operators so far)"""
    finish_s: dict[int, FloatArray]
    """Value still needed -> (n, scenarios) finish time."""
    resources: FloatArray
    """(n, columns) usage of the operators so far and of all transfers."""

    def take(self, selected: BoolArray) -> _Labels:
        if selected.all():
            return self
        return _Labels(
            self.cell[selected],
            self.options[selected],
            {producer: finish_s[selected] for producer, finish_s in self.finish_s.items()},
            self.resources[selected],
        )


@dataclass(frozen=True, eq=False)
class _RemainingBounds:
    """Bounds of the remaining operators after one operator, for each cell."""

    fastest_s: dict[int, FloatArray]
    """Value still needed -> (cells, scenarios) time to the last result with the fastest options."""
    slowest_s: dict[int, FloatArray]
    """Value still needed -> (cells, scenarios) time to the last result with the slowest options."""
    min_resources: FloatArray
    """(cells, columns) minimum usage of the remaining operators."""


class AllocationSearch:
    """Search over the options of some placements."""

    def __init__(self, space: SearchSpace, configurations: IntArray, cells: PartialPlacements, limits: Limits) -> None:
        """Prepare the search; `cells.prefix` are indexes into `configurations`, which are indexes into the space's."""
        self._space = space
        self._cells = cells
        self._limits = limits
        self._configurations = configurations[cells.prefix]
        self._rows = space.arrays.rows[self._configurations]
        self._transfer_s = {
            (producer, operator): space.transfer_s[producer][
                self._rows[:, producer], cells.sites[:, producer], cells.sites[:, operator + 1]
            ]
            for operator, parents in enumerate(space.arrays.parents)
            for producer in parents
        }
        self._return_s = {
            operator: space.transfer_s[operator + 1][
                self._rows[:, operator + 1], cells.sites[:, operator + 1], space.source
            ]
            for operator in range(len(space.arrays.order))
            if not space.arrays.consumers[operator + 1]
        }
        self._remaining = self._remaining_bounds()

    def cheapest(self, existing: GrowingArchive) -> PlanArrays:
        """Return the plans within the limits that neither existing resources nor others of their cell dominate."""
        return self._plans(self._run(existing, settle=True)[0])

    def undominated(self) -> PlanArrays:
        """Return the plans within the limits that no other plan of their cell dominates."""
        return self._plans(self._run(None, settle=True)[0])

    def fastest(self) -> tuple[PlanArrays, FloatArray]:
        """Return plans within the limits, including the fastest of every cell, and their latency (n, scenarios)."""
        labels, latency_s = self._run(None, settle=False)
        return self._plans(labels), latency_s

    def with_margin(self, existing: GrowingArchive, measure: PlanMetrics) -> tuple[PlanArrays, FloatArray]:
        """Return plans within the limits and (n,) upper bounds of their latency, if margins count.

        The plans include all that no point of `existing` and no plan of their cell dominates.
        """
        labels, latency_s = self._run(None, settle=False, measure=measure, points=existing)
        return self._plans(labels), self._space.percentile.upper(latency_s)

    def _plans(self, labels: _Labels) -> PlanArrays:
        return PlanArrays(
            self._configurations[labels.cell], self._cells.pools[labels.cell], labels.options, labels.resources
        )

    def _run(
        self,
        existing: GrowingArchive | None,
        *,
        settle: bool,
        measure: PlanMetrics | None = None,
        points: GrowingArchive | None = None,
    ) -> tuple[_Labels, FloatArray]:
        count, scenarios = self._cells.count, self._space.arrays.percentile.grid.count
        labels = _Labels(
            cell=np.arange(count),
            options=np.zeros((count, 0), dtype=np.int64),
            finish_s={0: np.zeros((count, scenarios), dtype=self._space.transfer_s[0].dtype)},
            resources=self._cells.transfers,
        )
        for operator in range(len(self._space.arrays.order)):
            labels = self._extend(operator, labels, existing)
            labels = self._prune(operator, labels, settle=settle, measure=measure, points=points)
        return labels, labels.finish_s[RESULT]

    def _extend(self, operator: int, labels: _Labels, existing: GrowingArchive | None) -> _Labels:
        """Return every label with every option of `operator` within the capacities and not dominated by `existing`."""
        table = self._space.options[operator]
        row, pool = self._rows[labels.cell, operator + 1], self._cells.pools[labels.cell, operator]
        label, option = np.nonzero(table.available[row, pool])
        row, pool, cell = row[label], pool[label], labels.cell[label]
        resources = labels.resources[label] + table.resources[row, pool, option]
        min_resources = resources + self._remaining[operator].min_resources[cell]
        mask = self._limits.satisfied(min_resources)
        if existing is not None:
            mask[mask] = ~existing.beats(min_resources[mask])
        label, option, row, pool, cell = label[mask], option[mask], row[mask], pool[mask], cell[mask]
        arrays = self._space.arrays
        ready_s = latest(
            labels.finish_s[producer] + self._transfer_s[producer, operator][labels.cell]
            for producer in arrays.parents[operator]
        )
        end_s = ready_s[label] + table.node_s[row, pool, option]
        finish_s = {producer: values_s[label] for producer, values_s in labels.finish_s.items()}
        if not arrays.consumers[operator + 1]:
            end_s += self._return_s[operator][cell]
        finish_s = finished(operator, arrays.consumers, finish_s, end_s)
        return _Labels(cell, np.column_stack([labels.options[label], option]), finish_s, resources[mask])

    def _prune(
        self,
        operator: int,
        labels: _Labels,
        *,
        settle: bool,
        measure: PlanMetrics | None,
        points: GrowingArchive | None,
    ) -> _Labels:
        """Return the labels within the latency limit that no existing point or other label of the cell dominates."""
        remaining, percentile, limit_s = self._remaining[operator], self._space.percentile, self._limits.latency_s
        fastest_s = _completed(labels, remaining.fastest_s)
        retained = percentile.within(fastest_s, limit_s)
        if measure is not None and points is not None:
            min_resources = labels.resources[retained] + remaining.min_resources[labels.cell[retained]]
            configuration = self._configurations[labels.cell[retained]]
            best = measure.points(configuration, min_resources, percentile.upper(fastest_s[retained]))
            retained[retained] = ~points.beats(measure.with_tolerance(best))
        labels = labels.take(retained)
        settled = np.full(len(labels.cell), settle)
        if settle and remaining.slowest_s:  # after the last operator, all that are retained meet the limit
            settled = percentile.within(_completed(labels, remaining.slowest_s), limit_s)
        return labels.take(~self._dominated(labels, settled, measure))

    def _dominated(self, labels: _Labels, settled: BoolArray, measure: PlanMetrics | None) -> BoolArray:
        """Return (n,) whether another label of the cell dominates the label; of equal labels one remains."""
        first, second = _pairs(labels.cell)
        amounts = labels.resources if measure is None else labels.resources[:, measure.columns]
        ceilings = amounts * (
            1 + (DOMINANCE_TOLERANCE if measure is None else max(DOMINANCE_TOLERANCE, measure.tolerance))
        )
        for column in np.flatnonzero(amounts.any(axis=0)):  # column by column, as the first ones exclude most pairs
            no_more = amounts[first, column] <= ceilings[second, column]
            first, second = first[no_more], second[no_more]
        in_time = settled[first]
        slack_s = self._space.latency_tolerance_s if measure is None else measure.slack_s
        faster, slower = _nowhere_slower(labels, first[~in_time], second[~in_time], slack_s)
        winner, loser = np.append(first[in_time], faster), np.append(second[in_time], slower)
        return _losers(len(labels.cell), winner, loser)

    def _remaining_bounds(self) -> list[_RemainingBounds]:
        arrays, cells = self._space.arrays, self._cells
        remaining: list[_RemainingBounds] = []
        min_resources = np.zeros((cells.count, self._space.columns.count))
        through: dict[tuple[int, int], tuple[FloatArray, FloatArray]] = {}
        for operator in reversed(range(len(arrays.order))):
            fastest_s: dict[int, FloatArray] = {}
            slowest_s: dict[int, FloatArray] = {}
            for producer in range(operator + 2):
                paths = [through[producer, c] for c in arrays.consumers[producer] if c > operator]
                if paths:
                    fastest_s[producer] = np.maximum.reduce([path[0] for path in paths])
                    slowest_s[producer] = np.maximum.reduce([path[1] for path in paths])
            remaining.append(_RemainingBounds(fastest_s, slowest_s, min_resources))
            table = self._space.options[operator]
            row, pool = self._rows[:, operator + 1], cells.pools[:, operator]
            min_resources = min_resources + table.min_resources[row, pool]
            output = operator + 1
            for producer in arrays.parents[operator]:
                transfer_s = self._transfer_s[producer, operator]
                through[producer, operator] = (
                    transfer_s
                    + table.fastest_s[row, pool]
                    + (fastest_s.get(output, self._return_s.get(operator, 0.0))),
                    transfer_s
                    + table.slowest_s[row, pool]
                    + (slowest_s.get(output, self._return_s.get(operator, 0.0))),
                )
        return remaining[::-1]


def _nowhere_slower(labels: _Labels, first: IntArray, second: IntArray, slack_s: float) -> tuple[IntArray, IntArray]:
    """Return the pairs in which `first` is nowhere slower than `second` (within the slack)."""
    for finish_s in labels.finish_s.values():  # means first, as they exclude most pairs cheaply
        mean_s = finish_s.mean(axis=1)
        retained = mean_s[first] <= (mean_s[second] + slack_s) * (1 + _ROUNDING)
        first, second = first[retained], second[retained]
    for finish_s in labels.finish_s.values():
        retained = (finish_s[first] - finish_s[second]).max(axis=1, initial=-np.inf) <= slack_s
        first, second = first[retained], second[retained]
    return first, second


def _completed(labels: _Labels, rest_s: dict[int, FloatArray]) -> FloatArray:
    """Return (n, scenarios) latency of every label if the remaining operators take `rest_s`."""
    return latest(
        finish_s + rest_s[producer][labels.cell] if producer in rest_s else finish_s
        for producer, finish_s in labels.finish_s.items()
    )


def _pairs(cell: IntArray) -> tuple[IntArray, IntArray]:
    """Return all ordered pairs of different labels of the same cell; `cell` is ascending."""
    starts = np.flatnonzero(np.concatenate([[True], cell[1:] != cell[:-1]]))
    sizes = np.diff(np.append(starts, len(cell)))
    per_label = np.repeat(sizes, sizes)
    first = np.repeat(np.arange(len(cell)), per_label)
    within = np.arange(len(first)) - np.repeat(np.cumsum(per_label) - per_label, per_label)
    second = np.repeat(np.repeat(starts, sizes), per_label) + within
    different = first != second
    return first[different], second[different]


def _losers(count: int, winner: IntArray, loser: IntArray) -> BoolArray:
    """Return (count,) whether each label loses to one that remains; a label that has lost beats no other."""
    is_loser = np.zeros(count, dtype=np.bool_)
    for winner_index, loser_index in zip(winner.tolist(), loser.tolist(), strict=True):
        if not is_loser[winner_index]:
            is_loser[loser_index] = True
    return is_loser
