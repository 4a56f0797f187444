"""Recording what a replay answers with, on items that planning never saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from circinus.errors import ProfileError
from circinus.profiling.budget import TimeBudget
from circinus.profiling.dataset.items import load_dataset
from circinus.profiling.dataset.scorer import Scorer
from circinus.profiling.hardware.machine import current_machine
from circinus.profiling.measurement.local_runner import LocalRunner
from circinus.profiling.measurement.measurer import Measurer
from circinus.profiling.measurement.recordings import Recordings, load_recordings
from circinus.profiling.measurement.runner import MeasurementError
from circinus.profiling.observer import ProfileObserver, ProfileProgress, SilentObserver
from circinus.profiling.race.configuration_order import in_prefix_order
from circinus.profiling.store.measurement_keys import MeasurementKeys, pipeline_code
from circinus.profiling.store.profile_store import ProfileStore
from circinus.specification import Configuration, Pipeline, Specification, has_knob_values, prefix_configuration

_INCREMENT = 8


def record_for_replay(
    specification: Specification,
    pipeline_name: str,
    store: Path,
    *,
    configurations: Sequence[Configuration],
    items_count: int,
    seed: int = 0,
    observer: ProfileObserver | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Recordings:
    """Record the given configurations on at most `items_count` held-out items (`Dataset.for_traffic`), for replay.

    What the store knows is not measured again. An item on which one of the configurations fails is told to the observer
    and left out. A profile takes no notice of held-out items.

    Raises:
        KeyboardInterrupt: as it comes; what was committed stays and the next call goes on from there.
        ProfileError: there is no item on which all configurations succeed, one of them is none of the pipeline's, or as
            `profile_pipeline`.
        OperatorError: as `profile_pipeline`.
    """
    budget = TimeBudget(None, clock)
    observer = observer or SilentObserver()
    pipeline, module_paths = specification.pipelines[pipeline_name], specification.module_paths
    addresses = MeasurementKeys(pipeline, pipeline_code(pipeline, module_paths), machine=current_machine())
    dataset = load_dataset(pipeline, module_paths, seed=seed)
    indexes = dataset.traffic_items(items_count)
    wanted = _in_prefix_order(pipeline, configurations)
    total, done, failed = len(wanted) * len(indexes), 0, set[int]()
    with ProfileStore(store, create=True) as opened, LocalRunner(addresses, module_paths) as runner:
        measurer = Measurer(opened, addresses, dataset, runner, Scorer(pipeline, module_paths))
        for begin in range(0, len(indexes), _INCREMENT):
            for configuration in wanted:
                increment = [i for i in indexes[begin : begin + _INCREMENT] if i not in failed]
                failed.update(_record(measurer, configuration, increment, observer))
                done += len(indexes[begin : begin + _INCREMENT])
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
        measurer.register(wanted)
    prefixes = [prefix_configuration(pipeline, c, operator.name) for c in wanted for operator in pipeline.operators]
    return load_recordings(store, pipeline_name, prefixes)


def _in_prefix_order(pipeline: Pipeline, wanted: Sequence[Configuration]) -> list[Configuration]:
    unknown = [c for c in wanted if not all(has_knob_values(o, c[o.name]) for o in pipeline.operators)]
    if unknown:
        raise ProfileError(
            f"pipeline {pipeline.name} has no configuration {unknown[0]}; the specification has changed since it was "
            "chosen: plan again"
        )
    return list(in_prefix_order(pipeline, set(wanted)))


def _record(
    measurer: Measurer, configuration: Configuration, indexes: Sequence[int], observer: ProfileObserver
) -> set[int]:
    """Measure what can be measured, and give the items that cannot."""
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
