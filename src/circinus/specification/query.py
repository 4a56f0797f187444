"""Queries: the use of a pipeline by one source, with arrivals, SLOs, priority and pinned parts of its plan."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from circinus.specification.arrivals import Arrivals, PeriodicArrivals, PoissonArrivals
from circinus.specification.base_model import Count, Flag, Name, Number, ScalarValue, SpecModel
from circinus.specification.diagnostics import Issue
from circinus.specification.document_validators import validate_pins
from circinus.specification.limits import MAX_PRIORITY, MAX_WEIGHT, MIN_RISK
from circinus.specification.shorthands import KeyedByName
from circinus.specification.slo import Slos
from circinus.specification.units import DURATION, RATE, RequestsPerS


class LatePolicy(StrEnum):
    """Treatment of requests that can hardly meet the latency SLO any more."""

    ANSWER = "answer"
    DROP = "drop"


class PinnedKnob(SpecModel):
    """Knob with a fixed value."""

    name: Name
    value: ScalarValue
    """Value among the knob's choices."""


class PinnedOperator(SpecModel):
    """Operator with a fixed pool or fixed knob values; the planner chooses the remainder."""

    name: Name
    pool: Name | None = None
    """Pool of the operator."""
    knobs: Annotated[tuple[PinnedKnob, ...], KeyedByName(main="value")] = ()
    """Values of knobs; in YAML a mapping from the knob's name to its value, or a list."""

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        return validate_pins(content, "knobs", "value")


class Query(SpecModel):
    """Use of a pipeline by one source.

    Example:
        >>> import circinus as c
        >>> query = c.Query(name="calls", pipeline="meeting", source="phone", rate="5/s", slos="latency p95 <= 800ms")
        >>> query.rate_per_s, query.slos.latency.limit_s
        (5.0, 0.8)
    """

    WRITTEN_ELSEWHERE = frozenset({"name"})

    name: Name
    pipeline: Name
    """Pipeline of the query."""
    source: Name
    """Site that sends the inputs and receives the outputs."""
    rate_per_s: RequestsPerS = Field(alias="rate")
    """Mean number of requests per second."""
    arrivals: Arrivals = PoissonArrivals()
    """Arrival process: `poisson`, `periodic`, `bursty` or `recorded`, or a mapping with `kind` and its fields."""
    slos: Slos = Field(default_factory=Slos)
    """SLOs; a plan must meet all of them."""
    late: LatePolicy = LatePolicy.ANSWER
    """Treatment of requests that can hardly meet the latency SLO any more: `answer` or `drop`."""
    weight: Number = Field(default=1.0, gt=0, le=MAX_WEIGHT)
    """Value of serving this query, relative to other queries of equal priority."""
    risk: Number = Field(default=0.05, ge=MIN_RISK, lt=1)
    """Accepted probability of violation: a plan is feasible if it meets each SLO with probability `1 - risk`."""
    priority: Count = Field(default=0, ge=-MAX_PRIORITY, le=MAX_PRIORITY)
    """Priority class. Queries of a higher priority are served first, regardless of weights."""
    tenant: Name | None = None
    """Owner of the query: one of the infrastructure's tenants."""
    split: Flag = True
    """Whether the requests may be divided among several plans, for instance a large model for some of them."""
    accuracy_of: Literal["mean", "each"] = "mean"
    """What the accuracy SLO holds for if requests are divided: the mean over all requests, or each plan."""
    pin: Annotated[tuple[PinnedOperator, ...], KeyedByName(main="pool")] | None = None
    """Fixed parts of the plan by operator; in YAML a mapping from the operator's name to its pool, or to `pool` and
    `knobs`. A query with a pin, even an empty one, must be served."""

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        yield from validate_pins(content, "pin", "pool")
        if isinstance(content, Query) and content.late is LatePolicy.DROP and content.slos.latency is None:
            yield Issue(("late",), "drop", "answer, or a latency SLO beyond which requests are late")
        if isinstance(content, Query) and isinstance(content.arrivals, PeriodicArrivals):
            jitter_s, max_jitter_s = content.arrivals.jitter_s, 0.5 / content.rate_per_s
            if jitter_s > max_jitter_s:
                expected = f"at most {DURATION.format(max_jitter_s)}, half of the time between two arrivals"
                rate = RATE.format(content.rate_per_s)
                yield Issue(("arrivals", "jitter"), DURATION.format(jitter_s), f"{expected} at {rate}")

    def pinned_pool(self, operator: str) -> str | None:
        """Return the pool that an operator is pinned to, or None for any pool."""
        return next((pinned.pool for pinned in self.pin or () if pinned.name == operator), None)

    @property
    def pinned_knobs(self) -> tuple[tuple[str, str, ScalarValue], ...]:
        """(operator, knob, value) of all pinned knobs."""
        return tuple((pinned.name, knob.name, knob.value) for pinned in self.pin or () for knob in pinned.knobs)
