"""What planning finds for one query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from circinus.estimation import PlanCandidate
from circinus.planning.column_pool import ColumnPool
from circinus.specification import Query

SloName = Literal["latency", "accuracy", "cost"]


@dataclass(frozen=True)
class NearMiss:
    """The best plan of one configuration that is not promised to meet the objectives."""

    candidate: PlanCandidate
    violations: tuple[SloName, ...]
    reason: str
    """In words: `p95 1.21 s (at most 1.34 s) > 800 ms`."""


@dataclass(frozen=True)
class SingleRelaxation:
    """How far one objective must give way for the query to have a plan, the others kept."""

    slo: SloName
    limit: float
    """The tightest limit that some plan is promised to keep: seconds, score, or US dollars per hour."""
    candidate: PlanCandidate
    """That plan."""


@dataclass(frozen=True)
class BestEffortPlan:
    """The best plan of a query none of whose plans is promised, as far as was measured."""

    candidate: PlanCandidate
    probability: float
    """That it keeps all objectives; a guide, not a promise (`circinus.estimation.slo_probability`)."""
    items: int
    """Items that its configuration was measured on."""
    population: int
    """Items that may be measured."""


@dataclass(frozen=True)
class Frontier:
    """The plans of one query that no other plan of it beats, in two parts.

    `candidates` are what no plan beats in cost and resources together; the matching chooses among them. Those
    `with_margin` take more than some candidate and keep an objective with more margin: ladders are made of both.
    """

    query: Query
    candidates: tuple[PlanCandidate, ...]
    """Those promised to meet every objective, by ascending cost alone."""
    considered: Mapping[str, int]
    """What the search looked at and why it dropped what it dropped -> how often."""
    near_misses: tuple[NearMiss, ...]
    """Best plans of configurations that fail, nearest first."""
    relaxations: tuple[SingleRelaxation, ...]
    """Only for a query without candidates: one for each objective that alone stands in the way."""
    reason: str
    """Why there is no candidate; empty where there is one."""
    high_margin: tuple[PlanCandidate, ...] = ()
    """Promised to meet every objective, too; by ascending cost alone."""
    best_effort: BestEffortPlan | None = None
    """Only for a query without candidates: the plan that most likely meets the objectives, if any may."""
    unlisted: ColumnPool | None = field(default=None, compare=False, repr=False)
    """All plans that none beats, where these are more than `candidates` lists."""
    measured: bool = True
    """Whether enough was measured of the pipeline to promise anything at all."""

    @property
    def plans(self) -> tuple[PlanCandidate, ...]:
        """Both parts."""
        return (*self.candidates, *self.high_margin)
