"""From what the store holds to the profile of a pipeline."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from circinus.profiling.addresses import LOCAL, Addresses
from circinus.profiling.bounded import Bounded
from circinus.profiling.class_times import class_machines
from circinus.profiling.confidence import Confidence
from circinus.profiling.earlier import EarlierScores, earlier_scores
from circinus.profiling.explorer import Explorer
from circinus.profiling.known_seconds import known_seconds
from circinus.profiling.listing import in_prefix_order, most_measured, prefix_order
from circinus.profiling.measurements import Measurements
from circinus.profiling.objectives import Objectives
from circinus.profiling.profile import FailedConfiguration, PipelineProfile
from circinus.profiling.standings import Standings
from circinus.profiling.store import ProfileStore
from circinus.profiling.stored import StoredDataset, read_effort, read_failures
from circinus.profiling.variants import scored_configurations
from circinus.spec import Configuration, configuration_count


def read_profile(
    store: ProfileStore,
    addresses: Addresses,
    dataset: StoredDataset,
    objectives: Objectives,
    *,
    judged: bool = False,
    interrupted: bool = False,
    explorer: Explorer | None = None,
    bounds: dict[tuple[Configuration, int], Bounded] | None = None,
    ended: Collection[Configuration] = (),
) -> PipelineProfile:
    """Put together what is known of a pipeline on a data set.

    Args:
        store: has it.
        addresses: of the pipeline.
        dataset: the data set.
        objectives: what the queries ask.
        judged: whether to say of every configuration what is decided, too, which takes longer.
        interrupted: what the profile says of itself.
        explorer: who says which configurations are worth measuring; None: all are.
        bounds: (configuration, items) -> bounds that were computed before in the same run; gets the new ones.
        ended: configurations that cannot be measured further, as the run found.
    """
    pipeline = addresses.pipeline
    scored = scored_configurations(store, addresses)
    measurements = Measurements(store, addresses, dataset, scored)
    beginnings = {configuration: measurements.beginning(configuration) for configuration in scored}
    # A failure on other items, or of somebody else's attempt, takes nothing away where all that is asked is known.
    unfinished = [configuration for configuration, n in beginnings.items() if n < measurements.most_items]
    failures = _failures(store, addresses, unfinished)
    failed = {failure.configuration for failure in failures}
    measured = [(configuration, n) for configuration, n in beginnings.items() if n and configuration not in failed]
    confidence = measurements.confidence(
        objectives, max(most_measured(pipeline), len(scored)), comparing=explorer is None
    )
    bounds = {} if bounds is None else bounds
    bounds |= _accuracies(measurements, [pair for pair in measured if pair not in bounds], confidence)
    profiles = tuple(measurements.profile(*pair, bounds[pair]) for pair in measured)
    ran_s, saved_s = read_effort(
        store,
        store.known_numbers(
            [addresses.effort(c) for c in scored]
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
    if not judged:
        return profile
    earlier = () if explorer is None else earlier_scores(store, addresses, dataset)
    return _judged(measurements, profile, addresses, objectives, confidence, explorer, earlier, ended)


def _failures(
    store: ProfileStore, addresses: Addresses, scored: Sequence[Configuration]
) -> tuple[FailedConfiguration, ...]:
    known = store.known_numbers([addresses.score(configuration) for configuration in scored])
    found = read_failures(store, list(known.values()))
    subjects = {configuration: known[addresses.score(configuration)] for configuration in scored}
    return tuple(FailedConfiguration(c, *found[number]) for c, number in subjects.items() if number in found)


def _accuracies(
    measurements: Measurements, measured: Sequence[tuple[Configuration, int]], confidence: Confidence
) -> Mapping[tuple[Configuration, int], Bounded]:
    """Bounds of all configurations; those with equally many items are computed together."""
    found: dict[tuple[Configuration, int], Bounded] = {}
    for items in {n for _, n in measured}:
        group = [configuration for configuration, n in measured if n == items]
        scores = np.stack([measurements.scores(configuration, items) for configuration in group])
        found.update(zip([(c, items) for c in group], confidence.bounds(scores), strict=True))
    return found


def _judged(
    measurements: Measurements,
    profile: PipelineProfile,
    addresses: Addresses,
    objectives: Objectives,
    confidence: Confidence,
    explorer: Explorer | None,
    earlier: Sequence[EarlierScores],
    ended: Collection[Configuration],
) -> PipelineProfile:
    """With what is decided of the configurations that were measured, or are to be whatever others show."""
    known = [*(found.configuration for found in profile.configurations), *(f.configuration for f in profile.failed)]
    to_begin = explorer.cover(earlier) if explorer is not None else prefix_order(addresses.pipeline)
    looked_at = in_prefix_order(addresses.pipeline, {*known, *to_begin})
    standings = Standings(looked_at, confidence, objectives, comparing=explorer is None)
    for failure in profile.failed:
        standings.fail(failure.configuration)
    for found in profile.configurations:
        standings.learn(found.configuration, found.scores)
    standings.weigh(measurements.footprints(looked_at, objectives.hardware))
    if explorer is None:
        return replace(profile, judgements=standings.judgements())
    expected_s = known_seconds(addresses.pipeline, profile)
    assessment = explorer.assess(profile, lambda c, items: math.inf if c in ended else expected_s(c, items))
    standings.narrow(assessment.pointless)
    return replace(profile, judgements=standings.judgements(), certificate=assessment.certificate)
