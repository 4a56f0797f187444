"""Content of a report: a plan, and what is stored or was computed about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from circinus.control.state_store import Event
from circinus.matching import Assignment, Matching, PlanFile
from circinus.profiling import PipelineProfile, ServiceTimeObservation
from circinus.simulation.report import SimulationReport
from circinus.specification import Query, Specification


@dataclass(frozen=True)
class WhatIf:
    """Changes that were simulated or planned for the report."""

    loads: tuple[SimulationReport, ...] = ()
    """Simulations of the plan, by ascending load."""
    omitted: tuple[str, ...] = ()
    """What the time limit left no time for."""
    reason: str = ""
    """Reason why nothing was computed."""


@dataclass(frozen=True)
class ReportContent:
    """Everything that a report shows."""

    plan_set: PlanFile
    """Plan; its rejections have relaxations and advice if these were searched for."""
    specification: Specification
    source: str = ""
    """Name of the plan file, if there is one."""
    profiles: Mapping[str, PipelineProfile] = field(default_factory=dict)
    """Pipeline -> stored profile with verdicts."""
    unprofiled: Mapping[str, str] = field(default_factory=dict)
    """Pipeline -> reason why it has no profile."""
    observations: Sequence[ServiceTimeObservation] = ()
    """Service times observed under traffic."""
    load: Mapping[str, Any] | None = None
    """Document of a load test, as `circinus load --json` prints it."""
    events: Sequence[Event] = ()
    """Events of the controller that ran last, oldest first."""
    what_if: WhatIf | None = None

    @property
    def matching(self) -> Matching:
        """Matching of the plan."""
        return self.plan_set.matching

    @cached_property
    def queries(self) -> Mapping[str, Query]:
        """Query of each decision by name, served ones first."""
        specified = {query.name: query for query in self.specification.queries}
        names = [*self.assignments, *(rejection.query for rejection in self.matching.rejections)]
        return {name: specified[name] for name in names}

    @cached_property
    def assignments(self) -> Mapping[str, Assignment]:
        """Assignment of each served query."""
        return {assignment.query: assignment for assignment in self.matching.assignments}

    def metric(self, query: str) -> str:
        """Return the name of the metric whose mean is the accuracy of a query."""
        return self.specification.pipelines[self.queries[query].pipeline].metric.name
