"""Profiling on this machine or on the nodes of a Ray cluster, and what the profile store has."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from circinus.api.progress import ProgressFactory, no_progress
from circinus.api.reports import ProfileReport
from circinus.errors import OperatorError, ProfileError
from circinus.planning.sampler import make_sampler
from circinus.profiling import (
    Calibration,
    MeasurementBackend,
    PipelineProfile,
    ServiceTimeObservation,
    calibrate,
    export_trace,
    load_observations,
    load_profile,
    profile_pipeline,
    save_trace,
)

if TYPE_CHECKING:
    from circinus.api.engine_handle import EngineHandle
    from circinus.specification import Specification

_log = logging.getLogger(__name__)


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
    progress: ProgressFactory = no_progress,
    on_profile: Callable[[ProfileReport], None] = lambda report: None,
) -> ProfileReport:
    """Profile pipelines on this machine; on a Ray cluster on a node of each hardware class.

    Args:
        specification: specification that has the pipelines.
        names: names of pipelines.
        store: profile store.
        engine: engine whose hardware is measured.
        budget_s: time for each pipeline; None: until every SLO is decided.
        seed: seed of the order in which items are measured.
        exhaustive: whether to measure every configuration on every item.
        declared_speeds: whether the declared speed replaces the measurement of hardware classes without a living node.
        sources: pipeline -> measurement backend, where it is not this machine.
        progress: observer for each pipeline.
        on_profile: callback after each pipeline, with a report of that pipeline.

    Raises:
        ProfileError: the store cannot be used, or a hardware class has no living node.
        OperatorError: the code of an operator is not found.
        ServingError: there is no such cluster.
    """
    targets = engine.profiling_targets(specification, declared_speeds=declared_speeds)
    profiles: dict[str, PipelineProfile] = {}
    for name in names:
        _log.info("profile pipeline %s into %s", name, store)
        with progress(name) as observer:
            profile = profile_pipeline(
                specification,
                name,
                store,
                budget_s=budget_s,
                seed=seed,
                observer=observer,
                source=sources.get(name) if targets is None else targets.reference,
                explorer=make_sampler(specification, name),
                exhaustive=exhaustive,
                classes=None if targets is None else targets.classes,
                skip_lost_nodes=declared_speeds,
            )
        profiles[name] = profile
        on_profile(ProfileReport({name: profile}, specification, _observations(store, [name])))
        if profile.interrupted:
            break
    return ProfileReport(profiles, specification, _observations(store, profiles))


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
    return {
        name: load_profile(
            specification,
            name,
            store,
            seed=seed,
            source=(sources or {}).get(name),
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
    return ProfileReport(profiles, specification, observations=_observations(store, names))


def calibrate_pipelines(
    specification: Specification,
    names: Sequence[str],
    store: Path,
    *,
    seed: int,
    sources: Mapping[str, MeasurementBackend],
) -> tuple[Calibration, ...]:
    """Measure this machine's relative speed against profiles that another machine put into the store."""
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
    if path.resolve() == store.resolve():
        raise ProfileError(
            "a trace would replace the profile store",
            code="trace.is_store",
            location=str(path),
            hint="Name another file.",
        )
    save_trace(export_trace(specification, name, store, seed=seed), path)


def _observations(store: Path, names: Collection[str]) -> Mapping[str, Sequence[ServiceTimeObservation]]:
    observations = load_observations(store)
    return {name: [observation for observation in observations if observation.pipeline == name] for name in names}
