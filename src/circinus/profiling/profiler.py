"""Profiling of a pipeline within a time budget: measures only as much as the SLOs of its queries need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from circinus.errors import ProfileError
from circinus.operators.process_output import output_folder
from circinus.profiling.hardware.class_profiler import (
    HardwareClassBackend,
    HardwareClassProfiler,
    operators_by_class,
)
from circinus.profiling.hardware.class_times import class_machines, write_profiling_machine
from circinus.profiling.hardware.machine import busy_share
from circinus.profiling.measurement.allocation_profiler import AllocationProfiler
from circinus.profiling.measurement.backend import LocalBackend, MeasurementBackend
from circinus.profiling.measurement.measurer import Measurer
from circinus.profiling.measurement.runner import MeasurementError
from circinus.profiling.measurement.time_estimator import MeasurementTimeEstimator
from circinus.profiling.observer import ProfileObserver, ProfileProgress, SilentObserver, TimeBudget
from circinus.profiling.profile import HardwareClassReport, PipelineProfile
from circinus.profiling.race.configuration_order import in_prefix_order, max_measured_configurations, prefix_order
from circinus.profiling.race.configuration_race import ConfigurationRace
from circinus.profiling.race.profiling_loop import ProfilingLoop
from circinus.profiling.race.resource_usage import ResourceUsage
from circinus.profiling.race.sampler import ConfigurationSampler
from circinus.profiling.race.slo_requirements import PipelineSlos
from circinus.profiling.settings import PROFILING
from circinus.profiling.store.measurement_keys import LOCAL, MeasurementKeys
from circinus.profiling.store.profile_loader import build_profile
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import StoredDataset, read_dataset
from circinus.profiling.store.stored_measurements import StoredMeasurements, run_confidence
from circinus.profiling.store.stored_verdicts import write_verdicts
from circinus.profiling.store.transfer_sources import load_source_scores
from circinus.specification import Configuration, Specification
from circinus.statistics.interval import Interval


def profile_pipeline(
    specification: Specification,
    pipeline_name: str,
    store: Path,
    *,
    budget_s: float | None = None,
    seed: int = 0,
    observer: ProfileObserver | None = None,
    clock: Callable[[], float] | None = None,
    source: MeasurementBackend | None = None,
    explorer: ConfigurationSampler | None = None,
    exhaustive: bool = False,
    classes: Mapping[str, HardwareClassBackend | None] | None = None,
    skip_lost_nodes: bool = False,
    timeout_s: float | None = None,
    earlier: PipelineProfile | None = None,
) -> PipelineProfile:
    """Measure the configurations of a pipeline until all are decided or the budget is spent.

    Stored measurements are reused, except for failures, which each run retries once. Ctrl-C stops the measurement
    early: the profile is then marked `interrupted`, and the next call resumes it.

    Outputs and scores do not depend on the hardware. On each further hardware class every operator that may run there
    is measured with each of its knob values in the profile, on a few of the items
    (`circinus.profiling.hardware.class_times`); then profiling continues with these speeds, and so on in turns until
    nothing is missing or the budget is spent.

    Args:
        specification: specification of the pipeline and of the queries whose accuracy SLOs are to be decided.
        store: store file, created if missing.
        budget_s: time budget of all classes, exceeded by at most one increment of one configuration; None for no
            limit.
        clock: current time in seconds; default: clock of the source.
        source: measurement backend; default: the operators on this machine.
        explorer: sampler that selects the configurations to measure (`circinus.planning.sampler`); default: all.
        exhaustive: measure every configuration on every profiling item, regardless of the queries.
        classes: measurement backend of each further hardware class, None if its declared speed applies; default:
            nothing is measured or reported of other classes.
        skip_lost_nodes: continue without the classes whose nodes are lost.
        timeout_s: timeout of loading an operator or processing an item; default: `operator_timeout_s` of the budget.
        earlier: profile of an earlier part of the run, which goes on: failures are not retried, times are added.

    Raises:
        ProfileError: a score is outside the metric's range, or the data set or the store is unusable; `NodeLostError`
            if the last node of a class was lost. Everything committed is retained, and the next call resumes from
            there.
        OperatorError: an operator, metric or data set cannot be found.
    """
    source = source or LocalBackend(specification.module_paths, output_folder(store))
    clock, observer = clock or source.clock, observer or SilentObserver()
    operator_s = operator_timeout_s(budget_s) if timeout_s is None else timeout_s

    def profiled(limit_s: float | None, before: PipelineProfile | None) -> PipelineProfile:
        limit = TimeBudget(limit_s, clock)
        return _profile(
            specification, pipeline_name, store, limit, seed, observer, source, explorer, exhaustive, operator_s, before
        ).after(before)

    if classes is None:
        return profiled(budget_s, earlier)
    budget = TimeBudget(budget_s, clock)
    operators = operators_by_class(specification, pipeline_name)
    backends = {name: backend for name, backend in classes.items() if backend is not None and name in operators}
    declared = tuple(HardwareClassReport(name, None) for name in operators if name not in backends and name != LOCAL)
    earlier_reports = {} if earlier is None else {report.hardware_class: report for report in earlier.class_reports}
    first_share = PROFILING.first_profile_share if backends else 1.0
    profile = profiled(None if budget_s is None else budget_s * first_share, earlier)
    if not backends or profile.interrupted:
        return replace(profile, class_reports=tuple(earlier_reports.values()) or declared)
    pipeline = specification.pipelines[pipeline_name]
    keys, dataset = source.addresses(pipeline, source.machine), source.dataset(pipeline, seed)
    with ProfileStore(store) as opened:
        item_ids = _stored_dataset(opened, keys, seed, store).item_ids
        profilers = [
            HardwareClassProfiler(
                opened, keys, name, backend, dataset, item_ids, operators[name], operator_s, budget, observer,
                skip_lost_nodes=skip_lost_nodes, earlier=earlier_reports.get(name),
            )
            for name, backend in backends.items()
        ]  # fmt: skip
        try:
            while not profile.interrupted:
                measured = [profiler.measure(profile) for profiler in profilers]
                if not any(measured):
                    break
                profile = profiled(None if budget_s is None else budget.remaining_s, profile)
        except KeyboardInterrupt:
            profile = replace(profile, interrupted=True)
        reports = [profiler.report(profile) for profiler in profilers]
    return replace(profile, class_reports=(*reports, *declared))


@dataclass(frozen=True)
class _StoredPipeline:
    """Measurements of a pipeline, as a run reads them."""

    store: ProfileStore
    keys: MeasurementKeys
    dataset: StoredDataset
    slos: PipelineSlos
    explorer: ConfigurationSampler | None
    bounds: dict[tuple[Configuration, int], Interval] = field(default_factory=dict)
    """Bounds of mean scores that the run computed so far."""

    def profile(self) -> PipelineProfile:
        """Return the current profile, which extends the bounds."""
        return build_profile(self.store, self.keys, self.dataset, self.slos, bounds=self.bounds, explorer=self.explorer)


def _profile(
    specification: Specification,
    pipeline_name: str,
    store: Path,
    budget: TimeBudget,
    seed: int,
    observer: ProfileObserver,
    source: MeasurementBackend,
    explorer: ConfigurationSampler | None,
    exhaustive: bool,
    timeout_s: float,
    earlier: PipelineProfile | None,
) -> PipelineProfile:
    """Measure on the machine of `source` alone."""
    pipeline = specification.pipelines[pipeline_name]
    keys = source.addresses(pipeline, source.machine)
    dataset = source.dataset(pipeline, seed)
    slos = PipelineSlos.of(specification, pipeline_name)
    interrupted, loop, decision = False, None, None
    sampler = None if exhaustive else explorer
    with (
        ProfileStore(store, create=True) as opened,
        source.runner(keys, timeout_s=timeout_s) as runner,
    ):
        measurer = Measurer(opened, keys, dataset, runner, source.scorer(pipeline))
        write_profiling_machine(opened, keys)
        stored = _StoredPipeline(opened, keys, _stored_dataset(opened, keys, seed, store), slos, sampler)
        try:
            stored_profile = stored.profile()
            if isinstance(source, LocalBackend) and earlier is None:  # later parts have outputs in the cache
                measured = stored_profile.configurations
                disturbed = [(entry.configuration, entry.items.tolist()) for entry in measured if entry.disturbed]
                if repeat_disturbed(measurer, disturbed, budget, observer):
                    stored_profile = stored.profile()
            failed = frozenset[Configuration]() if earlier is None else earlier.failed_in_run
            loop = _profiling_loop(stored, stored_profile, measurer, budget, observer, failed)
            if exhaustive:
                loop.run_exhaustively()
            else:
                loop.run()
        except KeyboardInterrupt:
            interrupted = True
        decision = None if loop is None else loop.final_decision(interrupted=interrupted)
        profile = build_profile(
            opened,
            keys,
            stored.dataset,
            slos,
            with_verdicts=True,
            interrupted=interrupted,
            explorer=explorer,
            bounds=stored.bounds if sampler is explorer else None,  # others share the risk with comparisons
            decision=decision,
        )
        write_verdicts(opened, keys, specification, profile)
        return profile if loop is None else replace(profile, spent=loop.spent, failed_in_run=loop.failed)


def _stored_dataset(opened: ProfileStore, keys: MeasurementKeys, seed: int, store: Path) -> StoredDataset:
    stored = read_dataset(opened, keys.dataset(), seed)
    if stored is None:
        raise ProfileError(
            f"the data set of pipeline {keys.pipeline.name} is not stored",
            code="dataset.not_stored",
            location=str(store),
            hint="Measure again.",
        )
    return stored


def operator_timeout_s(budget_s: float | None) -> float:
    """Return the timeout of loading an operator or processing an item.

    It is at most the budget: an operator that is slower cannot be measured within it, and must not delay the others.
    """
    max_s = PROFILING.operator_timeout_s
    return max_s if budget_s is None else min(max_s, max(PROFILING.min_operator_timeout_s, budget_s))


def repeat_disturbed(
    measurer: Measurer,
    disturbed: Sequence[tuple[Configuration, Sequence[int]]],
    budget: TimeBudget,
    observer: ProfileObserver,
    *,
    counted: bool = True,
) -> bool:
    """Measure configurations again whose runs other programs disturbed, if the machine is quiet now.

    Returns:
        Whether any may have been measured.

    Args:
        disturbed: configurations and the indexes of their items. The runner has run none of them before.
        counted: see `Measurer.measure`.
    """
    if not disturbed or busy_share() > PROFILING.quiet_share:
        return False
    for done, (configuration, items) in enumerate(disturbed, start=1):
        with suppress(MeasurementError):
            for begin in range(0, len(items), PROFILING.increment):
                if budget.remaining_s <= 0:
                    return True
                measurer.repeat(configuration, items[begin : begin + PROFILING.increment], counted=counted)
        elapsed_s = budget.elapsed_s
        rest_s = min(elapsed_s / done * (len(disturbed) - done), budget.remaining_s)
        progress = ("disturbed runs", configuration, done, len(disturbed), elapsed_s, rest_s)
        observer.progressed(ProfileProgress(*progress))
    return True


def _profiling_loop(
    stored: _StoredPipeline,
    stored_profile: PipelineProfile,
    measurer: Measurer,
    budget: TimeBudget,
    observer: ProfileObserver,
    failed: Collection[Configuration],
) -> ProfilingLoop:
    """Create the profiling loop, which resumes from the stored profile and tries no `failed` configuration."""
    store, keys, dataset, slos, explorer = stored.store, stored.keys, stored.dataset, stored.slos, stored.explorer
    pipeline = keys.pipeline
    measured_before = stored_profile.configurations
    if explorer is None:
        candidates = prefix_order(pipeline)
    else:
        started = [entry.configuration for entry in measured_before]
        started += [failure.configuration for failure in stored_profile.failed]
        covering_design = explorer.initial_design(load_source_scores(store, keys, dataset))
        unstarted = [configuration for configuration in covering_design if configuration not in started]
        candidates = in_prefix_order(
            pipeline, [*started, *unstarted[: max(max_measured_configurations(pipeline) - len(started), 0)]]
        )
    time_estimator = MeasurementTimeEstimator(keys)
    for measured in measured_before:
        service_s = {name: operator.service_s.tolist() for name, operator in measured.operators.items()}
        time_estimator.add_service_times(measured.configuration, service_s)
    measurer.register([measured.configuration for measured in measured_before])
    confidence = run_confidence(keys, dataset, slos, len(candidates), with_references=explorer is None)
    race = ConfigurationRace(candidates, confidence, slos, with_references=explorer is None)
    for configuration in filter(race.has, failed):
        race.mark_failed(configuration)
    order = dataset.profiling_items(pipeline)
    allocations = AllocationProfiler(store, keys, measurer, order, race, time_estimator, budget, observer)

    def resource_usage() -> ResourceUsage:
        max_items = None if class_machines(store) else PROFILING.usage_items
        measurements = StoredMeasurements(store, keys, dataset, race.configurations, max_items)
        return measurements.resource_usage(race.configurations, slos.hardware)

    def current_profile() -> PipelineProfile:
        current = stored.profile()
        # Failures of earlier runs are retried.
        return replace(current, failed=tuple(f for f in current.failed if race.failed(f.configuration)))

    return ProfilingLoop(
        measurer, order, race, resource_usage, allocations, time_estimator, budget, observer, explorer, current_profile
    )
