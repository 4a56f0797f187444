"""Metered access of a search to measurements, and the assessment of its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from benchmarks.search.arena import Arena, PlanSpace
from benchmarks.search.slo_cases import Case
from circinus.arrays import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Answer:
    """Plan chosen by a search."""

    configuration: int
    placement: int


class Meter:
    """Metered access to scores, seconds and sizes: every measurement is charged.

    All configurations are measured on the items in the same order. Service times were published as means, so they are
    known exactly from the first item on.
    """

    def __init__(self, arena: Arena, *, reuse_prefixes: bool) -> None:
        """Start without measurements.

        Args:
            arena: drawn arena.
            reuse_prefixes: whether a prefix runs at most once on an item.
        """
        self._arena = arena
        self._reuse = reuse_prefixes
        self._order: IntArray = np.arange(arena.space.items)
        self._row_items = np.zeros(len(arena.item_s), dtype=np.int64)
        self._tables: tuple[FloatArray, FloatArray] | None = None
        self.items: IntArray = np.zeros(len(arena.space.configurations), dtype=np.int64)
        """(k,) number of items that each configuration was measured on."""
        self.seconds = 0.0
        """Charged seconds."""

    @property
    def space(self) -> PlanSpace:
        """Plan space, free of charge."""
        return self._arena.space

    @property
    def touched(self) -> int:
        """Number of configurations measured on at least one item."""
        return int((self.items > 0).sum())

    def arrange(self, order: IntArray) -> None:
        """Set the order of the items, (N,) item numbers, before anything is measured.

        Raises:
            ValueError: items were measured already, or the order is not a permutation.
        """
        if self.touched:
            raise ValueError("the order of items must be set before anything is measured")
        if not np.array_equal(np.sort(order), np.arange(self.space.items)):
            raise ValueError(f"the order of {len(order)} items is not a permutation of {self.space.items} items")
        self._order = np.array(order)

    def measure(self, configuration: int, items: int) -> FloatArray:
        """Measure a configuration on its next `items` items, or on those that are left.

        Returns:
            (up to items,) scores.
        """
        measured = int(self.items[configuration])
        target = min(measured + max(items, 0), self.space.items)
        self.seconds += self._price_s(configuration, items)
        rows = self.space.rows[configuration]
        if target > measured and (self._row_items[rows] == 0).any():
            self._tables = None
        self._row_items[rows] = np.maximum(self._row_items[rows], target)
        self.items[configuration] = target
        return np.array(self._arena.scores[configuration, self._order[measured:target]])

    def price_s(self, configuration: int, items: int) -> float:
        """Return the seconds that `measure` would charge; NaN if a prefix of the configuration was not run yet."""
        is_known = self.known_rows[self.space.rows[configuration]].all()
        return self._price_s(configuration, items) if is_known else np.nan

    def _price_s(self, configuration: int, items: int) -> float:
        measured = int(self.items[configuration])
        target = min(measured + max(items, 0), self.space.items)
        rows = self.space.rows[configuration]
        have = np.maximum(self._row_items[rows], measured) if self._reuse else np.full(len(rows), measured)
        return float((np.maximum(target - have, 0) * self._arena.item_s[rows]).sum())

    def scores(self, configuration: int) -> FloatArray:
        """Return the (items[configuration],) measured scores of a configuration."""
        return np.array(self._arena.scores[configuration, self._order[: self.items[configuration]]])

    @property
    def known_rows(self) -> BoolArray:
        """(r,) whether each prefix was run on at least one item."""
        return np.asarray(self._row_items > 0)

    @property
    def service_s(self) -> FloatArray:
        """(r,) service times of one request; NaN for prefixes that were not run."""
        return np.where(self.known_rows, self._arena.service_s, np.nan)

    @property
    def item_s(self) -> FloatArray:
        """(r,) seconds to profile one item; NaN for prefixes that were not run."""
        return np.where(self.known_rows, self._arena.item_s, np.nan)

    @property
    def output_bytes(self) -> FloatArray:
        """(r,) output sizes of one request; NaN for prefixes that were not run."""
        return np.where(self.known_rows, self._arena.output_bytes, np.nan)

    @property
    def latency_s(self) -> FloatArray:
        """(k, p) latencies of all plans; NaN where a prefix was not run, infinite where memory does not suffice."""
        return self._known_tables()[0]

    @property
    def cost_usd_per_h(self) -> FloatArray:
        """(k, p) costs of all plans; NaN where a prefix was not run, infinite where memory does not suffice."""
        return self._known_tables()[1]

    def _known_tables(self) -> tuple[FloatArray, FloatArray]:
        if self._tables is None:
            rows, service_s = self.space.rows, self.service_s
            self._tables = (
                self.space.latency_s(service_s[rows], self.output_bytes[rows]),
                self.space.cost_usd_per_h(service_s[rows]),
            )
        return self._tables


class Searcher(Protocol):
    """Search method for one query's plan."""

    @property
    def name(self) -> str:
        """Name in tables."""

    @property
    def reuse_prefixes(self) -> bool:
        """True if the meter charges shared prefixes once."""

    def search(self, case: Case, meter: Meter, rng: np.random.Generator) -> Answer | None:
        """Return a plan for a case, or None if none is feasible. Deterministic given `rng`."""


@dataclass(frozen=True)
class Verdict:
    """Assessment of an answer by the true means of all items."""

    feasible: bool
    """True if the case has a feasible plan."""
    answered: bool
    found: bool
    """True if the answer keeps all SLOs."""
    cost_over_optimum: float
    """Cost over that of the optimum; NaN without a feasible answer."""
    touched: int
    items: int
    """Number of measured scores."""
    seconds: float
    accurate: bool = True
    """True if the answer, if any, keeps the accuracy SLO."""

    @property
    def right(self) -> bool:
        """True if the answer is a feasible plan, or none for an infeasible case."""
        return self.found if self.feasible else not self.answered


def judge(case: Case, answer: Answer | None, arena: Arena, meter: Meter) -> Verdict:
    """Assess an answer against the ground truth."""
    feasible = case.feasible(arena)
    is_feasible = answer is not None and bool(feasible[answer.configuration, answer.placement])
    ratio = np.nan
    if answer is not None and is_feasible:
        cost = arena.cost_usd_per_h[answer.configuration, answer.placement]
        ratio = float(cost / case.optimum_usd_per_h(arena))
    return Verdict(
        feasible=bool(feasible.any()),
        answered=answer is not None,
        found=is_feasible,
        cost_over_optimum=ratio,
        touched=meter.touched,
        items=int(meter.items.sum()),
        seconds=meter.seconds,
        accurate=answer is None or bool(case.accurate(arena.means)[answer.configuration]),
    )
