"""A plan together with the specification and the profile store that it was made from.

Explanations and engines only read a plan, so that planning and simulation are imported where they are used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from circinus.api.defaults import DEFAULT_PLAN
from circinus.errors import MissingFileError, PlanningError
from circinus.matching import load_plan_set, require_fresh
from circinus.specification.loader import load_specification

if TYPE_CHECKING:
    from circinus.matching import PlanFile
    from circinus.profiling import MeasurementBackend, PipelineProfile
    from circinus.serving import DesiredState, Mode
    from circinus.simulation import SimulationReport
    from circinus.simulation.simulate import Progress
    from circinus.specification import Specification

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedPlan:
    """A plan with its specification and profile store."""

    plan_set: PlanFile
    specification: Specification
    store: Path
    path: Path | None = None
    """Plan file that it was read from, if any."""

    def profiles(
        self, more: Collection[str] = (), sources: Mapping[str, MeasurementBackend] | None = None
    ) -> Mapping[str, PipelineProfile]:
        """Return the profiles of all served pipelines, with the corrections that the plan was made with.

        Args:
            more: further pipelines.
            sources: pipeline -> measurement backend, where it is not this machine.
        """
        from circinus.api.planning_service import apply_corrections
        from circinus.api.profiling_service import load_profiles

        served = {assignment.chosen.plan.pipeline for assignment in self.plan_set.matching.assignments}
        profiles = load_profiles(
            self.specification, sorted({*more, *served}), self.store, seed=self.plan_set.seed, sources=sources
        )
        return apply_corrections(self.plan_set.corrections, profiles, self.specification)

    def desired_state(self, mode: Mode) -> DesiredState:
        """Return the engine state that deploys the plan."""
        from circinus.serving.desired_state import build_desired_state

        versions = self.plan_set.code_versions
        return build_desired_state(self.plan_set.matching, self.specification, mode, self.store.resolve(), versions)

    def simulate(
        self,
        *,
        load: float,
        duration_s: float | None,
        warm_up_s: float | None,
        seed: int,
        on_progress: Callable[[Progress], None] | None = None,
        profiles: Mapping[str, PipelineProfile] | None = None,
    ) -> SimulationReport:
        """Simulate the served queries with their measurements; see `circinus.simulation.simulate`.

        Corrected profiles are read unless they are passed.
        """
        from circinus.matching.simulation_check import simulation_inputs
        from circinus.simulation import simulate
        from circinus.specification import Network

        matching, infrastructure = self.plan_set.matching, self.specification.required_infrastructure
        _log.info("simulate at %g times the rates, duration_s=%s", load, duration_s)
        served = {assignment.query for assignment in matching.assignments}
        return simulate(
            simulation_inputs(self.specification, self.profiles() if profiles is None else profiles, matching),
            {sized.deployment: sized.replicas for sized in matching.deployments},
            Network(infrastructure),
            duration_s=duration_s,
            warm_up_s=warm_up_s,
            load=load,
            seed=seed,
            unserved_weight=sum(query.weight for query in self.specification.queries if query.name not in served),
            on_progress=on_progress,
        )

    def require_served_query(self) -> None:
        """Raise PlanningError if the plan serves no query."""
        if not self.plan_set.matching.assignments:
            raise PlanningError(
                "the plan serves no query",
                code="plan.no_served_query",
                location=str(self.path or ""),
                hint="Run `circinus explain` to see why each query was rejected.",
            )


def require_file(path: Path, expected: str) -> None:
    """Raise MissingFileError unless `path` exists.

    Args:
        path: file that was named.
        expected: description of the file, for the message.
    """
    if not path.exists():
        raise MissingFileError(f"no such file, expected {expected}", code="file.missing", location=str(path))


def load_plan(plan_file: Path, *, needs_store: bool = False, check_fresh: bool = True) -> LoadedPlan:
    """Read a plan file and the specification that it names.

    Args:
        plan_file: plan file, as `circinus plan` writes it.
        needs_store: whether the profile store must exist.
        check_fresh: whether the plan must agree with the specification and the code.

    Raises:
        MissingFileError: the plan file does not exist.
        PlanningError: the plan file cannot be read.
        SpecError: files of the specification are missing or faulty.
        StalePlanError: the specification, code or (if needed) store differs from what the plan was made from.
    """
    if plan_file != DEFAULT_PLAN:
        require_file(plan_file, "a plan file; write one with `circinus plan`")
    plan_set = load_plan_set(plan_file)
    specification = load_specification([plan_file.parent / file for file in plan_set.files])
    store = plan_file.parent / plan_set.profile_store
    if check_fresh:
        require_fresh(plan_set, specification, profile_store=store if needs_store else None)
    return LoadedPlan(plan_set, specification, store, plan_file)
