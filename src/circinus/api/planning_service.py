"""Planning and admission from stored profiles, and the plan file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from circinus.api.plan_context import LoadedPlan
from circinus.api.plans import AdmissionResult, Plan
from circinus.api.profile_summary import machine_warning
from circinus.api.profiling_service import load_profiles
from circinus.errors import OperatorError, PlanningError, ProfileError
from circinus.estimation import NO_CORRECTIONS, learn_corrections
from circinus.matching import (
    Admission,
    MatchSettings,
    ProfileCoverage,
    add_decision,
    add_rejected,
    admit_query,
    make_plan_set,
    plan_all_queries,
    save_plan_set,
)
from circinus.matching.admission import AdmissionPlanner
from circinus.matching.advice import advise
from circinus.matching.phases import phase
from circinus.matching.tolerances import EQUAL_USD_PER_H
from circinus.planning import plan_query
from circinus.planning.settings import DEFAULT_SETTINGS
from circinus.profiling import load_observations
from circinus.specification import Network

if TYPE_CHECKING:
    from circinus.estimation import Corrections
    from circinus.matching import Incumbent, PlanFile
    from circinus.planning import Frontier
    from circinus.profiling import MeasurementBackend, PipelineProfile
    from circinus.specification import Query, Specification

_MAX_ADVISED = 3
"""Number of rejected queries that an explanation of all queries searches changes for."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlanningResult:
    """A plan and the profiles that it was made from."""

    plan_set: PlanFile
    profiles: Mapping[str, PipelineProfile]
    """Pipeline -> corrected profile."""


def make_plan(
    specification: Specification,
    plan_file: Path,
    store: Path,
    *,
    seed: int,
    running: Incumbent | None,
    time_limit_s: float | None = None,
    max_plans: int | None = None,
    sources: Mapping[str, MeasurementBackend] | None = None,
    corrected: bool = True,
) -> PlanningResult:
    """Plan all queries on what the store has.

    Args:
        specification: pipelines, infrastructure and queries.
        plan_file: path that the plan will be written to; it names its files relative to that.
        store: profile store.
        seed: seed of the order in which items were measured.
        running: incumbent plans, or None.
        time_limit_s: time limit of all matchings together.
        max_plans: maximum number of plans of each query that the matching chooses among.
        sources: pipeline -> measurement backend, where it is not this machine.
        corrected: whether observed service times correct the profiles.

    Raises:
        ProfileError: a pipeline was never profiled.
        PlanningError: the problem is malformed.
    """
    profiles, corrections = corrected_profiles(specification, store, seed=seed, sources=sources, corrected=corrected)
    started = perf_counter()
    matching, _ = plan_all_queries(
        specification,
        profiles,
        search=DEFAULT_SETTINGS if max_plans is None else replace(DEFAULT_SETTINGS, max_plans=max_plans),
        settings=MatchSettings(time_limit_s=time_limit_s, plans_on_levels=True),
        incumbent=running,
        explain_rejections=(),
    )
    plan_set = make_plan_set(
        specification,
        profiles,
        matching,
        plan_file=plan_file,
        profile_store=store,
        seed=seed,
        created_at=datetime.now(UTC),
        planning_s=perf_counter() - started,
        corrections=corrections,
    )
    served, queries = len(matching.assignments), len(specification.queries)
    _log.info("planned %d of %d queries in %.2f s", served, queries, plan_set.planning_s)
    return PlanningResult(plan_set, profiles)


def corrected_profiles(
    specification: Specification,
    store: Path,
    *,
    seed: int,
    sources: Mapping[str, MeasurementBackend] | None = None,
    corrected: bool = True,
) -> tuple[Mapping[str, PipelineProfile], Corrections]:
    """Return the profiles of the pipelines in use with their corrections, and these; see `make_plan`.

    Raises:
        ProfileError: a pipeline was never profiled.
    """
    with phase("read the profiles"):
        profiles = load_profiles(specification, pipelines_in_use(specification), store, seed=seed, sources=sources)
    corrections = _corrections(specification, profiles, store) if corrected else NO_CORRECTIONS
    return apply_corrections(corrections, profiles, specification), corrections


def plan_and_save(
    specification: Specification,
    output: Path,
    store: Path,
    *,
    seed: int,
    running: Incumbent | None,
    is_superseded: Callable[[], bool],
) -> PlanningResult:
    """Plan all queries and write the plan file, unless the plan was superseded meanwhile.

    Raises:
        PlanningError: the problem is malformed, or the plan was superseded, and the present plan file stays.
    """
    result = make_plan(specification, output, store, seed=seed, running=running)
    if is_superseded():
        raise PlanningError(
            "not written: planning was superseded or cancelled", code="plan.superseded", location=str(output)
        )
    save_plan_set(result.plan_set, output)
    return result


