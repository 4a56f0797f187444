"""A plan file together with what it was made from, as that is now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from circinus.matching import Matching, PlanFile
    from circinus.profiling import MeasurementBackend, PipelineProfile
    from circinus.serving import DesiredState, Mode
    from circinus.specification import Specification


@dataclass(frozen=True)
class PreviousPlan:
    """What was matched before, as far as it is known."""

    file: Path | None = None
    matching: Matching | None = None
    """None: all is planned afresh."""
    warning: str = ""
    """Why a plan file that happened to be there was not used."""


def previous_plan(named: Path | None, output: Path, *, fresh: bool) -> PreviousPlan:
    """The plan file that was named, else the one that is about to be written over, else none.

    Raises:
        PlanningError: the plan file that was named cannot be read. One that merely is there is then not used.
    """
    from circinus.cli.options import require_file
    from circinus.errors import PlanningError
    from circinus.matching import load_plan_set

    if named is not None:
        require_file(named, "the plan file of what runs")
        return PreviousPlan(named, load_plan_set(named).matching)
    if fresh or not output.exists():
        return PreviousPlan()
    try:
        return PreviousPlan(output, load_plan_set(output).matching)
    except PlanningError as error:
        return PreviousPlan(warning=f"{error}. Planned as if nothing ran; name another plan with --from, or none with "
                            "--fresh")  # fmt: skip


@dataclass(frozen=True)
class LoadedPlan:
    """A plan that is not stale."""

    plan_set: PlanFile
    specification: Specification
    store: Path
    """The profile store that it was made from."""

    def profiles(
        self, more: Collection[str] = (), sources: Mapping[str, MeasurementBackend] | None = None
    ) -> Mapping[str, PipelineProfile]:
        """What was measured of the pipelines of all that are served.

        With the corrections that the plan was made with, whatever was observed since.

        Args:
            more: further pipelines.
            sources: pipeline -> where it was measured, if not here.
        """
        from circinus.api.planning_service import apply_corrections, load_profiles

        served = {assignment.chosen.plan.pipeline for assignment in self.plan_set.matching.assignments}
        known = load_profiles(
            self.specification, sorted({*more, *served}), self.store, seed=self.plan_set.seed, sources=sources
        )
        return apply_corrections(self.plan_set.corrections, known, self.specification)

    def desired_state(self, mode: Mode) -> DesiredState:
        """What `apply` brings about."""
        from circinus.serving.desired_state import build_desired_state

        versions = self.plan_set.code_versions
        return build_desired_state(self.plan_set.matching, self.specification, mode, self.store.resolve(), versions)


def load_plan(plan_file: Path, *, needs_store: bool = False, one_more: str | None = None) -> LoadedPlan:
    """Read a plan file and the specification that it names.

    Args:
        plan_file: as `circinus plan` writes it.
        needs_store: whether the profile store must still be there.
        one_more: a query about to be let in beside the plan; see `check_fresh`.

    Raises:
        MissingFileError: a plan file was named that is not there.
        PlanningError: there is none, or it cannot be read.
        SpecError: the specification's files are gone or faulty.
        StalePlanError: the specification, code or (if needed) store is not what the plan was made from.
    """
    from circinus.cli.options import DEFAULT_PLAN, require_file
    from circinus.matching import load_plan_set, require_fresh
    from circinus.specification.loader import load_specification

    if plan_file != DEFAULT_PLAN:
        require_file(plan_file, "a plan file; write one with `circinus plan`")
    plan_set = load_plan_set(plan_file)
    specification = load_specification([plan_file.parent / file for file in plan_set.files])
    store = plan_file.parent / plan_set.profile_store
    require_fresh(plan_set, specification, profile_store=store if needs_store else None, new_query=one_more)
    return LoadedPlan(plan_set, specification, store)
