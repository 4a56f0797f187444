"""A plan together with the specification and the profile store that it was made from.

Explanations and engines only read a plan, so that planning and simulation are imported where they are used.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from circinus.api.defaults import DEFAULT_PLAN
from circinus.errors import MissingFileError, PlanningError, SpecError, StalePlanError
from circinus.matching import covered_part, load_plan_set, require_fresh
from circinus.matching.plan_code import foreign_code
from circinus.specification.diagnostics import did_you_mean
from circinus.specification.loader import NO_DOCUMENTS, NO_FILE, NO_YAML_FILES, WHOLE_FILE, load_specification

if TYPE_CHECKING:
    from circinus.matching import PlanFile
    from circinus.profiling import MeasurementBackend, PipelineProfile
    from circinus.serving import DesiredState, Mode
    from circinus.simulation import SimulationReport
    from circinus.simulation.simulate import Progress
    from circinus.specification import Configuration, Specification

_MAX_FILES = 3
"""Maximum number of files that an error names."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedPlan:
    """A plan with its specification and profile store."""

    plan_set: PlanFile
    specification: Specification
    """Specification of the queries that the plan serves or rejects."""
    store: Path
    path: Path | None = None
    """Plan file that it was read from, if any."""
    unplanned: tuple[str, ...] = ()
    """Further queries of the specification: new ones, and rejected ones that were edited since, or their code."""

    @classmethod
    def of(
        cls,
        plan_set: PlanFile,
        specification: Specification,
        store: Path,
        path: Path | None = None,
        *,
        compares_code: bool = True,
    ) -> LoadedPlan:
        """Return a plan with its part of a specification; see `covered_part`."""
        plan_set, covered = covered_part(plan_set, specification, compares_code=compares_code)
        planned = {query.name for query in covered.queries}
        unplanned = tuple(query.name for query in specification.queries if query.name not in planned)
        return cls(plan_set, covered, store, path, unplanned)

    @property
    def configurations(self) -> list[tuple[str, Configuration]]:
        """Pipeline and configuration of each part of the plan of each served query."""
        plans = [assignment.chosen.plan for assignment in self.plan_set.matching.assignments]
        return [(plan.pipeline, part.plan.configuration) for plan in plans for part in plan.parts]

    def missing_query(self, name: str) -> PlanningError:
        """Return the error of a name that none of the plan's queries has."""
        location = str(self.path or "")
        if name in self.unplanned:
            return PlanningError(
                f"the plan has no decision on query {name}: it is new, or it or its code was edited since",
                code="query.not_planned",
                location=location,
                hint=f"Run `circinus admit {name}`, or `circinus plan` for all queries together.",
            )
        return unknown_query(name, [query.name for query in self.specification.queries], location=location)

    def profiles(self, more: Collection[str] = ()) -> Mapping[str, PipelineProfile]:
        """Return the profiles of all served pipelines, with the corrections that the plan was made with.

        They are found by the code versions in the plan file, and no code is imported.

        Args:
            more: further pipelines.
        """
        from circinus.api.recorded_code import RecordedCode

        source, names = RecordedCode(self.plan_set), sorted({*more, *self._served_pipelines})
        return self._profiles(names, dict.fromkeys(names, source), self.specification)

    def profiles_of_code(
        self, more: Collection[str], sources: Mapping[str, MeasurementBackend], specification: Specification
    ) -> Mapping[str, PipelineProfile]:
        """Return the profiles of all served pipelines as `profiles` does, but import their code.

        Args:
            more: further pipelines, which may be new in the specification.
            sources: pipeline -> measurement backend, where it is not this machine.
            specification: whole specification, as bounds depend on the SLOs of all queries.

        Raises:
            StalePlanError: the code of a served pipeline has another version than in the plan file.
        """
        served, planned = self._served_pipelines, self.plan_set.code_versions
        profiles = self._profiles(sorted({*more, *served}), sources, specification)
        versions = [pair for name in sorted(served) for pair in profiles[name].code_versions.items()]
        changed = [uses for uses, version in versions if planned.get(uses, version) != version]
        if changed:
            raise StalePlanError(
                f"the plan of {self.plan_set.created_at} is stale: the code of {', '.join(changed)} changed",
                code="plan.stale",
                location=str(self.path or ""),
                hint="Run `circinus profile` and `circinus plan` again.",
            )
        return profiles

    def _profiles(
        self, names: Collection[str], sources: Mapping[str, MeasurementBackend], specification: Specification
    ) -> Mapping[str, PipelineProfile]:
        from circinus.api.planning_service import apply_corrections
        from circinus.api.profiling_service import load_profiles

        profiles = load_profiles(specification, names, self.store, seed=self.plan_set.seed, sources=sources)
        return apply_corrections(self.plan_set.corrections, profiles, specification)

    @property
    def _served_pipelines(self) -> set[str]:
        return {assignment.chosen.plan.pipeline for assignment in self.plan_set.matching.assignments}

    def desired_state(self, mode: Mode) -> DesiredState:
        """Return the engine state that deploys the plan."""
        from circinus.serving.desired_state import build_desired_state

        versions = self.plan_set.code_versions
        return build_desired_state(self.plan_set.matching, self.specification, mode, self.store.resolve(), versions)

    def simulate(
        self,
        *,
        load_factor: float,
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
        _log.info("simulate at %g times the rates, duration_s=%s", load_factor, duration_s)
        served = matching.served
        return simulate(
            simulation_inputs(self.specification, self.profiles() if profiles is None else profiles, matching),
            {sized.deployment: sized.replicas for sized in matching.deployments},
            Network(infrastructure),
            duration_s=duration_s,
            warm_up_s=warm_up_s,
            load_factor=load_factor,
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


def unknown_query(
    name: str, present: Collection[str], specification: Specification | None = None, location: str = ""
) -> PlanningError:
    """Return the error of a name that no query has.

    Args:
        name: found name.
        present: expected names.
        specification: specification whose files lack the query, if these are the names of its queries.
        location: file that has the queries.
    """
    hints = [did_you_mean(name, present)]
    if specification is not None:
        with_queries = [source.file for (kind, _), source in specification.locations.items() if kind == "Query"]
        files = list(dict.fromkeys(with_queries or map(str, specification.files)))
        location = ", ".join([*files[:_MAX_FILES], *(["..."] if len(files) > _MAX_FILES else [])])
        hints.append(f"add the query {name} to {files[0] if files else 'the specification'}.")
    hint = " Or ".join(filter(None, hints))
    return PlanningError(
        f"no query {name}, expected one of {', '.join(present) or '(none)'}",
        code="query.unknown",
        location=location,
        hint=hint[:1].upper() + hint[1:],
    )


def load_plan(
    plan_file: Path, *, needs_store: bool = False, complete: bool = False, runs_code: bool = False
) -> LoadedPlan:
    """Read a plan file and the specification that it names.

    Args:
        plan_file: plan file, as `circinus plan` writes it.
        needs_store: whether the profile store must exist.
        complete: whether the plan must have a decision on every query of the specification.
        runs_code: whether its code is going to run, and the plan has to be trusted for that.

    Raises:
        MissingFileError: the plan file or its specification does not exist.
        PlanningError: the plan file cannot be read, or is not trusted.
        SpecError: files of the specification are faulty.
        StalePlanError: the specification, code or (if needed) store differs from what the plan was made from.
    """
    plan_set, specification, store = read_plan(plan_file, needs_store=needs_store)
    if runs_code:
        require_trusted(plan_set, specification, plan_file)
    opened = LoadedPlan.of(plan_set, specification, store, plan_file)
    if complete and opened.unplanned:
        raise StalePlanError(
            f"the plan of {plan_set.created_at} has no decision on {', '.join(opened.unplanned)}",
            code="plan.incomplete",
            location=str(plan_file),
            hint="Run `circinus plan` again.",
        )
    return opened


def read_plan(
    plan_file: Path, *, check_fresh: bool = True, needs_store: bool = False
) -> tuple[PlanFile, Specification, Path]:
    """Return a plan file, the specification that it names, and the path of its profile store; see `load_plan`."""
    if plan_file != DEFAULT_PLAN:
        require_file(plan_file, "a plan file; write one with `circinus plan`")
    plan_set = load_plan_set(plan_file)
    _require_files(plan_set, plan_file)
    try:
        specification = read_specification(plan_set, plan_file)
    except SpecError as error:
        missing = _missing_specification(plan_file, error)
        if missing is None:
            raise
        raise missing from error
    store = plan_file.parent / plan_set.profile_store
    if check_fresh:
        profile_store = store if needs_store else None
        require_fresh(plan_set, specification, profile_store=profile_store, location=str(plan_file))
    return plan_set, specification, store


def read_specification(plan_set: PlanFile, plan_file: Path) -> Specification:
    """Return the specification that a plan file names or contains, as it is now.

    Raises:
        PlanningError: the plan file does neither.
        SpecError: files of the specification are faulty.
    """
    if plan_set.inline is not None:
        return plan_set.inline.load(plan_file)
    if not plan_set.files:
        raise PlanningError(
            "found no specification, expected its files, or its documents if it was made in Python",
            code="plan.no_specification",
            location=str(plan_file),
            hint="Read the plan with `Workspace(specification).load_plan(path)`, or write it again with this version.",
        )
    return load_specification([plan_file.parent / file for file in plan_set.files])


def require_trusted(plan_set: PlanFile, specification: Specification, plan_file: Path) -> None:
    """Refuse to run code of a plan file that another user may have made.

    Raises:
        PlanningError: this user did not make it, and its code is not in its own folder.
    """
    if folders := foreign_code(plan_set, specification):
        raise PlanningError(
            f"the plan has code imported from {folders}, and this user did not make it",
            code="plan.untrusted_code",
            location=str(plan_file),
            hint="Read that code, then add --trust (in Python trust=True); or make the plan with `circinus plan`.",
        )


def _require_files(plan_set: PlanFile, plan_file: Path) -> None:
    """Refuse a plan file that names a device or a pipe, on which reading may wait for ever."""
    for field, name in (*(("files", file) for file in plan_set.files), ("profile_store", plan_set.profile_store)):
        path = plan_set.folder / name
        if os.path.exists(path) and not os.path.isfile(path) and (field == "profile_store" or not os.path.isdir(path)):
            raise PlanningError(
                f"{field}: found {path}, which is no file, expected one",
                code="plan.no_file",
                location=str(plan_file),
                hint="Run `circinus plan` again.",
            )


def _missing_specification(plan_file: Path, error: SpecError) -> MissingFileError | None:
    """Return the error of a plan file that was moved away from its specification, or None if that is only faulty."""
    for fault in error.faults:
        if fault.field == WHOLE_FILE and fault.found in (NO_FILE, NO_YAML_FILES, NO_DOCUMENTS):
            return MissingFileError(
                f"found {fault.found} at {os.path.abspath(fault.file)}, expected the plan's specification, which is "
                "looked for relative to the plan file",
                code="plan.missing_specification",
                location=str(plan_file),
                hint=f"Move the plan file back, or run `circinus plan SPECIFICATION -o {shlex.quote(str(plan_file))}`.",
            )
    return None
