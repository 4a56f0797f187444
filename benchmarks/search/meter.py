"""What a search may see, what it is charged for that, and how its answer is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from benchmarks.search.arena import Arena, PlanSpace
from benchmarks.search.slo_cases import Case
from circinus.arrays import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Answer:
    """A plan."""

    configuration: int
    placement: int


class Meter:
    """The only way to scores, seconds and sizes: whoever measures is charged.

    All configurations are measured on the items in one order. What an operator takes was published as a mean, so it is
    known from the first item on, and exactly.
    """

    def __init__(self, arena: Arena, *, reuse_prefixes: bool) -> None:
        """Nothing is known yet.

        Args:
            arena: a drawn one.
            reuse_prefixes: whether a prefix that was run on an item is not run on it again.
        """
        self._arena = arena
        self._reuse = reuse_prefixes
        self._order: IntArray = np.arange(arena.space.items)
        self._row_items = np.zeros(len(arena.item_s), dtype=np.int64)
        self._tables: tuple[FloatArray, FloatArray] | None = None
        self.items: IntArray = np.zeros(len(arena.space.configurations), dtype=np.int64)
        """(k,) how many items each configuration is known on."""
        self.seconds = 0.0
        """Charged so far."""

    @property
    def space(self) -> PlanSpace:
        """What is known for nothing."""
        return self._arena.space

    @property
    def touched(self) -> int:
        """Configurations that were measured on an item at least."""
        return int((self.items > 0).sum())

    def arrange(self, order: IntArray) -> None:
        """Show the items in another order from now on, (N,) numbers of them; only before anything is measured.

        Raises:
            ValueError: something was measured, or it is no permutation.
        """
        if self.touched:
            raise ValueError("found items measured, expected the order to be changed before")
        if not np.array_equal(np.sort(order), np.arange(self.space.items)):
            raise ValueError(f"found an order of {len(order)} items, expected a permutation of {self.space.items}")
        self._order = np.array(order)

    def measure(self, configuration: int, items: int) -> FloatArray:
        """Measure a configuration on its next `items` items, fewer where no more are left.

        Returns:
            (up to items,) their scores.
        """
        known = int(self.items[configuration])
        target = min(known + max(items, 0), self.space.items)
        self.seconds += self._price_s(configuration, items)
        rows = self.space.rows[configuration]
        if target > known and (self._row_items[rows] == 0).any():
            self._tables = None
        self._row_items[rows] = np.maximum(self._row_items[rows], target)
        self.items[configuration] = target
        return np.array(self._arena.scores[configuration, self._order[known:target]])

    def price_s(self, configuration: int, items: int) -> float:
        """Seconds that `measure` would charge; NaN where one of its prefixes was not run yet."""
        known = self.known_rows[self.space.rows[configuration]].all()
        return self._price_s(configuration, items) if known else np.nan

    def _price_s(self, configuration: int, items: int) -> float:
        known = int(self.items[configuration])
        target = min(known + max(items, 0), self.space.items)
        rows = self.space.rows[configuration]
        have = np.maximum(self._row_items[rows], known) if self._reuse else np.full(len(rows), known)
        return float((np.maximum(target - have, 0) * self._arena.item_s[rows]).sum())

    def scores(self, configuration: int) -> FloatArray:
        """(items[configuration],) all that were measured of it."""
        return np.array(self._arena.scores[configuration, self._order[: self.items[configuration]]])

    @property
    def known_rows(self) -> BoolArray:
        """(r,) prefixes that were run on an item at least."""
        return np.asarray(self._row_items > 0)

    @property
    def service_s(self) -> FloatArray:
        """(r,) of one request, NaN of prefixes that were not run."""
        return np.where(self.known_rows, self._arena.service_s, np.nan)

    @property
    def item_s(self) -> FloatArray:
        """(r,) to profile one item, NaN of prefixes that were not run."""
        return np.where(self.known_rows, self._arena.item_s, np.nan)

    @property
    def output_bytes(self) -> FloatArray:
        """(r,) of one request, NaN of prefixes that were not run."""
        return np.where(self.known_rows, self._arena.output_bytes, np.nan)

    @property
    def latency_s(self) -> FloatArray:
        """(k, p) of all plans; NaN where a prefix was not run, infinite where memory does not suffice."""
        return self._known_tables()[0]

    @property
    def cost_usd_per_h(self) -> FloatArray:
        """(k, p) of all plans; NaN where a prefix was not run, infinite where memory does not suffice."""
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
    """A method to find one query's plan."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def reuse_prefixes(self) -> bool:
        """Whether its meter charges shared prefixes once."""

    def search(self, case: Case, meter: Meter, rng: np.random.Generator) -> Answer | None:
        """The plan for a case; None: there is none. Deterministic given `rng`."""


@dataclass(frozen=True)
class Verdict:
    """What an answer is worth, by the true means of all items."""

    feasible: bool
    """Whether the case has a plan."""
    answered: bool
    found: bool
    """Whether the answer keeps all SLOs."""
    cost_over_optimum: float
    """NaN where none was found."""
    touched: int
    items: int
    """Scores seen."""
    seconds: float
    accurate: bool = True
    """Whether the answer, if there is one, keeps the accuracy SLO."""

    @property
    def right(self) -> bool:
        """A feasible plan where there is one, None where there is none."""
        return self.found if self.feasible else not self.answered


def judge(case: Case, answer: Answer | None, arena: Arena, meter: Meter) -> Verdict:
    """Hold an answer against the truth."""
    feasible = case.feasible(arena)
    found = answer is not None and bool(feasible[answer.configuration, answer.placement])
    ratio = np.nan
    if answer is not None and found:
        cost = arena.cost_usd_per_h[answer.configuration, answer.placement]
        ratio = float(cost / case.optimum_usd_per_h(arena))
    return Verdict(
        feasible=bool(feasible.any()),
        answered=answer is not None,
        found=found,
        cost_over_optimum=ratio,
        touched=meter.touched,
        items=int(meter.items.sum()),
        seconds=meter.seconds,
        accurate=answer is None or bool(case.accurate(arena.means)[answer.configuration]),
    )
