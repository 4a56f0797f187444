"""A plan file together with what it was made from, as that is now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from circinus.matching import PlanSet
    from circinus.profiling import PipelineProfile, Source
    from circinus.serving import DesiredState, Mode
    from circinus.spec import Specification


@dataclass(frozen=True)
class OpenedPlan:
    """A plan that is not stale."""

    plan_set: PlanSet
    specification: Specification
    store: Path
    """The profile store that it was made from."""

    def profiles(
        self, more: Collection[str] = (), sources: Mapping[str, Source] | None = None
    ) -> Mapping[str, PipelineProfile]:
        """What was measured of the pipelines of all that are served.

        With the corrections that the plan was made with, whatever was observed since.

        Args:
            more: further pipelines.
            sources: pipeline -> where it was measured, if not here.
        """
        from circinus.cli.planned import corrected_by, loaded

        served = {assignment.chosen.plan.pipeline for assignment in self.plan_set.matching.assignments}
        known = loaded(
            self.specification, sorted({*more, *served}), self.store, seed=self.plan_set.seed, sources=sources
        )
        return corrected_by(self.plan_set.corrections, known, self.specification)

    def desired_state(self, mode: Mode) -> DesiredState:
        """What `apply` brings about."""
        from circinus.serving.deploy import desired_state

        versions = self.plan_set.code_versions
        return desired_state(self.plan_set.matching, self.specification, mode, self.store.resolve(), versions)


def open_plan(plan_file: Path, *, needs_store: bool = False, one_more: str | None = None) -> OpenedPlan:
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
    from circinus.cli.options import DEFAULT_PLAN, check_there
    from circinus.matching import check_fresh, load_plan_set
    from circinus.spec.document import load_specification

    if plan_file != DEFAULT_PLAN:
        check_there(plan_file, "a plan file; write one with `circinus plan`")
    plan_set = load_plan_set(plan_file)
    specification = load_specification([plan_file.parent / file for file in plan_set.files])
    store = plan_file.parent / plan_set.profile_store
    check_fresh(plan_set, specification, profile_store=store if needs_store else None, one_more=one_more)
    return OpenedPlan(plan_set, specification, store)
