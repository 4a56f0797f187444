"""What a search for one query's plan is tried on: recorded scores and seconds of all configurations, and three tiers.

Placements and what they take are computed from what operators take on the reference hardware. Only service and
transfers count here, no queueing: searches are compared, not estimates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations_with_replacement

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.specification import Configuration, Pipeline

REQUESTS_PER_S = 1.0
"""Of the query; costs are proportional to it."""


@dataclass(frozen=True)
class Tier:
    """A level of hardware, and its link to the next one."""

    name: str
    speed: float
    """Reference seconds that are done in a second."""
    memory_mib: float
    """That one operator may take."""
    usd_per_busy_h: float
    uplink_bytes_per_s: float = np.inf
    """To the next tier."""


TIERS = (
    Tier("device", 0.1, 1_000.0, 0.05, 0.08e9),
    Tier("edge", 0.22, 2_000.0, 0.22, 0.05e9),
    Tier("cloud", 1.0, 3_000.0, 2.0),
)
"""Speeds, memory and links are those that the traces were published for. Prices are ours, of the size of a small
board's energy and wear, of a shared edge GPU, and of a rented one on demand: USD 0.5, 1 and 2 for an hour's work of
the reference hardware. So what is faster is dearer for the same work, and no tier is best in everything."""


@dataclass(frozen=True, eq=False)
class PlanSpace:
    """What is known of the plans of one query before anything is measured: k configurations of a chain of o operators,
    p placements."""

    name: str
    pipeline: Pipeline
    configurations: tuple[Configuration, ...]
    """(k,)"""
    rows: IntArray
    """(k, o) number of the prefix that ends with an operator; configurations that share a prefix share it."""
    memory_mib: FloatArray
    """(k, o)"""
    input_bytes: float
    """Of one request, at the device."""
    strata: tuple[Mapping[str, str], ...]
    """(N,) conditions of the items, in the common order."""
    tiers: tuple[Tier, ...] = TIERS

    @property
    def items(self) -> int:
        """N, that a mean is over."""
        return len(self.strata)

    @property
    def sign(self) -> float:
        """1 where greater scores are better, else -1."""
        return 1.0 if self.pipeline.metric.direction == "maximize" else -1.0

    @cached_property
    def placements(self) -> IntArray:
        """(p, o) number of the tier of each operator: nothing comes back down a link before the end."""
        found = combinations_with_replacement(range(len(self.tiers)), self.rows.shape[1])
        return np.array(list(found), dtype=np.int64)

    @cached_property
    def fits(self) -> BoolArray:
        """(k, p) whether every operator has the memory that it needs."""
        there = np.array([tier.memory_mib for tier in self.tiers])[self.placements]
        return np.asarray((self.memory_mib[:, None, :] <= there[None, :, :]).all(axis=2))

    def latency_s(self, service_s: FloatArray, output_bytes: FloatArray) -> FloatArray:
        """Service over the tiers' speeds, and what crosses links; the answer's way back is taken for nothing.

        Args:
            service_s: (k, o) of one request on the reference hardware.
            output_bytes: (k, o) of one request.

        Returns:
            (k, p) seconds; infinite where memory does not suffice, NaN where something is NaN.
        """
        speed = np.array([tier.speed for tier in self.tiers])
        served_s = service_s @ (1.0 / speed)[self.placements].T
        # Seconds for a byte from the tier of an operator's input to its own.
        reach = np.concatenate([[0.0], np.cumsum([1.0 / tier.uplink_bytes_per_s for tier in self.tiers[:-1]])])
        at = reach[self.placements]
        crossed = np.diff(at, axis=1, prepend=0.0)
        first = np.full((len(self.rows), 1), self.input_bytes)
        sent = np.concatenate([first, output_bytes[:, :-1]], axis=1)
        return np.where(self.fits, served_s + sent @ crossed.T, np.inf)

    def cost_usd_per_h(self, service_s: FloatArray) -> FloatArray:
        """Busy seconds at the tiers' prices.

        Args:
            service_s: (k, o) of one request on the reference hardware.

        Returns:
            (k, p) US dollars per hour; infinite where memory does not suffice, NaN where something is NaN.
        """
        price = np.array([tier.usd_per_busy_h / tier.speed for tier in self.tiers])
        return np.where(self.fits, REQUESTS_PER_S * (service_s @ price[self.placements].T), np.inf)


@dataclass(frozen=True, eq=False)
class Arena:
    """A query's space and the truth about it: r prefixes, N items."""

    space: PlanSpace
    service_s: FloatArray
    """(r,) of one request on the reference hardware."""
    item_s: FloatArray
    """(r,) to profile one item, which may be several requests."""
    output_bytes: FloatArray
    """(r,) of one request."""
    scores: FloatArray
    """(k, N)"""
    population: int
    """Items that `drawn` takes."""
    published: FloatArray | None = None
    """(k,) means that a drawn population has, where single scores are simulated."""

    def drawn(self, rng: np.random.Generator) -> Arena:
        """One data set of `population` items, in the uniformly random order that all methods are shown them in."""
        chosen = rng.permutation(self.scores.shape[1])[: self.population]
        scores = self.scores[:, chosen]
        return replace(
            self,
            space=replace(self.space, strata=tuple(self.space.strata[item] for item in chosen)),
            scores=scores if self.published is None else with_means(scores, self.published),
        )

    @cached_property
    def means(self) -> FloatArray:
        """(k,) the truth."""
        return np.asarray(self.scores.mean(axis=1))

    @cached_property
    def latency_s(self) -> FloatArray:
        """(k, p)"""
        rows = self.space.rows
        return self.space.latency_s(self.service_s[rows], self.output_bytes[rows])

    @cached_property
    def cost_usd_per_h(self) -> FloatArray:
        """(k, p)"""
        return self.space.cost_usd_per_h(self.service_s[self.space.rows])


def with_means(scores: FloatArray, means: FloatArray) -> FloatArray:
    """Scores in [0, 1], moved so that they have given means and keep their order.

    To lower a mean all are multiplied; to raise it their distances from 1 are. So all stay within [0, 1], items that
    were hard stay hard, and the spread shrinks with the distance that is left.

    Args:
        scores: (k, N)
        means: (k,) in [0, 1].
    """
    found = scores.mean(axis=1)
    lower = scores * (means / np.where(found > 0, found, 1.0))[:, None]
    raised = 1.0 - (1.0 - scores) * ((1.0 - means) / np.where(found < 1, 1.0 - found, 1.0))[:, None]
    return np.where((means <= found)[:, None], lower, raised)
