"""Queries: one running use of a pipeline, with its arrival rate and objectives."""

from __future__ import annotations

from pydantic import Field

from circinus.spec.model import Name, Number, SpecModel
from circinus.spec.slo import Slos
from circinus.spec.units import RequestsPerS


class Query(SpecModel):
    """One running use of a pipeline."""

    WRITTEN_ELSEWHERE = frozenset({"name"})

    name: Name
    pipeline: Name
    """The pipeline it uses."""
    source: Name
    """The site at which the inputs arise and to which the results go back."""
    rate_per_s: RequestsPerS = Field(alias="rate", gt=0)
    """Mean number of requests per second; arrivals are taken as Poisson."""
    slos: Slos = Field(default_factory=Slos)
    """The objectives; those given must all hold."""
    weight: Number = Field(default=1.0, gt=0)
    """What serving this query counts beside the others."""
    risk: Number = Field(default=0.05, gt=0, lt=1)
    """A plan counts as feasible when each objective holds with probability at least `1 - risk`."""
