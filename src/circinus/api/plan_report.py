"""The report of a plan, from the plan file and from what the profile store and the controller's state file have."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from circinus.api.load_documents import read_load
from circinus.api.planning_service import apply_corrections, pipelines_in_use
from circinus.api.recorded_code import RecordedCode
from circinus.api.reports import LoadReport
from circinus.control.control_state import ControlState
from circinus.control.state_store import ControlStateStore, Event, EventKind
from circinus.errors import PlanningError, ProfileError, ServingError
from circinus.matching import MatchSettings, require_fresh
from circinus.matching.admission import AdmissionPlanner
from circinus.matching.advice import advise
from circinus.matching.settings import DEFAULT_MATCH_SETTINGS
from circinus.planning.sampler import make_sampler
from circinus.profiling import PipelineProfile, load_observations
from circinus.profiling.store.profile_loader import read_profile
from circinus.profiling.store.profile_store import ProfileStore
from circinus.reporting.html_report.content import ReportContent, WhatIf
from circinus.reporting.html_report.page import report_page

if TYPE_CHECKING:
    from circinus.api.plan_context import LoadedPlan
    from circinus.api.quantities import AnyPath
    from circinus.matching import PlanFile
    from circinus.simulation.report import SimulationReport

_LOADS = (0.5, 1.5, 2.0, 3.0, 4.0)
_REQUESTS, _MAX_REQUESTS = 1000, 50_000
"""Requests of the rarest query in a simulation at the planned rates, and maximum of all queries together."""
_MATCHING_SHARE = 0.25
"""Share of the remaining time for the matching of a plan with more nodes; its other steps may take three times that."""
_MAX_EVENTS = 200
_NOT_STORED = ("store.missing", "profile.not_measured", "profile.from_trace")
"""Codes of errors that a report shows instead of a profile."""

_Progress = Callable[[str], None]
_Profiles = Mapping[str, PipelineProfile]


def write_report(
    opened: LoadedPlan,
    output: Path,
    load: LoadReport | AnyPath | None,
    state_file: Path,
    *,
    what_if_s: float,
    on_progress: _Progress,
) -> Path:
    """Write the report of a plan; see `Workspace.report`."""
    plan_set, specification = opened.plan_set, opened.specification
    require_fresh(replace(plan_set, code_versions={}), specification, location=str(opened.path or ""))
    measured = load.to_dict() if isinstance(load, LoadReport) else None if load is None else read_load(Path(load))
    if measured is not None:
        _require_same_plan(measured, plan_set, "" if isinstance(load, LoadReport) else str(load))
    on_progress("reading profiles")
    profiles, unprofiled = _stored_profiles(opened)
    what_if = None
    if what_if_s > 0 and unprofiled:
        what_if = WhatIf(reason=f"Not computed, as profiles are missing: {', '.join(unprofiled)}.")
    elif what_if_s > 0 and profiles:
        what_if, plan_set = _what_if(opened, profiles, what_if_s, on_progress)
    on_progress("drawing charts")
    served = {name for name in specification.pipelines if name in profiles}
    content = ReportContent(
        plan_set,
        specification,
        source="" if opened.path is None else opened.path.name,
        profiles=profiles,
        unprofiled=unprofiled,
        observations=[o for o in load_observations(opened.store) if o.pipeline in served] if profiles else (),
        load=measured,
        events=_last_events(state_file, opened),
        what_if=what_if,
    )
    page = report_page(content)
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise PlanningError(
            f"cannot write the report: {error.strerror}",
            code="report.unwritable",
            location=str(output),
            hint="Name another file with --output.",
        ) from error
    return output


def _require_same_plan(load: Mapping[str, Any], plan_set: PlanFile, location: str) -> None:
    """Require that a load test was one of the plan: that it predicted the latencies of the plan's queries.

    Raises:
        PlanningError: it was one of another plan.
    """
    planned = {a.query: a.chosen.estimate.latency_s.value for a in plan_set.matching.assignments}
    tested = {q["query"]: q["predicted"]["latency_s"]["value"] for q in load["queries"] if q["predicted"] is not None}
    if differing := [name for name in planned | tested if planned.get(name) != tested.get(name)]:
        raise PlanningError(
            f"the load test was one of another plan, which differs for {', '.join(sorted(differing))}",
            code="report.other_plan",
            location=location,
            hint="Load the plan again with `circinus load --json > load.json`.",
        )


def _stored_profiles(opened: LoadedPlan) -> tuple[_Profiles, Mapping[str, str]]:
    """Return pipeline -> profile with bounds and verdicts, and pipeline -> reason where the store has none."""
    plan_set, specification = opened.plan_set, opened.specification
    source, profiles, reasons = RecordedCode(plan_set), dict[str, PipelineProfile](), dict[str, str]()
    for name in pipelines_in_use(specification):
        try:
            source.addresses(specification.pipelines[name], None)  # refuses a recorded trace, whatever the store has
            with ProfileStore(opened.store) as store:
                profiles[name] = read_profile(
                    store,
                    specification,
                    name,
                    plan_set.seed,
                    source,
                    with_verdicts=True,
                    explorer=make_sampler(specification, name),
                ).profile
        except ProfileError as error:
            if error.code not in _NOT_STORED:
                raise
            reasons[name] = str(error)
    return profiles, reasons


def _last_events(state_file: Path, opened: LoadedPlan) -> Sequence[Event]:
    """Return the events since a controller of this plan last started, unless others may have written them."""
    if not state_file.is_file():
        return ()
    try:
        with closing(ControlStateStore(state_file)) as store:
            if not ControlState.is_of_plan(store.state(), opened.plan_set.matching):
                return ()
            events = store.last(_MAX_EVENTS, None)
    except ServingError as error:
        if error.code not in ("control.unsafe", "control.foreign"):
            raise
        warnings.warn(f"the report has no events: {error}", stacklevel=2)
        return ()
    starts = [number for number, event in enumerate(events) if event.kind == EventKind.STARTED]
    return events[starts[-1] :] if starts else events


def _what_if(
    opened: LoadedPlan, profiles: _Profiles, limit_s: float, on_progress: _Progress
) -> tuple[WhatIf, PlanFile]:
    """Return simulations of other loads, and the plan with changes that serve its rejected queries.

    What the time limit leaves no time for is named instead.
    """
    specification, plan_set, end_s = opened.specification, opened.plan_set, perf_counter() + limit_s
    profiles = apply_corrections(plan_set.corrections, profiles, specification)
    loads: list[SimulationReport] = []
    omitted: list[str] = []

    def in_time(step: str, *, expected_s: float = 0.0) -> bool:
        if perf_counter() + expected_s > end_s:
            omitted.append(step)
            return False
        on_progress(step)
        return True

    is_late = False

    def check_time() -> None:
        nonlocal is_late
        is_late = perf_counter() > end_s
        if is_late:
            raise TimeoutError

    served = plan_set.matching.served
    rates = [query.rate_per_s for query in specification.queries if query.name in served]
    took_s = 0.0
    for load in _LOADS if rates else ():
        if in_time(f"{load:g}× load", expected_s=took_s):
            begin_s, duration_s = perf_counter(), min(_REQUESTS / min(rates), _MAX_REQUESTS / sum(rates))
            report = opened.simulate(
                load_factor=load, duration_s=duration_s, warm_up_s=duration_s / 10, seed=0, profiles=profiles
            )
            loads.append(report)
            took_s = perf_counter() - begin_s
    rejections = list(plan_set.matching.rejections)
    steps = [f"changes that serve {rejection.query}" for rejection in rejections]
    if steps and perf_counter() < end_s:
        planner = AdmissionPlanner.of(specification, profiles, plan_set.matching)
        planner = replace(planner, check_time=check_time)
        matching_limit_s = DEFAULT_MATCH_SETTINGS.limit_s(len(specification.queries))
        for number, step in enumerate(steps):
            if in_time(step):
                limit_s = min(_MATCHING_SHARE * (end_s - perf_counter()), matching_limit_s)
                settings = MatchSettings(time_limit_s=max(limit_s, 0.0))
                try:
                    rejections[number] = advise(planner, rejections[number], settings)
                except TimeoutError:
                    omitted.append(step)
                else:
                    omitted += [f"further {step}"] if is_late else []
        plan_set = replace(plan_set, matching=replace(plan_set.matching, rejections=tuple(rejections)))
    else:
        omitted += steps
    return WhatIf(tuple(loads), tuple(omitted)), plan_set
