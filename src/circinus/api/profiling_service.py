"""Profiling on this machine or on the nodes of a Ray cluster, and what the profile store has.

Planning reads the store through this module, so that measuring is imported where something is measured.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from circinus.api.progress import ProgressFactory, no_progress
from circinus.api.quantities import argument_error
from circinus.api.reports import ProfileReport
from circinus.errors import OperatorError, ProfileError
from circinus.operators.process_output import output_folder
from circinus.planning.sampler import make_sampler
from circinus.profiling import load_imported_times, load_observations, load_profile
from circinus.specification.diagnostics import describe

if TYPE_CHECKING:
    from circinus.api.engine_handle import EngineHandle
    from circinus.profiling import Calibration, ImportedTime, MeasurementBackend, PipelineProfile
    from circinus.specification import Configuration, Specification

_log = logging.getLogger(__name__)

_MIN_SHARE = 0.1
"""Minimum part of a pipeline, as a share of an equal part, where others took too long; and minimum share of the budget
that must be left for another pass."""


def profile_pipelines(
    specification: Specification,
    names: Sequence[str],
    store: Path,
    engine: EngineHandle,
    *,
    budget_s: float | None,
    seed: int,
    exhaustive: bool,
    declared_speeds: bool,
    sources: Mapping[str, MeasurementBackend],
    begin_s: float,
    progress: ProgressFactory = no_progress,
    on_profile: Callable[[ProfileReport], None] = lambda report: None,
) -> ProfileReport:
    """Profile pipelines on this machine; on a Ray cluster on a node of each hardware class.

    Args:
        specification: specification that has the pipelines.
        names: names of pipelines.
        store: profile store.
        engine: engine whose hardware is measured.
        budget_s: time for all pipelines together; None: until every SLO is decided.
        seed: seed of the order in which items are measured.
        exhaustive: whether to measure every configuration on every item.
        declared_speeds: whether the declared speed replaces the measurement of hardware classes without a living node.
        sources: pipeline -> measurement backend, where it is not this machine.
        begin_s: monotonic time from which the budget counts, unless sources have clocks of their own.
        progress: observer for each pipeline and pass.
        on_profile: callback with a report of each pipeline: after its last pass or, if it shares operators with others,
            after all passes.

    Raises:
        ProfileError: the store cannot be used, or a hardware class has no living node.
        OperatorError: the code of an operator is not found.
        ServingError: there is no such cluster.
    """
    from circinus.profiling import LocalBackend, operator_timeout_s, profile_pipeline

    _require_backends(sources)
    targets = engine.profiling_targets(specification, declared_speeds=declared_speeds)
    default_source = (
        LocalBackend(specification.module_paths, output_folder(store)) if targets is None else targets.reference
    )

    def measure(name: str, part_s: float, earlier: PipelineProfile | None) -> tuple[PipelineProfile, float]:
        """Return a profile, and the seconds that it took by the clock of its source."""
        _log.info("profile pipeline %s into %s", name, store)
        source = sources.get(name, default_source)
        begin_s = source.clock()
        with progress(name) as observer:
            profile = profile_pipeline(
                specification,
                name,
                store,
                budget_s=part_s if math.isfinite(part_s) else None,
                seed=seed,
                observer=observer,
                source=source,
                explorer=make_sampler(specification, name),
                exhaustive=exhaustive,
                classes=None if targets is None else targets.classes,
                skip_lost_nodes=declared_speeds,
                timeout_s=operator_timeout_s(budget_s),
                earlier=earlier,
            )
        return profile, source.clock() - begin_s

    def report(profile: PipelineProfile) -> None:
        name = profile.pipeline
        on_profile(_report({name: profile}, specification, store))

    sharing = _sharing(specification, [name for name in names if name not in sources])
    with default_source.shared_session():
        spent_s = 0.0 if sources else time.monotonic() - begin_s
        profiles = _in_passes(names, budget_s, spent_s, measure, report, exhaustive=exhaustive, reported_last=sharing)
        for name in sharing & profiles.keys():
            profiles[name] = _with_shared(profiles[name], specification, store, seed, default_source)
    for name in profiles:
        if name in sharing:
            report(profiles[name])
    return _report(profiles, specification, store)


def _require_backends(sources: object) -> None:
    for backend in sources.values() if isinstance(sources, Mapping) else (sources,):
        if not hasattr(backend, "addresses"):
            expected = "pipelines with a measurement backend each"
            raise argument_error("sources", describe(backend), expected, "Use `TraceBackend(load_trace(file))`.")


def _sharing(specification: Specification, names: Collection[str]) -> set[str]:
    """Return the pipelines that have an operator in common with another one."""
    uses = Counter(
        reference
        for name in names
        for reference in {operator.uses for operator in specification.pipelines[name].operators}
    )
    return {name for name in names if any(uses[o.uses] > 1 for o in specification.pipelines[name].operators)}


def _with_shared(
    profile: PipelineProfile, specification: Specification, store: Path, seed: int, source: MeasurementBackend
) -> PipelineProfile:
    """Return the profile with the measurements that other pipelines made since, if there are any."""
    explorer = make_sampler(specification, profile.pipeline)
    load = partial(load_profile, specification, profile.pipeline, store, seed=seed, source=source, explorer=explorer)
    try:
        shared = load()
    except ProfileError:  # nothing could be measured
        return profile
    if _item_counts(shared) == _item_counts(profile):
        return profile
    return replace(
        load(with_verdicts=True),
        interrupted=profile.interrupted,
        failed_in_run=profile.failed_in_run,
        class_reports=profile.class_reports,
        spent=profile.spent,
    )


def _item_counts(profile: PipelineProfile) -> dict[Configuration, int]:
    return {configuration.configuration: len(configuration.items) for configuration in profile.configurations}


def _in_passes(
    names: Sequence[str],
    budget_s: float | None,
    spent_s: float,
    measure: Callable[[str, float, PipelineProfile | None], tuple[PipelineProfile, float]],
    report: Callable[[PipelineProfile], None],
    *,
    exhaustive: bool,
    reported_last: Collection[str],
) -> dict[str, PipelineProfile]:
    """Profile pipelines in passes over one budget, of which the start has taken `spent_s`.

    Each pipeline gets an equal part of what is left. Those that need longer go on in the next pass, with what others
    left; the last one of a pass could use all of it. Pipelines of `reported_last` are left to the caller to report.
    """
    limit_s = math.inf if budget_s is None else budget_s
    profiles: dict[str, PipelineProfile] = {}
    unreported: dict[str, PipelineProfile] = {}
    remaining_s, pending = limit_s - spent_s, list(names)
    while pending:
        unfinished = []
        for done, name in enumerate(pending):
            part_s = max(remaining_s / (len(pending) - done), _MIN_SHARE * limit_s / len(names))
            earlier = profiles.get(name)
            profile, took_s = measure(name, part_s, earlier)
            profiles[name] = unreported[name] = profile
            is_exhausted = earlier is not None and profile.profiled_s <= earlier.profiled_s
            remaining_s -= took_s
            if profile.interrupted:
                break
            is_settled = not profile.configurations or (profile.all_decided and not exhaustive)
            if is_settled or is_exhausted or budget_s is None or name == pending[-1]:
                if name not in reported_last:
                    report(unreported.pop(name))
            else:
                unfinished.append(name)
        can_go_on = not profile.interrupted and remaining_s >= _MIN_SHARE * limit_s
        pending = unfinished if can_go_on else []
    for name, profile in unreported.items():
        if name not in reported_last:
            report(profile)
    return profiles


def refuse_failed_pipelines(report: ProfileReport) -> None:
    """Refuse a pipeline without a measured configuration, with its first failure.

    Raises:
        OperatorError: every configuration that was measured failed.
    """
    for name, profile in report.items():
        if profile.failed and not profile.configurations:
            first = profile.failed[0]
            item = "" if first.item_key is None else f", item {first.item_key}"
            reason = first.reason.rstrip(".")
            raise OperatorError(
                f"every measured configuration failed ({len(profile.failed)}), the first with: {reason}",
                code="profile.all_configurations_failed",
                location=f"pipeline {name}, configuration {first.configuration}{item}",
                hint="Correct it, then profile again.",
            )


def load_profiles(
    specification: Specification,
    names: Iterable[str],
    store: Path,
    *,
    seed: int,
    sources: Mapping[str, MeasurementBackend] | None = None,
    with_verdicts: bool = False,
) -> Mapping[str, PipelineProfile]:
    """Return pipeline -> stored profile, without corrections.

    Args:
        specification: specification that has the pipelines.
        names: names of pipelines.
        store: profile store.
        seed: seed of the order in which items were measured.
        sources: pipeline -> measurement backend, where it is not this machine.
        with_verdicts: whether to add a verdict on each configuration.

    Raises:
        ProfileError: a pipeline was never profiled, or the store cannot be read.
        OperatorError: the code of an operator is not found.
    """
    sources = sources or {}
    _require_backends(sources)
    return {
        name: load_profile(
            specification,
            name,
            store,
            seed=seed,
            source=sources.get(name),
            with_verdicts=with_verdicts,
            explorer=make_sampler(specification, name),
        )
        for name in names
    }


def stored_profiles(
    specification: Specification,
    names: Sequence[str],
    store: Path,
    *,
    seed: int,
    sources: Mapping[str, MeasurementBackend],
) -> ProfileReport:
    """Return the report of `load_profiles` with verdicts, and the observations under traffic."""
    profiles = load_profiles(specification, names, store, seed=seed, sources=sources, with_verdicts=True)
    return _report(profiles, specification, store)


def import_times(
    specification: Specification,
    names: Sequence[str],
    store: Path,
    table: Path,
    *,
    sources: Mapping[str, MeasurementBackend],
) -> tuple[ImportedTime, ...]:
    """Store the times of a table for the current code of the pipelines.

    Raises:
        ProfileError: the table is faulty (`read_time_table`), or the store cannot be written.
        OperatorError: the code of an operator is not found.
    """
    from circinus.profiling import LocalBackend, read_time_table, save_imported_times

    _require_backends(sources)
    local = LocalBackend(specification.module_paths)
    versions = {}
    for name in names:
        source = sources.get(name, local)
        versions[name] = source.addresses(specification.pipelines[name], source.machine).code.operators
    times = read_time_table(table, specification, versions, datetime.now(UTC))
    save_imported_times(store, times)
    return times


def calibrate_pipelines(
    specification: Specification,
    names: Sequence[str],
    store: Path,
    *,
    seed: int,
    sources: Mapping[str, MeasurementBackend],
) -> tuple[Calibration, ...]:
    """Measure this machine's relative speed against profiles that another machine put into the store."""
    from circinus.profiling import calibrate

    _require_backends(sources)
    calibrations = []
    for name in names:
        source = sources.get(name)
        recorded = load_profile(
            specification, name, store, seed=seed, source=source, from_other_machines=source is None
        )
        calibrations.append(calibrate(specification, recorded, seed=seed))
    return tuple(calibrations)


def write_trace(specification: Specification, name: str, store: Path, path: Path, *, seed: int) -> None:
    """Write the measurements of one pipeline to a trace file.

    Raises:
        ProfileError: the pipeline was never profiled, or the file is the store itself.
    """
    from circinus.profiling import export_trace, save_trace

    if path.resolve() == store.resolve():
        raise ProfileError(
            "a trace would replace the profile store",
            code="trace.is_store",
            location=str(path),
            hint="Name another file.",
        )
    save_trace(export_trace(specification, name, store, seed=seed), path)


def _report(profiles: Mapping[str, PipelineProfile], specification: Specification, store: Path) -> ProfileReport:
    """Return the report of profiles with the observations under traffic and the imported times."""
    observations = load_observations(store)
    return ProfileReport(
        profiles,
        specification,
        {name: [o for o in observations if o.pipeline == name] for name in profiles},
        {name: load_imported_times(store, pipeline=name) for name in profiles},
    )
