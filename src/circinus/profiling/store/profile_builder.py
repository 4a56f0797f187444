"""From what the store holds to the profile of a pipeline."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from circinus.profiling.hardware.class_times import class_machines
from circinus.profiling.interval import Interval
from circinus.profiling.measurement.time_estimator import measurement_cost_model
from circinus.profiling.profile import FailedConfiguration, PipelineProfile
from circinus.profiling.race.configuration_order import in_prefix_order, max_measured_configurations, prefix_order
from circinus.profiling.race.configuration_race import ConfigurationRace
from circinus.profiling.race.run_confidence import RunConfidence
from circinus.profiling.race.sampler import ConfigurationSampler
from circinus.profiling.race.slo_requirements import PipelineSlos
from circinus.profiling.store.measurement_keys import LOCAL, MeasurementKeys
from circinus.profiling.store.pipeline_versions import scored_configurations
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import StoredDataset, read_effort, read_failures
from circinus.profiling.store.stored_measurements import StoredMeasurements
from circinus.profiling.store.transfer_sources import SourceScores, load_source_scores
from circinus.specification import Configuration, configuration_count


def build_profile(
    store: ProfileStore,
    addresses: MeasurementKeys,
    dataset: StoredDataset,
    objectives: PipelineSlos,
    *,
    with_verdicts: bool = False,
    interrupted: bool = False,
    explorer: ConfigurationSampler | None = None,
    bounds: dict[tuple[Configuration, int], Interval] | None = None,
    exhausted: Collection[Configuration] = (),
) -> PipelineProfile:
    """Put together what is known of a pipeline on a data set.

    Args:
        store: has it.
        addresses: of the pipeline.
        dataset: the data set.
        objectives: what the queries ask.
        with_verdicts: whether to say of every configuration what is decided, too, which takes longer.
        interrupted: what the profile says of itself.
        explorer: who says which configurations are worth measuring; None: all are.
        bounds: (configuration, items) -> bounds that were computed before in the same run; gets the new ones.
        exhausted: configurations that cannot be measured further, as the run found.
    """
    pipeline = addresses.pipeline
    scored = scored_configurations(store, addresses)
    measurements = StoredMeasurements(store, addresses, dataset, scored)
    beginnings = {configuration: measurements.measured_prefix(configuration) for configuration in scored}
    # A failure on other items, or of somebody else's attempt, takes nothing away where all that is asked is known.
    unfinished = [configuration for configuration, n in beginnings.items() if n < measurements.most_items]
    failures = _failures(store, addresses, unfinished)
    failed = {failure.configuration for failure in failures}
    measured = [(configuration, n) for configuration, n in beginnings.items() if n and configuration not in failed]
    confidence = measurements.confidence(
        objectives, max(max_measured_configurations(pipeline), len(scored)), comparing=explorer is None
    )
    bounds = {} if bounds is None else bounds
    bounds |= _accuracies(measurements, [pair for pair in measured if pair not in bounds], confidence)
    profiles = tuple(measurements.profile(*pair, bounds[pair]) for pair in measured)
    ran_s, saved_s = read_effort(
        store,
        store.existing_ids(
            [addresses.profiling_time(c) for c in scored]
            + [addresses.replica(o.name, c[o.name]) for c in scored for o in pipeline.operators]
        ).values(),
    )
    profile = PipelineProfile(
        pipeline=pipeline.name,
        dataset_fingerprint=dataset.fingerprint,
        dataset_items=len(dataset.numbers),
        held_out_items=len(dataset.numbers) - measurements.most_items,
        hardware_class=LOCAL,
        machine=addresses.machine,
        on_pool=not addresses.origin and addresses.machine in class_machines(store).get(LOCAL, ()),
        risk=objectives.risk,
        configurations=profiles,
        unmeasured=configuration_count(pipeline) - len(measured) - len(failed),
        profiled_s=ran_s,
        saved_s=saved_s,
        code_versions={} if addresses.origin else addresses.versions(),
        failed=failures,
        interrupted=interrupted,
    )
    if not with_verdicts:
        return profile
    earlier = () if explorer is None else load_source_scores(store, addresses, dataset)
    return _judged(measurements, profile, addresses, objectives, confidence, explorer, earlier, exhausted)


def _failures(
    store: ProfileStore, addresses: MeasurementKeys, scored: Sequence[Configuration]
) -> tuple[FailedConfiguration, ...]:
    known = store.existing_ids([addresses.score(configuration) for configuration in scored])
    found = read_failures(store, list(known.values()))
    subjects = {configuration: known[addresses.score(configuration)] for configuration in scored}
    return tuple(FailedConfiguration(c, *found[number]) for c, number in subjects.items() if number in found)


def _accuracies(
    measurements: StoredMeasurements, measured: Sequence[tuple[Configuration, int]], confidence: RunConfidence
) -> Mapping[tuple[Configuration, int], Interval]:
    """Bounds of all configurations; those with equally many items are computed together."""
    found: dict[tuple[Configuration, int], Interval] = {}
    for items in {n for _, n in measured}:
        group = [configuration for configuration, n in measured if n == items]
        scores = np.stack([measurements.scores(configuration, items) for configuration in group])
        found.update(zip([(c, items) for c in group], confidence.bounds(scores), strict=True))
    return found


def _judged(
    measurements: StoredMeasurements,
    profile: PipelineProfile,
    addresses: MeasurementKeys,
    objectives: PipelineSlos,
    confidence: RunConfidence,
    explorer: ConfigurationSampler | None,
    earlier: Sequence[SourceScores],
    exhausted: Collection[Configuration],
) -> PipelineProfile:
    """With what is decided of the configurations that were measured, or are to be whatever others show."""
    known = [*(found.configuration for found in profile.configurations), *(f.configuration for f in profile.failed)]
    to_begin = explorer.initial_design(earlier) if explorer is not None else prefix_order(addresses.pipeline)
    looked_at = in_prefix_order(addresses.pipeline, {*known, *to_begin})
    standings = ConfigurationRace(looked_at, confidence, objectives, comparing=explorer is None)
    for failure in profile.failed:
        standings.mark_failed(failure.configuration)
    for found in profile.configurations:
        standings.update_scores(found.configuration, found.scores)
    standings.update_usage(measurements.footprints(looked_at, objectives.hardware))
    if explorer is None:
        return replace(profile, verdicts=standings.verdicts())
    expected_s = measurement_cost_model(addresses.pipeline, profile)
    assessment = explorer.suggest(profile, lambda c, items: math.inf if c in exhausted else expected_s(c, items))
    standings.prune(assessment.pruned)
    return replace(profile, verdicts=standings.verdicts(), certificate=assessment.certificate)
