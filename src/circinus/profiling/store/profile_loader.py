"""Profiles of pipelines from stored measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from circinus.errors import ProfileError
from circinus.profiling.hardware.class_times import class_machines
from circinus.profiling.hardware.machine import current_machine
from circinus.profiling.measurement.backend import LocalBackend, MeasurementBackend
from circinus.profiling.profile import PipelineProfile, StoppingCertificate
from circinus.profiling.race.configuration_order import in_prefix_order, prefix_order
from circinus.profiling.race.configuration_race import ConfigurationRace
from circinus.profiling.race.run_confidence import RunConfidence
from circinus.profiling.race.sampler import ConfigurationSampler, SamplerDecision
from circinus.profiling.race.slo_requirements import PipelineSlos
from circinus.profiling.store.measurement_keys import LOCAL, MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import (
    StoredDataset,
    failed_configurations,
    read_dataset,
    read_effort,
    read_machines,
    scored_configurations,
)
from circinus.profiling.store.stored_measurements import StoredMeasurements, run_confidence
from circinus.profiling.store.stored_verdicts import with_stored_verdicts
from circinus.profiling.store.transfer_sources import SourceScores, load_source_scores
from circinus.specification import Configuration, Specification, configuration_count
from circinus.statistics.interval import Interval


@dataclass(frozen=True)
class LoadedProfile:
    """Profile with its keys and data set in the store."""

    profile: PipelineProfile
    addresses: MeasurementKeys
    dataset: StoredDataset


def load_profile(
    specification: Specification,
    pipeline_name: str,
    store: Path,
    *,
    seed: int = 0,
    source: MeasurementBackend | None = None,
    from_other_machines: bool = False,
    with_verdicts: bool = False,
    explorer: ConfigurationSampler | None = None,
) -> PipelineProfile:
    """Load the profile of a pipeline with its current specification and code.

    Neither the data set is built nor a model loaded: the data set is assumed to equal the one that its code and
    arguments built at the last measurement. Measurements of this machine come first, unless the last profile was
    measured on a pool's node of class `local`, which then comes first. Without either, those of another machine are
    loaded (`PipelineProfile.machine`). Machines are never mixed.

    Args:
        seed: random seed of the measurement order.
        source: measurement backend; default: the operators.
        from_other_machines: whether to exclude measurements of this machine.
        with_verdicts: whether to add the verdicts of all configurations (`PipelineProfile.verdicts`).
        explorer: sampler that selected the configurations to measure; default: all. Verdicts rest on its decision of
            the last run, and on none where measurements, SLOs or infrastructure have changed since.

    Raises:
        ProfileError: the store is missing, or has no measurement of the current version of the pipeline.
        OperatorError: an operator, metric or data set cannot be found.
    """
    with ProfileStore(store) as opened:
        return read_profile(
            opened,
            specification,
            pipeline_name,
            seed,
            source,
            from_other_machines=from_other_machines,
            with_verdicts=with_verdicts,
            explorer=explorer,
        ).profile


def read_profile(
    store: ProfileStore,
    specification: Specification,
    pipeline_name: str,
    seed: int,
    source: MeasurementBackend | None = None,
    *,
    from_other_machines: bool = False,
    with_verdicts: bool = False,
    explorer: ConfigurationSampler | None = None,
) -> LoadedProfile:
    """Load a profile from an open store (see `load_profile`)."""
    source = source or LocalBackend(specification.module_paths)
    pipeline = specification.pipelines[pipeline_name]
    slos = PipelineSlos.of(specification, pipeline_name)
    failed_only = None
    # If the last profile was measured on a node of class `local`, it represents the pools of that class.
    on_pools = class_machines(store).get(LOCAL, ()) if isinstance(source, LocalBackend) else ()
    machines = dict.fromkeys((*on_pools, source.machine, *read_machines(store), None))
    for machine in (machine for machine in machines if not from_other_machines or machine != current_machine()):
        keys = source.addresses(pipeline, machine)
        dataset = read_dataset(store, keys.dataset(), seed)
        if dataset is None:
            break
        profile = build_profile(
            store,
            keys,
            dataset,
            slos,
            with_verdicts=with_verdicts,
            explorer=explorer,
            stored_for=specification,
        )
        loaded = LoadedProfile(profile, keys, dataset)
        if profile.configurations:
            return loaded
        if profile.failed and failed_only is None:
            failed_only = loaded
    if failed_only is None:
        elsewhere = " on another machine" if from_other_machines else ""
        command = "circinus profile" if isinstance(source, LocalBackend) else "circinus profile --trace"
        raise ProfileError(
            f"no measurement of pipeline {pipeline_name}{elsewhere} with its current operators, metric and data set "
            f"(order of items: seed {seed})",
            code="profile.not_measured",
            location=str(store.path),
            hint=f"Run `{command}`{elsewhere}.",
        )
    return failed_only


def build_profile(
    store: ProfileStore,
    keys: MeasurementKeys,
    dataset: StoredDataset,
    slos: PipelineSlos,
    *,
    with_verdicts: bool = False,
    interrupted: bool = False,
    explorer: ConfigurationSampler | None = None,
    bounds: dict[tuple[Configuration, int], Interval] | None = None,
    stored_for: Specification | None = None,
    decision: SamplerDecision | None = None,
) -> PipelineProfile:
    """Build the profile of a pipeline on a data set.

    Args:
        with_verdicts: whether to add the verdicts of all configurations, which takes longer.
        explorer: sampler that selects the configurations to measure; default: all.
        bounds: cache (configuration, items) -> bounds of the same run, which is extended.
        stored_for: specification whose stored verdicts are used, if the store has them; by default they are computed.
        decision: decision of the explorer after the run; without one nothing is pruned, and no certificate is computed.
    """
    pipeline = keys.pipeline
    scored = scored_configurations(store, keys)
    measurements = StoredMeasurements(store, keys, dataset, scored)
    prefix_lengths = {configuration: measurements.measured_prefix(configuration) for configuration in scored}
    # A failure on other items, or of another process, is irrelevant if all profiling items are measured.
    unfinished = [configuration for configuration, n in prefix_lengths.items() if n < measurements.max_items]
    failures = failed_configurations(store, keys, unfinished)
    failed = {failure.configuration for failure in failures}
    measured = [(configuration, n) for configuration, n in prefix_lengths.items() if n and configuration not in failed]
    confidence = run_confidence(keys, dataset, slos, len(scored), with_references=explorer is None)
    bounds = {} if bounds is None else bounds
    bounds |= _accuracies(measurements, [pair for pair in measured if pair not in bounds], confidence)
    profiles = tuple(measurements.profile(*pair, bounds[pair]) for pair in measured)
    ran_s, saved_s = read_effort(
        store,
        [keys.profiling_time(c) for c in scored]
        + [keys.replica(o.name, c[o.name]) for c in scored for o in pipeline.operators],
    )
    profile = PipelineProfile(
        pipeline=pipeline.name,
        dataset_fingerprint=dataset.fingerprint,
        dataset_items=len(dataset.item_ids),
        held_out_items=len(dataset.item_ids) - measurements.max_items,
        hardware_class=LOCAL,
        machine=keys.machine,
        on_pool=not keys.origin and keys.machine in class_machines(store).get(LOCAL, ()),
        risk=slos.risk,
        stands_for=pipeline.dataset.population,
        configurations=profiles,
        unmeasured=configuration_count(pipeline) - len(measured) - len(failed),
        profiled_s=ran_s,
        saved_s=saved_s,
        code_versions={} if keys.origin else keys.versions(),
        failed=failures,
        interrupted=interrupted,
    )
    if not with_verdicts and not profile.unmeasured:
        return profile
    stored = None if stored_for is None else with_stored_verdicts(store, keys, stored_for, profile)
    if not with_verdicts:
        return profile if stored is None else replace(profile, certificate=stored.certificate)
    if stored is not None and explorer is not None:
        return stored
    source_scores = () if explorer is None else load_source_scores(store, keys, dataset)
    return _with_verdicts(measurements, profile, keys, slos, confidence, explorer, source_scores, decision)


def _accuracies(
    measurements: StoredMeasurements, measured: Sequence[tuple[Configuration, int]], confidence: RunConfidence
) -> Mapping[tuple[Configuration, int], Interval]:
    """Return the bounds of all configurations; those with equally many items are computed in one batch."""
    accuracies: dict[tuple[Configuration, int], Interval] = {}
    for items in {n for _, n in measured}:
        group = [configuration for configuration, n in measured if n == items]
        scores = np.stack([measurements.scores(configuration, items) for configuration in group])
        accuracies.update(zip([(c, items) for c in group], confidence.bounds(scores), strict=True))
    return accuracies


def _with_verdicts(
    measurements: StoredMeasurements,
    profile: PipelineProfile,
    keys: MeasurementKeys,
    slos: PipelineSlos,
    confidence: RunConfidence,
    explorer: ConfigurationSampler | None,
    source_scores: Sequence[SourceScores],
    decision: SamplerDecision | None,
) -> PipelineProfile:
    """Return the profile with verdicts of all configurations that were or are to be measured in any case."""
    started = [*(c.configuration for c in profile.configurations), *(f.configuration for f in profile.failed)]
    initial = explorer.initial_design(source_scores) if explorer is not None else prefix_order(keys.pipeline)
    candidates = in_prefix_order(keys.pipeline, {*started, *initial})
    race = ConfigurationRace(candidates, confidence, slos, with_references=explorer is None)
    for failure in profile.failed:
        race.mark_failed(failure.configuration)
    for measured in profile.configurations:
        race.update_scores(measured.configuration, measured.scores)
    race.update_usage(measurements.resource_usage(candidates, slos.hardware))
    certificate = None
    if decision is not None:
        race.prune(decision.pruned)
        certificate = decision.certificate
    elif explorer is not None:
        is_complete = not profile.unmeasured and all(len(c.items) == profile.population for c in profile.configurations)
        certificate = StoppingCertificate.without_estimate(
            profile.unmeasured, conclusive=is_complete, is_complete=is_complete
        )
    bounds = {measured.configuration: measured.accuracy for measured in profile.configurations}
    return replace(profile, verdicts=race.verdicts(bounds), certificate=certificate)
