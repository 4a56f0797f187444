"""Queries: one running use of a pipeline, with its arrival rate, its objectives, and what it is beside the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from circinus.specification.arrivals import Arrivals, PeriodicArrivals, PoissonArrivals
from circinus.specification.base_model import Count, Name, Number, ScalarValue, SpecModel
from circinus.specification.diagnostics import Issue
from circinus.specification.document_validators import validate_pins
from circinus.specification.shorthands import KeyedByName
from circinus.specification.slo import Slos
from circinus.specification.units import DURATION, RATE, RequestsPerS


class PinnedKnob(SpecModel):
    """A knob whose value is given."""

    name: Name
    value: ScalarValue
    """One of the knob's choices."""


class PinnedOperator(SpecModel):
    """An operator about which something is given; the planner chooses the rest."""

    name: Name
    pool: Name | None = None
    """The pool it runs in."""
    knobs: Annotated[tuple[PinnedKnob, ...], KeyedByName(main="value")] = ()
    """Values of its knobs; in YAML a mapping from the knob's name to its value, or a list."""

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        return validate_pins(content, "knobs", "value")


class Query(SpecModel):
    """One running use of a pipeline."""

    WRITTEN_ELSEWHERE = frozenset({"name"})

    name: Name
    pipeline: Name
    """The pipeline it uses."""
    source: Name
    """The site at which the inputs arise and to which the results go back."""
    rate_per_s: RequestsPerS = Field(alias="rate", gt=0)
    """Mean number of requests per second."""
    arrivals: Arrivals = PoissonArrivals()
    """How they arrive: `poisson`, `periodic`, `bursty` or `recorded`, or a mapping with `kind` and its fields."""
    slos: Slos = Field(default_factory=Slos)
    """The objectives; those given must all hold."""
    weight: Number = Field(default=1.0, gt=0)
    """What serving this query counts beside the others of its priority."""
    risk: Number = Field(default=0.05, gt=0, lt=1)
    """A plan counts as feasible when each objective holds with probability at least `1 - risk`."""
    priority: Count = 0
    """Queries of higher priority are served first: no weight of lower ones makes up for one of them."""
    tenant: Name | None = None
    """Whose query it is; one of the infrastructure's tenants."""
    pin: Annotated[tuple[PinnedOperator, ...], KeyedByName(main="pool")] | None = None
    """What is given of its plan, operator by operator; in YAML a mapping from the operator's name to its pool, or to
    `pool` and `knobs`. A query with a pin, be it an empty one, must be served."""

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        yield from validate_pins(content, "pin", "pool")
        if isinstance(content, Query) and isinstance(content.arrivals, PeriodicArrivals):
            jitter_s, most_s = content.arrivals.jitter_s, 0.5 / content.rate_per_s
            if jitter_s > most_s:
                expected = f"at most {DURATION.format(most_s)}, half of the time between two arrivals"
                rate = RATE.format(content.rate_per_s)
                yield Issue(("arrivals", "jitter"), DURATION.format(jitter_s), f"{expected} at {rate}")

    def pinned_pool(self, operator: str) -> str | None:
        """The pool that an operator is pinned to; None: any."""
        return next((pinned.pool for pinned in self.pin or () if pinned.name == operator), None)

    @property
    def pinned_knobs(self) -> tuple[tuple[str, str, ScalarValue], ...]:
        """(operator, knob, value) of all knobs whose value is given."""
        return tuple((pinned.name, knob.name, knob.value) for pinned in self.pin or () for knob in pinned.knobs)
