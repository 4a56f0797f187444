"""Recording of held-out items for replay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from circinus.errors import ProfileError
from circinus.operators.process_output import output_folder
from circinus.profiling.dataset.items import Dataset
from circinus.profiling.measurement.backend import LocalBackend
from circinus.profiling.measurement.measurer import Measurer
from circinus.profiling.measurement.recordings import Recordings, disturbed_items, load_recordings
from circinus.profiling.measurement.runner import MeasurementError
from circinus.profiling.observer import ProfileObserver, ProfileProgress, SilentObserver, TimeBudget
from circinus.profiling.profiler import operator_timeout_s, repeat_disturbed
from circinus.profiling.race.configuration_order import in_prefix_order
from circinus.profiling.settings import PROFILING
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import coverage
from circinus.specification import Configuration, Pipeline, Specification, has_knob_values, prefix_configuration


def record_for_replay(
    specification: Specification,
    pipeline_name: str,
    store: Path,
    *,
    configurations: Sequence[Configuration],
    items_count: int | None = None,
    seed: int = 0,
    observer: ProfileObserver | None = None,
    repeats_disturbed: bool = False,
) -> Recordings:
    """Record configurations on all or at most `items_count` held-out items (`Dataset.traffic_items`), for replay.

    Stored measurements are reused. An item on which one of the configurations fails is reported to the observer and
    excluded. Profiles ignore held-out items. With `repeats_disturbed`, stored runs that other programs disturbed are
    repeated first, if the machine is quiet.

    Raises:
        KeyboardInterrupt: the recording was interrupted; everything committed is retained, and the next call resumes.
        ProfileError: no item succeeds under all configurations, a configuration does not belong to the pipeline, or see
            `profile_pipeline`.
        OperatorError: see `profile_pipeline`.
    """
    backend, observer = LocalBackend(specification.module_paths, output_folder(store)), observer or SilentObserver()
    pipeline, budget = specification.pipelines[pipeline_name], TimeBudget(None, backend.clock)
    keys, dataset = backend.addresses(pipeline, backend.machine), backend.dataset(pipeline, seed)
    indexes = dataset.traffic_items(items_count)
    ordered = _in_prefix_order(pipeline, configurations)
    total, done, failed = len(ordered) * len(indexes), 0, set[int]()
    with (
        ProfileStore(store, create=True) as opened,
        backend.runner(keys, timeout_s=operator_timeout_s(None)) as runner,
    ):
        measurer = Measurer(opened, keys, dataset, runner, backend.scorer(pipeline))
        if repeats_disturbed:
            disturbed = _disturbed(opened, keys, dataset, indexes, ordered)
            repeat_disturbed(measurer, disturbed, budget, observer, counted=False)
        for begin in range(0, len(indexes), PROFILING.increment):
            for configuration in ordered:
                increment = [i for i in indexes[begin : begin + PROFILING.increment] if i not in failed]
                failed.update(_record(measurer, configuration, increment, observer))
                done += len(indexes[begin : begin + PROFILING.increment])
                elapsed_s = budget.elapsed_s
                observer.progressed(
                    ProfileProgress(
                        phase="held-out items",
                        configuration=configuration,
                        done=done,
                        total=total,
                        elapsed_s=elapsed_s,
                        remaining_s=elapsed_s / done * (total - done),
                    )
                )
        measurer.register(ordered)
    prefixes = [prefix_configuration(pipeline, c, operator.name) for c in ordered for operator in pipeline.operators]
    return load_recordings(store, pipeline_name, prefixes)


def _disturbed(
    store: ProfileStore,
    keys: MeasurementKeys,
    dataset: Dataset,
    indexes: Sequence[int],
    configurations: Sequence[Configuration],
) -> list[tuple[Configuration, Sequence[int]]]:
    """Return the configurations with disturbed recordings, and the indexes of these items."""
    ids = store.existing_ids([dataset.addresses[i] for i in indexes])
    item_ids = np.array([ids[dataset.addresses[i]] for i in indexes], dtype=np.int64)
    disturbed: list[tuple[Configuration, Sequence[int]]] = []
    for configuration in configurations:
        services = [keys.service(operator.name, configuration) for operator in keys.pipeline.operators]
        recorded, _ = coverage(store, keys, configuration, item_ids)
        items = np.asarray(indexes)[recorded & disturbed_items(store, services, item_ids)].tolist()
        if items:
            disturbed.append((configuration, items))
    return disturbed


def _in_prefix_order(pipeline: Pipeline, configurations: Sequence[Configuration]) -> list[Configuration]:
    unknown = [c for c in configurations if not all(has_knob_values(o, c[o.name]) for o in pipeline.operators)]
    if unknown:
        raise ProfileError(
            f"the pipeline has no configuration {unknown[0]}; the specification has changed since it was planned",
            code="recording.unknown_configuration",
            location=f"pipeline {pipeline.name}",
            hint="Run `circinus plan` again.",
        )
    return list(in_prefix_order(pipeline, set(configurations)))


def _record(
    measurer: Measurer, configuration: Configuration, indexes: Sequence[int], observer: ProfileObserver
) -> set[int]:
    """Measure as many items as possible, and return the failed ones."""
    if not indexes:
        return set()
    try:
        measurer.measure(configuration, indexes, counted=False)
    except MeasurementError as error:
        if len(indexes) > 1:
            return set().union(*(_record(measurer, configuration, [index], observer) for index in indexes))
        observer.failed(error.failure)
        return set(indexes)
    return set()
