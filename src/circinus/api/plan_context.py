"""A plan together with the specification and the profile store that it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from circinus.matching import PlanFile
    from circinus.profiling import MeasurementBackend, PipelineProfile
    from circinus.serving import DesiredState, Mode
    from circinus.specification import Specification

DEFAULT_PLAN = Path("plan.json")


@dataclass(frozen=True)
class LoadedPlan:
    """A fresh plan with its specification and profile store."""

    plan_set: PlanFile
    specification: Specification
    store: Path

    def profiles(
        self, more: Collection[str] = (), sources: Mapping[str, MeasurementBackend] | None = None
    ) -> Mapping[str, PipelineProfile]:
        """Return the profiles of all served pipelines, with the corrections that the plan was made with.

        Args:
            more: further pipelines.
            sources: pipeline -> measurement backend, where it is not this machine.
        """
        from circinus.api.planning_service import apply_corrections, load_profiles

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

    def require_served_query(self, location: str = "") -> None:
        """Raise PlanningError if the plan serves no query."""
        from circinus.errors import PlanningError

        if not self.plan_set.matching.assignments:
            raise PlanningError(
                "the plan serves no query",
                code="plan.no_served_query",
                location=location,
                hint="Run `circinus explain` to see why each query was rejected.",
            )


def require_file(path: Path, expected: str) -> None:
    """Raise MissingFileError unless `path` exists.

    Args:
        path: file that was named.
        expected: description of the file, for the message.
    """
    from circinus.errors import MissingFileError

    if not path.exists():
        raise MissingFileError(f"no such file, expected {expected}", code="file.missing", location=str(path))


def load_plan(plan_file: Path, *, needs_store: bool = False, one_more: str | None = None) -> LoadedPlan:
    """Read a plan file and the specification that it names.

    Args:
        plan_file: plan file, as `circinus plan` writes it.
        needs_store: whether the profile store must exist.
        one_more: query that is about to be admitted; see `require_fresh`.

    Raises:
        MissingFileError: the plan file does not exist.
        PlanningError: the plan file cannot be read.
        SpecError: files of the specification are missing or faulty.
        StalePlanError: the specification, code or (if needed) store differs from what the plan was made from.
    """
    from circinus.matching import load_plan_set, require_fresh
    from circinus.specification.loader import load_specification

    if plan_file != DEFAULT_PLAN:
        require_file(plan_file, "a plan file; write one with `circinus plan`")
    plan_set = load_plan_set(plan_file)
    specification = load_specification([plan_file.parent / file for file in plan_set.files])
    store = plan_file.parent / plan_set.profile_store
    require_fresh(plan_set, specification, profile_store=store if needs_store else None, new_query=one_more)
    return LoadedPlan(plan_set, specification, store)