def admit(
    opened: LoadedPlan,
    specification: Specification,
    query: Query,
    into: Plan,
    *,
    output: Path | None,
    sources: Mapping[str, MeasurementBackend],
) -> AdmissionResult:
    """Plan one more query, and write the plan file with the decision.

    Args:
        opened: running plan with its profile store.
        specification: whole specification, which may have further queries without a decision.
        query: query to admit.
        into: running plan.
        output: plan file to write, if any.
        sources: pipeline -> measurement backend, where it is not this machine.

    Raises:
        ProfileError: a pipeline was never profiled.
        PlanningError: the plan file cannot be written.
    """
    if query.name in into:
        present = Admission(query, into[query.name])
        return AdmissionResult(query.name, present, into, 0.0, 0.0, already_served=True)
    try:
        profiles = opened.profiles_of_code(pipelines_in_use(specification), sources, specification)
    except (OperatorError, ProfileError):  # of a query that the plan does not serve: no plan of all queries is tried
        profiles = opened.profiles_of_code({query.pipeline}, sources, specification)
    started = perf_counter()
    running = opened.plan_set
    admission, matching = admit_query(specification, profiles, running.matching, query.name)
    answered_s = perf_counter() - started
    _log.info("query %s is %s", query.name, "rejected" if admission.assignment is None else "admitted")
    if admission.rejection is not None:
        matching = add_rejected(matching, admission.rejection, specification)
    file = add_decision(
        running,
        specification,
        profiles[query.pipeline],
        matching,
        query.name,
        created_at=datetime.now(UTC),
        planning_s=answered_s,
    )
    if output is not None:
        file = file.moved_to(output.parent)
        save_plan_set(file, output)
    added_usd_per_h = matching.cost_usd_per_h - running.matching.cost_usd_per_h
    if abs(added_usd_per_h) < EQUAL_USD_PER_H:  # sums in another order
        added_usd_per_h = 0.0
    plan = Plan.of(LoadedPlan.of(file, specification, opened.store, output))
    return AdmissionResult(query.name, admission, plan, added_usd_per_h, answered_s, output)


@dataclass(frozen=True)
class Advised:
    """Plan file with changes that would serve some rejected queries, each of them really planned."""

    file: PlanFile
    unsearched: tuple[str, ...] = ()
    """Rejected queries among those asked for that changes were not searched for."""
    measured_since: tuple[str, ...] = ()
    """Pipelines that were measured further since the plan was made."""
    reason: str = ""
    """Why none could be searched for."""


def advise_rejected(opened: LoadedPlan, names: Collection[str] | None) -> Advised:
    """Search changes that would serve some rejected queries.

    Args:
        opened: plan with its specification and profile store; without stored profiles nothing is planned.
        names: queries; None: the first rejected ones.
    """
    matching = opened.plan_set.matching
    rejected = [rejection.query for rejection in matching.rejections if names is None or rejection.query in names]
    selected = rejected[:_MAX_ADVISED] if names is None else rejected
    if not selected:
        return Advised(opened.plan_set)
    try:
        profiles = opened.profiles(pipelines_in_use(opened.specification))
        planner = AdmissionPlanner.of(opened.specification, profiles, matching)
    except (ProfileError, PlanningError) as error:
        return Advised(opened.plan_set, tuple(rejected), reason=str(error))
    rejections = tuple(
        advise(planner, rejection) if rejection.query in selected else rejection for rejection in matching.rejections
    )
    coverage = opened.plan_set.coverage
    measured_since = tuple(
        name
        for name, profile in profiles.items()
        if name in coverage and coverage[name].scores not in (None, ProfileCoverage.of(profile).scores)
    )
    file = replace(opened.plan_set, matching=replace(matching, rejections=rejections))
    return Advised(file, tuple(rejected[len(selected) :]), measured_since)


def planning_warnings(result: PlanningResult, specification: Specification) -> set[str]:
    """Return the warnings of a plan: times of another machine, and documents that were not read."""
    pipelines: dict[str, list[str]] = {}
    for name, profile in sorted(result.profiles.items()):
        if (reason := machine_warning(profile, specification)) is not None:
            pipelines.setdefault(reason, []).append(name)
    warnings = {
        f"pipeline{'s' if len(names) > 1 else ''} {', '.join(names)}: {reason}" for reason, names in pipelines.items()
    }
    return warnings | {f"passed over: {document}" for document in specification.skipped_documents}


def query_frontier(
    specification: Specification, query: Query, store: Path, *, seed: int, corrections: Corrections | None = None
) -> Frontier:
    """Return the Pareto frontier of one query, from the stored profile of its pipeline.

    Args:
        specification: specification that has the query's pipeline.
        query: query to plan.
        store: profile store.
        seed: seed of the order in which items were measured.
        corrections: corrections of the profile; None: those that observed service times give now.

    Raises:
        ProfileError: the query's pipeline was never profiled.
        PlanningError: the specification has no infrastructure.
    """
    profiles = load_profiles(specification, [query.pipeline], store, seed=seed)
    infrastructure = specification.required_infrastructure
    corrections = _corrections(specification, profiles, store) if corrections is None else corrections
    profiles = apply_corrections(corrections, profiles, specification)
    pipeline = specification.pipelines[query.pipeline]
    return plan_query(query, pipeline, profiles[query.pipeline], Network(infrastructure))


def pipelines_in_use(specification: Specification) -> list[str]:
    """Return the pipelines that queries use, in the order of the specification."""
    used = {query.pipeline for query in specification.queries}
    return [name for name in specification.pipelines if name in used]


def apply_corrections(
    corrections: Corrections, profiles: Mapping[str, PipelineProfile], specification: Specification
) -> Mapping[str, PipelineProfile]:
    """Return the profiles with observed service times applied."""
    return {name: corrections.applied_to(profile, specification.pipelines[name]) for name, profile in profiles.items()}


def _corrections(specification: Specification, profiles: Mapping[str, PipelineProfile], store: Path) -> Corrections:
    """Return the corrections of the operators and pools in use."""
    infrastructure = specification.infrastructure
    pools = () if infrastructure is None else infrastructure.pools
    learnt = learn_corrections(load_observations(store), datetime.now(UTC))
    return learnt.for_pipelines(specification.pipelines, profiles, pools)
