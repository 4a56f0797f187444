"""Measuring a pipeline: as little as settles the queries' objectives, within a time budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from circinus.errors import ProfileError
from circinus.profiling.budget import TimeBudget
from circinus.profiling.dataset.items import Dataset
from circinus.profiling.hardware.class_times import write_profiling_machine
from circinus.profiling.interval import Interval
from circinus.profiling.measurement.allocation_profiler import AllocationProfiler
from circinus.profiling.measurement.backend import LocalBackend, MeasurementBackend
from circinus.profiling.measurement.measurer import Measurer
from circinus.profiling.measurement.time_estimator import MeasurementTimeEstimator
from circinus.profiling.observer import ProfileObserver, SilentObserver
from circinus.profiling.profile import PipelineProfile
from circinus.profiling.race.configuration_order import in_prefix_order, max_measured_configurations, prefix_order
from circinus.profiling.race.configuration_race import ConfigurationRace
from circinus.profiling.race.profiling_loop import ProfilingLoop
from circinus.profiling.race.resource_usage import ResourceUsage
from circinus.profiling.race.run_confidence import RunConfidence
from circinus.profiling.race.sampler import ConfigurationSampler
from circinus.profiling.race.slo_requirements import PipelineSlos
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.store.profile_builder import build_profile
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import StoredDataset, read_dataset
from circinus.profiling.store.stored_measurements import StoredMeasurements
from circinus.profiling.store.transfer_sources import load_source_scores
from circinus.specification import Configuration, Specification

LEAST_PATIENCE_S = 60.0
MOST_PATIENCE_S = 600.0
"""Bounds of the time that an operator may take to load or to process an item before it has failed."""


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
) -> PipelineProfile:
    """Measure the configurations of a pipeline until all are settled or the budget is spent.

    What the store knows is not measured again, failures excepted. Ctrl-C ends it early: the result then says
    `interrupted`, and the next call goes on where this one ended.

    Args:
        specification: has the pipeline and the queries whose accuracy objectives are to be settled.
        pipeline_name: which pipeline.
        store: file; made if there is none.
        budget_s: seconds to spend, exceeded by at most one increment of one configuration; None: no limit.
        seed: of the order of the items.
        observer: is told of progress and failures.
        clock: seconds that pass; None: those of the source.
        source: where measurements come from; None: the operators, run on this machine.
        explorer: says which configurations are worth measuring (`circinus.planning.explore`); None: all are.
        exhaustive: measure every configuration on every item that may be profiled, whatever the queries ask.

    Raises:
        ProfileError: a score outside the metric's range, an unusable data set, a store that cannot be used.
        OperatorError: an operator, metric or data set cannot be found.
    """
    source = source or LocalBackend(specification.module_paths)
    budget = TimeBudget(budget_s, clock or source.clock)
    observer = observer or SilentObserver()
    pipeline = specification.pipelines[pipeline_name]
    addresses = source.addresses(pipeline, source.machine)
    dataset = source.dataset(pipeline, seed)
    objectives = PipelineSlos.of(specification, pipeline_name)
    interrupted, ended = False, frozenset[Configuration]()
    with (
        ProfileStore(store, create=True) as opened,
        source.runner(addresses, timeout_s=operator_timeout_s(budget_s)) as runner,
    ):
        measurer = Measurer(opened, addresses, dataset, runner, source.scorer(pipeline))
        write_profiling_machine(opened, addresses)
        stored = read_dataset(opened, addresses.dataset(), seed)
        if stored is None:
            raise ProfileError(f"{store}: the data set of pipeline {pipeline_name} was not stored; measure again")
        try:
            asked = None if exhaustive else explorer
            rounds = _rounds(opened, measurer, addresses, dataset, stored, objectives, budget, observer, asked)
            try:
                if exhaustive:
                    rounds.run_exhaustively()
                else:
                    rounds.run()
            finally:
                ended = rounds.exhausted
        except KeyboardInterrupt:
            interrupted = True
        return build_profile(
            opened,
            addresses,
            stored,
            objectives,
            with_verdicts=True,
            interrupted=interrupted,
            explorer=explorer,
            exhausted=ended,
        )


def operator_timeout_s(budget_s: float | None) -> float:
    """How long an operator may take: what takes longer than the whole budget cannot be measured within it, and the rest
    shall not wait for it."""
    return MOST_PATIENCE_S if budget_s is None else min(MOST_PATIENCE_S, max(LEAST_PATIENCE_S, budget_s))


def _rounds(
    store: ProfileStore,
    measurer: Measurer,
    addresses: MeasurementKeys,
    dataset: Dataset,
    stored: StoredDataset,
    objectives: PipelineSlos,
    budget: TimeBudget,
    observer: ProfileObserver,
    explorer: ConfigurationSampler | None,
) -> ProfilingLoop:
    """A measurement that goes on from what the store knows."""
    pipeline = addresses.pipeline
    bounds: dict[tuple[Configuration, int], Interval] = {}
    profile = build_profile(store, addresses, stored, objectives, bounds=bounds, explorer=explorer)
    known = profile.configurations
    if explorer is None:
        looked_at = prefix_order(pipeline)
    else:
        begun = [*(c.configuration for c in known), *(failure.configuration for failure in profile.failed)]
        cover = explorer.initial_design(load_source_scores(store, addresses, stored))
        new = [configuration for configuration in cover if configuration not in begun]
        looked_at = in_prefix_order(
            pipeline, [*begun, *new[: max(max_measured_configurations(pipeline) - len(begun), 0)]]
        )
    pace = MeasurementTimeEstimator(addresses)
    for measured in known:
        pace.known(measured.configuration, {n: o.service_s.tolist() for n, o in measured.operators.items()})
    measurer.register([measured.configuration for measured in known])
    strata = [dataset.items[index].strata for index in dataset.profiling_items]
    confidence = RunConfidence.of_run(
        pipeline.metric,
        strata,
        objectives.risk,
        max(
            max_measured_configurations(pipeline), len(looked_at)
        ),  # more than that may have been measured by several at once
        objectives.latency_percentiles,
        comparing=explorer is None,
    )
    standings = ConfigurationRace(looked_at, confidence, objectives, comparing=explorer is None)
    order = np.array(dataset.profiling_items, dtype=np.int64)
    allocations = AllocationProfiler(store, addresses, measurer, order, standings, pace, budget, observer)

    def footprints() -> ResourceUsage:
        measurements = StoredMeasurements(store, addresses, stored, standings.configurations)
        return measurements.footprints(standings.configurations, objectives.hardware)

    def known_now() -> PipelineProfile:
        found = build_profile(store, addresses, stored, objectives, bounds=bounds, explorer=explorer)
        # What failed in an earlier run is tried again.
        return replace(found, failed=tuple(f for f in found.failed if standings.failed(f.configuration)))

    return ProfilingLoop(
        measurer, order, standings, footprints, allocations, pace, budget, observer, explorer, known_now
    )
