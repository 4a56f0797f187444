"""A contest: queries and an infrastructure that all planners get, and the truth that they are judged by.

The truth is the complete measurement of every configuration on every item. Planners never see it: they buy measurements
(`Market`), and each bought second counts as profiling.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from circinus.arrays import IntArray
from circinus.matching import Matching
from circinus.profiling import ConfigurationProfile, MeasurementTrace, PipelineProfile
from circinus.specification import Configuration, Infrastructure, Network, Specification
from circinus.statistics.interval import Interval


@dataclass(frozen=True, eq=False)
class Contest:
    """Queries and infrastructure that planners get, and the truth that judges them."""

    name: str
    specification: Specification
    truth: Mapping[str, PipelineProfile]
    """Pipeline -> profile of all configurations on all items."""
    traces: Mapping[str, MeasurementTrace]
    """Pipeline -> the measurements behind the truth."""
    moments: tuple[Infrastructure, ...] = ()
    """The true infrastructure at moments among which requests are divided; empty: as planners see it."""

    @property
    def network(self) -> Network:
        """Network of the infrastructure."""
        return Network(self.specification.required_infrastructure)

    def within(self, tiers: Collection[str]) -> Contest:
        """Return the contest with the pools of some tiers only."""
        whole = self.specification.required_infrastructure
        update = {"pools": tuple(pool for pool in whole.pools if pool.tier in tiers)}
        specification = replace(self.specification, infrastructure=whole.model_copy(update=update))
        moments = tuple(moment.model_copy(update=update) for moment in self.moments)
        return replace(self, specification=specification, moments=moments)

    def of(self, queries: Collection[str]) -> Contest:
        """Return the contest with some of its queries, in the same order."""
        kept = tuple(query for query in self.specification.queries if query.name in queries)
        return replace(self, specification=replace(self.specification, queries=kept))


@dataclass(eq=False)
class Market:
    """Measurements that a planner buys: configurations on the items that it names, at the seconds they took."""

    contest: Contest
    shares_prefixes: bool = False
    """Whether operators under the same knob values of all ancestors run once for an item."""
    seconds: float = 0.0
    """Seconds of all measurements so far."""
    measured: dict[str, set[Configuration]] = field(default_factory=dict)
    """Pipeline -> the configurations that were measured."""
    _ran: dict[tuple[str, int], set[int]] = field(default_factory=dict)

    def items(self, pipeline: str) -> int:
        """Return the number of recorded items."""
        return self.contest.truth[pipeline].population

    def configurations(self, pipeline: str) -> Sequence[Configuration]:
        """Return all configurations, which are known without measurements."""
        return self.contest.traces[pipeline].configurations

    def measure(self, pipeline: str, configuration: Configuration, items: IntArray) -> ConfigurationProfile:
        """Return a configuration on (n,) different items; what was bought before is charged again without sharing."""
        truth, trace = self.contest.truth[pipeline], self.contest.traces[pipeline]
        for row in trace.rows[trace.configurations.index(configuration)].tolist():
            ran = self._ran.setdefault((pipeline, row), set()) if self.shares_prefixes else set[int]()
            fresh = [item for item in items.tolist() if item not in ran]
            self.seconds += float(trace.service_s[row, fresh].sum())
            ran.update(fresh)
        self.measured.setdefault(pipeline, set()).add(configuration)
        complete = next(c for c in truth.configurations if c.configuration == configuration)
        return on_items(complete, items)

    def complete(self, pipeline: str) -> PipelineProfile:
        """Return every configuration on every item."""
        everything = np.arange(self.items(pipeline))
        return self.profile(pipeline, [self.measure(pipeline, c, everything) for c in self.configurations(pipeline)])

    def profile(self, pipeline: str, measured: Sequence[ConfigurationProfile]) -> PipelineProfile:
        """Return the profile of measured configurations."""
        return replace(self.contest.truth[pipeline], configurations=tuple(measured))

    def planned(self, matching: Matching, first_plan_s: float, planning_s: float) -> Planned:
        """Return plans with what they took."""
        touched = sum(map(len, self.measured.values()))
        return Planned(matching, self.seconds, first_plan_s, planning_s, touched)


def on_items(complete: ConfigurationProfile, items: IntArray) -> ConfigurationProfile:
    """Return a complete profile on some items; its accuracy is their mean score, without a margin."""
    where = np.argsort(complete.items)[np.searchsorted(np.sort(complete.items), items)]
    scores = complete.scores[where]
    operators = {name: operator.of_items(where) for name, operator in complete.operators.items()}
    return replace(
        complete,
        items=items,
        scores=scores,
        accuracy=Interval.exact(float(scores.mean())),
        input_bytes=complete.input_bytes[where],
        operators=operators,
    )


@dataclass(frozen=True)
class Planned:
    """Plans of one planner, with what they took."""

    matching: Matching
    profiled_s: float
    """Seconds of measurements."""
    first_plan_s: float
    """Wall time of planning until every served query had a plan."""
    planning_s: float
    """Wall time of planning, without measurements."""
    touched: int
    """Number of measured configurations of all pipelines."""


class Planner(Protocol):
    """A way to choose plans for all queries."""

    @property
    def name(self) -> str:
        """Name in tables."""

    @property
    def tiers(self) -> tuple[str, ...] | None:
        """The tiers that it was made for; None: all."""

    @property
    def description(self) -> str:
        """Method, paper and simplifications; Markdown."""

    def plan(self, contest: Contest, seed: int) -> Planned:
        """Buy measurements and plan all queries. Deterministic given the seed, but for times."""
