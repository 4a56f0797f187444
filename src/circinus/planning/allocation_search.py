"""Choosing the options of every operator when the placement is given: labels merged along the DAG.

A label is a beginning of a plan: options for the first operators of one placement of one configuration (together a
*cell*). It carries when each value that is still needed is there, and what has been taken. It is dropped when

- the fastest options for the rest miss the latency limit, or the least for the rest exceeds a capacity;
- a plan that is known takes no more in any column than it and the least for the rest;
- another label of its cell takes no more and is nowhere slower (by more than the slack) - or takes no more and is
  *settled*: it keeps the limit even with the slowest options for the rest. Latency below the limit is worth nothing,
  so whatever completes the first label completes the settled one, for less.

All this is exact but for the slack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import BoolArray, IntArray
from circinus.planning.dominance import DOMINANCE_TOLERANCE, ParetoArchive
from circinus.planning.placement_search import PartialPlacements
from circinus.planning.plan_arrays import PlanArrays
from circinus.planning.plan_metrics import PlanMetrics
from circinus.planning.search_space import Limits, SearchSpace

FloatArray = NDArray[np.floating]

_RESULT = -1

_ROUNDING = 1e-4
"""Means in single precision are off by a smaller share than this."""


@dataclass(frozen=True, eq=False)
class _Labels:
    """n beginnings of plans."""

    cell: IntArray
    """(n,) ascending."""
    options: IntArray
    """(n, operators so far)"""
    finish_s: dict[int, FloatArray]
    """For each value still needed (n, scenarios): when it is there."""
    resources: FloatArray
    """(n, columns) what the operators so far and all transfers take."""

    def take(self, which: IntArray | BoolArray) -> _Labels:
        return _Labels(
            self.cell[which],
            self.options[which],
            {producer: finish_s[which] for producer, finish_s in self.finish_s.items()},
            self.resources[which],
        )


@dataclass(frozen=True, eq=False)
class _Rest:
    """What may come after one operator, for each cell."""

    fastest_s: dict[int, FloatArray]
    """For each value still needed (cells, scenarios): from there to the last result, with the fastest options."""
    slowest_s: dict[int, FloatArray]
    """The same with the slowest."""
    least: FloatArray
    """(cells, columns) the least that the operators to come take."""


class AllocationSearch:
    """The search over the options of some placements."""

    def __init__(self, space: SearchSpace, configurations: IntArray, cells: PartialPlacements, limits: Limits) -> None:
        """`configurations`: what `cells.beginning` are indexes into, as indexes into those of the space."""
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
        self._rests = self._look_ahead()

    def cheapest(self, known: PlanArrays) -> PlanArrays:
        """The plans that keep the limits and take least: none of them, nor of those `known`, beats another one."""
        labels, _ = self._run(ParetoArchive(known.resources), settle=True)
        return known.with_others(self._plans(labels))

    def fastest(self) -> tuple[PlanArrays, FloatArray]:
        """Plans that keep the limits, among them the fastest of every cell, and (n, scenarios) their latency."""
        labels, latency_s = self._run(None, settle=False)
        return self._plans(labels), latency_s

    def with_margin(self, known: ParetoArchive, measure: PlanMetrics) -> tuple[PlanArrays, FloatArray]:
        """Plans that keep the limits, among them all that no point of `known` and no plan of their cell beats, when
        latency below the limit counts as well; and (n,) the upper bounds of their latency.

        Args:
            known: points of plans.
            measure: makes them.
        """
        labels, latency_s = self._run(None, settle=False, measure=measure, points=known)
        return self._plans(labels), self._space.percentile.upper(latency_s)

    def _plans(self, labels: _Labels) -> PlanArrays:
        return PlanArrays(
            self._configurations[labels.cell], self._cells.pools[labels.cell], labels.options, labels.resources
        )

    def _run(
        self,
        known: ParetoArchive | None,
        *,
        settle: bool,
        measure: PlanMetrics | None = None,
        points: ParetoArchive | None = None,
    ) -> tuple[_Labels, FloatArray]:
        count, scenarios = self._cells.count, self._space.arrays.percentile.grid.count
        labels = _Labels(
            cell=np.arange(count),
            options=np.zeros((count, 0), dtype=np.int64),
            finish_s={0: np.zeros((count, scenarios), dtype=self._space.transfer_s[0].dtype)},
            resources=self._cells.transfers,
        )
        for operator in range(len(self._space.arrays.order)):
            labels = self._extend(operator, labels, known)
            labels = self._prune(operator, labels, settle=settle, measure=measure, points=points)
        return labels, labels.finish_s[_RESULT]

    def _extend(self, operator: int, labels: _Labels, known: ParetoArchive | None) -> _Labels:
        """Every label with every option of `operator` that keeps the capacities and is not beaten by `known`."""
        table = self._space.options[operator]
        row, pool = self._rows[labels.cell, operator + 1], self._cells.pools[labels.cell, operator]
        label, option = np.nonzero(table.available[row, pool])
        row, pool, cell = row[label], pool[label], labels.cell[label]
        resources = labels.resources[label] + table.resources[row, pool, option]
        at_least = resources + self._rests[operator].least[cell]
        kept = self._limits.satisfied(at_least)
        if known is not None:
            kept[kept] = ~known.beats(at_least[kept])
        label, option, row, pool, cell = label[kept], option[kept], row[kept], pool[kept], cell[kept]
        ready_s: FloatArray | None = None
        for producer in self._space.arrays.parents[operator]:
            arrival_s = labels.finish_s[producer] + self._transfer_s[producer, operator][labels.cell]
            ready_s = arrival_s if ready_s is None else np.maximum(ready_s, arrival_s)
        assert ready_s is not None
        end_s = ready_s[label] + table.node_s[row, pool, option]
        arrays = self._space.arrays
        finish_s = {
            producer: known_s[label]
            for producer, known_s in labels.finish_s.items()
            if producer == _RESULT or arrays.consumers[producer][-1] > operator
        }
        if arrays.consumers[operator + 1]:
            finish_s[operator + 1] = end_s
        else:
            end_s += self._return_s[operator][cell]
            finish_s[_RESULT] = np.maximum(finish_s[_RESULT], end_s) if _RESULT in finish_s else end_s
        return _Labels(cell, np.column_stack([labels.options[label], option]), finish_s, resources[kept])

    def _prune(
        self, operator: int, labels: _Labels, *, settle: bool, measure: PlanMetrics | None, points: ParetoArchive | None
    ) -> _Labels:
        """Drop labels that miss the latency limit, or that known points or another label of their cell beat."""
        rest, percentile, limit_s = self._rests[operator], self._space.percentile, self._limits.latency_s
        fastest_s = _completed(labels, rest.fastest_s)
        kept = percentile.within(fastest_s, limit_s)
        if measure is not None and points is not None:
            at_least = labels.resources[kept] + rest.least[labels.cell[kept]]
            configuration = self._configurations[labels.cell[kept]]
            best = measure.points(configuration, at_least, percentile.upper(fastest_s[kept]))
            kept[kept] = ~points.beats(measure.with_tolerance(best))
        labels = labels.take(kept)
        settled = np.zeros(len(labels.cell), dtype=np.bool_)
        if settle:
            settled = percentile.within(_completed(labels, rest.slowest_s), limit_s)
        return labels.take(~self._beaten(labels, settled, measure))

    def _beaten(self, labels: _Labels, settled: BoolArray, measure: PlanMetrics | None) -> BoolArray:
        """(n,) which labels another one of their cell beats; of equal labels one stays."""
        one, other = _pairs(labels.cell)
        amounts = labels.resources if measure is None else labels.resources[:, measure.columns]
        ceilings = amounts * (
            1 + (DOMINANCE_TOLERANCE if measure is None else max(DOMINANCE_TOLERANCE, measure.tolerance))
        )
        for column in np.flatnonzero(amounts.any(axis=0)):  # column by column: few pairs outlast the first ones
            no_more = amounts[one, column] <= ceilings[other, column]
            one, other = one[no_more], other[no_more]
        in_time = settled[one]
        slack_s = self._space.latency_tolerance_s if measure is None else measure.slack_s
        faster_one, faster_other = _nowhere_slower(labels, one[~in_time], other[~in_time], slack_s)
        winner, loser = np.append(one[in_time], faster_one), np.append(other[in_time], faster_other)
        return _losers(len(labels.cell), winner, loser)

    def _look_ahead(self) -> list[_Rest]:
        """What may come after each operator."""
        arrays, cells = self._space.arrays, self._cells
        rests: list[_Rest] = []
        least = np.zeros((cells.count, self._space.columns.count))
        through: dict[tuple[int, int], tuple[FloatArray, FloatArray]] = {}
        for operator in reversed(range(len(arrays.order))):
            fastest_s: dict[int, FloatArray] = {}
            slowest_s: dict[int, FloatArray] = {}
            for producer in range(operator + 2):
                ways = [through[producer, c] for c in arrays.consumers[producer] if c > operator]
                if ways:
                    fastest_s[producer] = np.maximum.reduce([way[0] for way in ways])
                    slowest_s[producer] = np.maximum.reduce([way[1] for way in ways])
            rests.append(_Rest(fastest_s, slowest_s, least))
            table = self._space.options[operator]
            row, pool = self._rows[:, operator + 1], cells.pools[:, operator]
            least = least + table.least[row, pool]
            behind = operator + 1
            for producer in arrays.parents[operator]:
                transfer_s = self._transfer_s[producer, operator]
                through[producer, operator] = (
                    transfer_s
                    + table.fastest_s[row, pool]
                    + (fastest_s.get(behind, self._return_s.get(operator, 0.0))),
                    transfer_s
                    + table.slowest_s[row, pool]
                    + (slowest_s.get(behind, self._return_s.get(operator, 0.0))),
                )
        return rests[::-1]


def _nowhere_slower(labels: _Labels, one: IntArray, other: IntArray, slack_s: float) -> tuple[IntArray, IntArray]:
    """Those of the pairs in which `one` is nowhere slower than `other` by more than the slack."""
    for finish_s in labels.finish_s.values():  # means first: most pairs fail there, at a fraction of the work
        mean_s = finish_s.mean(axis=1)
        kept = mean_s[one] <= (mean_s[other] + slack_s) * (1 + _ROUNDING)
        one, other = one[kept], other[kept]
    for finish_s in labels.finish_s.values():
        kept = (finish_s[one] - finish_s[other]).max(axis=1, initial=-np.inf) <= slack_s
        one, other = one[kept], other[kept]
    return one, other


def _completed(labels: _Labels, rest_s: dict[int, FloatArray]) -> FloatArray:
    """(n, scenarios) the latency of every label when the rest takes `rest_s`."""
    completed_s: FloatArray | None = None
    for producer, finish_s in labels.finish_s.items():
        through_s = finish_s + rest_s[producer][labels.cell] if producer in rest_s else finish_s
        completed_s = through_s if completed_s is None else np.maximum(completed_s, through_s)
    assert completed_s is not None
    return completed_s


def _pairs(cell: IntArray) -> tuple[IntArray, IntArray]:
    """All ordered pairs of different labels of the same cell; `cell` is ascending."""
    starts = np.flatnonzero(np.concatenate([[True], cell[1:] != cell[:-1]]))
    sizes = np.diff(np.append(starts, len(cell)))
    per_label = np.repeat(sizes, sizes)
    one = np.repeat(np.arange(len(cell)), per_label)
    within = np.arange(len(one)) - np.repeat(np.cumsum(per_label) - per_label, per_label)
    other = np.repeat(np.repeat(starts, sizes), per_label) + within
    different = one != other
    return one[different], other[different]


def _losers(count: int, winner: IntArray, loser: IntArray) -> BoolArray:
    """(count,) who loses to somebody who stays; whoever has lost already beats nobody."""
    lost = np.zeros(count, dtype=np.bool_)
    for one, other in zip(winner.tolist(), loser.tolist(), strict=True):
        if not lost[one]:
            lost[other] = True
    return lost
