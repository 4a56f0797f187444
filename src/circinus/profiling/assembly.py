"""From what the store holds to the profile of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from circinus.profiling.addresses import LOCAL, Addresses
from circinus.profiling.bounded import Bounded
from circinus.profiling.confidence import Confidence
from circinus.profiling.explorer import Certificate, Explorer
from circinus.profiling.listing import prefix_order
from circinus.profiling.measurements import Measurements
from circinus.profiling.objectives import Objectives
from circinus.profiling.profile import FailedConfiguration, PipelineProfile
from circinus.profiling.standings import Standings
from circinus.profiling.store import ProfileStore
from circinus.profiling.stored import StoredDataset, read_effort, read_failures
from circinus.profiling.verdicts import Judgement, Verdict
from circinus.spec import Configuration


def read_profile(
    store: ProfileStore,
    addresses: Addresses,
    dataset: StoredDataset,
    objectives: Objectives,
    *,
    judged: bool = False,
    interrupted: bool = False,
    explorer: Explorer | None = None,
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
    """
    pipeline = addresses.pipeline
    listed = prefix_order(pipeline)
    failures = _failures(store, addresses, listed)
    failed = {failure.configuration for failure in failures}
    measurements = Measurements(store, addresses, dataset, listed)
    measured = [(c, n) for c in listed if c not in failed and (n := measurements.beginning(c))]
    bounds = _accuracies(measurements, measured, measurements.confidence(objectives, len(listed)))
    profiles = tuple(measurements.profile(configuration, n, bounds[configuration]) for configuration, n in measured)
    seen = {configuration for configuration, _ in measured}
    ran_s, saved_s = read_effort(
        store,
        store.known_numbers(
            [addresses.effort(c) for c in listed]
            + [addresses.replica(o.name, c[o.name]) for c in listed for o in pipeline.operators]
        ).values(),
    )
    profile = PipelineProfile(
        pipeline=pipeline.name,
        dataset_fingerprint=dataset.fingerprint,
        dataset_items=len(dataset.numbers),
        held_out_items=len(dataset.numbers) - measurements.most_items,
        hardware_class=LOCAL,
        machine=addresses.machine,
        risk=objectives.risk,
        configurations=profiles,
        unmeasured=tuple(c for c in listed if c not in seen and c not in failed),
        profiled_s=ran_s,
        saved_s=saved_s,
        code_versions={} if addresses.origin else addresses.versions(),
        failed=failures,
        interrupted=interrupted,
    )
    if not judged:
        return profile
    return replace(profile, judgements=_judgements(measurements, listed, profile, objectives, explorer))


def _failures(
    store: ProfileStore, addresses: Addresses, listed: Sequence[Configuration]
) -> tuple[FailedConfiguration, ...]:
    known = store.known_numbers([addresses.score(c) for c in listed])
    subjects = {c: known[a] for c in listed if (a := addresses.score(c)) in known}
    found = read_failures(store, list(subjects.values()))
    return tuple(FailedConfiguration(c, *found[number]) for c, number in subjects.items() if number in found)


def _accuracies(
    measurements: Measurements, measured: Sequence[tuple[Configuration, int]], confidence: Confidence
) -> Mapping[Configuration, Bounded]:
    """Bounds of all configurations; those with equally many items are computed together."""
    found: dict[Configuration, Bounded] = {}
    for items in {n for _, n in measured}:
        group = [configuration for configuration, n in measured if n == items]
        scores = np.stack([measurements.scores(configuration, items) for configuration in group])
        found.update(zip(group, confidence.bounds(scores), strict=True))
    return found


def _judgements(
    measurements: Measurements,
    listed: Sequence[Configuration],
    profile: PipelineProfile,
    objectives: Objectives,
    explorer: Explorer | None,
) -> Mapping[Configuration, Judgement]:
    confidence = measurements.confidence(objectives, len(listed))
    standings = Standings(listed, confidence, objectives, comparing=explorer is None)
    failed = {failure.configuration for failure in profile.failed}
    for configuration in listed:
        if configuration in failed:
            standings.fail(configuration)
        elif items := measurements.beginning(configuration):
            standings.learn(configuration, measurements.scores(configuration, items))
    standings.weigh(measurements.footprints(listed, objectives.speeds))
    if explorer is None:
        return standings.judgements()
    explorer.cover(listed)
    assessment = explorer.assess(profile, lambda configuration, items: 1.0)
    standings.narrow(assessment)
    found = standings.judgements()
    if isinstance(assessment.next, Certificate) and assessment.next.conclusive:
        unlikely = Judgement(Verdict.UNLIKELY, str(assessment.next))
        found |= {c: unlikely for c in found if not standings.items(c)}
    return found
