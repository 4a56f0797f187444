"""Test problems for searches of one query's plan: recorded scores and seconds of all configurations, and three tiers.

Latency and cost of placements are computed from service times on the reference hardware. Queueing is left out, because
searches are compared here, not estimates.
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
"""Request rate of the query; costs are proportional to it."""


@dataclass(frozen=True)
class Tier:
    """Level of hardware with its link to the next tier."""

    name: str
    speed: float
    """Seconds of work on the reference hardware done per second."""
    memory_mib: float
    """Memory limit of one operator."""
    usd_per_busy_h: float
    uplink_bytes_per_s: float = np.inf
    """Bandwidth to the next tier."""


TIERS = (
    Tier("device", 0.1, 1_000.0, 0.05, 0.08e9),
    Tier("edge", 0.22, 2_000.0, 0.22, 0.05e9),
    Tier("cloud", 1.0, 3_000.0, 2.0),
)
"""Tiers with the speeds, memory and links of the published traces. Prices are assumptions: energy and wear of a small
board, a shared edge GPU and a GPU rented on demand: USD 0.5, 1 and 2 for an hour of work on the
reference hardware. So faster tiers cost more for the same work, and no tier is best in everything."""


@dataclass(frozen=True, eq=False)
class PlanSpace:
    """Plans of one query before any measurement: k configurations of a chain of o operators, p placements."""

    name: str
    pipeline: Pipeline
    configurations: tuple[Configuration, ...]
    """(k,)"""
    rows: IntArray
    """(k, o) number of the prefix that ends with an operator, equal for configurations that share the prefix."""
    memory_mib: FloatArray
    """(k, o)"""
    input_bytes: float
    """Input size of one request, at the device."""
    strata: tuple[Mapping[str, str], ...]
    """(N,) strata of the items, in the common order."""
    tiers: tuple[Tier, ...] = TIERS

    @property
    def items(self) -> int:
        """N, the number of items of a mean score."""
        return len(self.strata)

    @property
    def sign(self) -> float:
        """1 where greater scores are better, else -1."""
        return 1.0 if self.pipeline.metric.direction == "maximize" else -1.0

    @cached_property
    def placements(self) -> IntArray:
        """(p, o) number of the tier of each operator; data never return to a lower tier before the end."""
        tiers = combinations_with_replacement(range(len(self.tiers)), self.rows.shape[1])
        return np.array(list(tiers), dtype=np.int64)

    @cached_property
    def fits(self) -> BoolArray:
        """(k, p) whether every operator has enough memory."""
        limit_mib = np.array([tier.memory_mib for tier in self.tiers])[self.placements]
        return np.asarray((self.memory_mib[:, None, :] <= limit_mib[None, :, :]).all(axis=2))

    def latency_s(self, service_s: FloatArray, output_bytes: FloatArray) -> FloatArray:
        """Return latencies: service at the tiers' speeds, and transfers over links except the way back.

        Args:
            service_s: (k, o) service times of one request on the reference hardware.
            output_bytes: (k, o) output sizes of one request.

        Returns:
            (k, p) seconds; infinite where memory does not suffice, NaN where an argument is NaN.
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
        """Return costs: busy seconds at the tiers' prices.

        Args:
            service_s: (k, o) service times of one request on the reference hardware.

        Returns:
            (k, p) US dollars per hour; infinite where memory does not suffice, NaN where an argument is NaN.
        """
        price = np.array([tier.usd_per_busy_h / tier.speed for tier in self.tiers])
        return np.where(self.fits, REQUESTS_PER_S * (service_s @ price[self.placements].T), np.inf)


@dataclass(frozen=True, eq=False)
class Arena:
    """Plan space of a query and its ground truth: r prefixes, N items."""

    space: PlanSpace
    service_s: FloatArray
    """(r,) service times of one request on the reference hardware."""
    item_s: FloatArray
    """(r,) seconds to profile one item, which may be several requests."""
    output_bytes: FloatArray
    """(r,) output sizes of one request."""
    scores: FloatArray
    """(k, N)"""
    population: int
    """Number of items that `drawn` draws."""
    published: FloatArray | None = None
    """(k,) means of a drawn population, where single scores are simulated."""

    def drawn(self, rng: np.random.Generator) -> Arena:
        """Draw a data set of `population` items, in the uniformly random order that all methods see."""
        chosen = rng.permutation(self.scores.shape[1])[: self.population]
        scores = self.scores[:, chosen]
        return replace(
            self,
            space=replace(self.space, strata=tuple(self.space.strata[item] for item in chosen)),
            scores=scores if self.published is None else with_means(scores, self.published),
        )

    @cached_property
    def means(self) -> FloatArray:
        """(k,) true mean scores."""
        return np.asarray(self.scores.mean(axis=1))

    @cached_property
    def latency_s(self) -> FloatArray:
        """(k, p) true latencies."""
        rows = self.space.rows
        return self.space.latency_s(self.service_s[rows], self.output_bytes[rows])

    @cached_property
    def cost_usd_per_h(self) -> FloatArray:
        """(k, p) true costs."""
        return self.space.cost_usd_per_h(self.service_s[self.space.rows])


def with_means(scores: FloatArray, means: FloatArray) -> FloatArray:
    """Shift scores in [0, 1] so that they have given means and keep their order.

    To lower a mean, all scores are multiplied by a factor; to raise it, their distances from 1 are. So all scores stay
    within [0, 1], hard items stay hard, and the spread shrinks with the remaining distance.

    Args:
        scores: (k, N) scores.
        means: (k,) means in [0, 1].
    """
    current = scores.mean(axis=1)
    lower = scores * (means / np.where(current > 0, current, 1.0))[:, None]
    raised = 1.0 - (1.0 - scores) * ((1.0 - means) / np.where(current < 1, 1.0 - current, 1.0))[:, None]
    return np.where((means <= current)[:, None], lower, raised)
