"""From what the store holds to the profile of a pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from circinus.profiling.addresses import LOCAL, Addresses
from circinus.profiling.bounded import Bounded
from circinus.profiling.confidence import means_bounds
from circinus.profiling.listing import prefix_order
from circinus.profiling.objectives import Objectives
from circinus.profiling.profile import (
    ConfigurationProfile,
    FailedConfiguration,
    FloatArray,
    IntArray,
    OperatorProfile,
    PipelineProfile,
)
from circinus.profiling.store import ProfileStore
from circinus.profiling.stored import (
    StoredDataset,
    read_allocations,
    read_effort,
    read_failures,
    read_replicas,
    read_scores,
    read_services,
)
from circinus.spec import Configuration, OperatorSpec, prefix


def read_profile(
    store: ProfileStore,
    addresses: Addresses,
    dataset: StoredDataset,
    objectives: Objectives,
    *,
    interrupted: bool = False,
) -> PipelineProfile:
    """Put together what is known of a pipeline on a data set."""
    pipeline = addresses.pipeline
    listed = prefix_order(pipeline)
    failures = _failures(store, addresses, listed)
    failed = {failure.configuration for failure in failures}
    reader = _Reader(store, addresses, dataset, listed)
    measured = [(c, n) for c in listed if c not in failed and (n := reader.beginning(c))]
    bounds = _accuracies(reader, measured, objectives.risk)
    profiles = tuple(reader.profile(configuration, n, bounds[configuration]) for configuration, n in measured)
    standings = {p.configuration: _standing(len(p.items), p.accuracy, objectives, reader.most_items) for p in profiles}
    seen = {configuration for configuration, _ in measured}
    ran_s, saved_s = read_effort(
        store,
        store.known_numbers(
            [addresses.effort(c) for c in listed]
            + [addresses.replica(o.name, c[o.name]) for c in listed for o in pipeline.operators]
        ).values(),
    )
    return PipelineProfile(
        pipeline=pipeline.name,
        dataset_fingerprint=dataset.fingerprint,
        dataset_items=len(dataset.numbers),
        held_out_items=len(dataset.numbers) - reader.most_items,
        hardware_class=LOCAL,
        machine=addresses.machine,
        risk=objectives.risk,
        configurations=profiles,
        unmeasured=tuple(c for c in listed if c not in seen and c not in failed),
        unsettled=tuple(configuration for configuration, (settled, _) in standings.items() if not settled),
        reasons={configuration: reason for configuration, (_, reason) in standings.items()},
        profiled_s=ran_s,
        saved_s=saved_s,
        code_versions={} if addresses.origin else addresses.versions(),
        failed=failures,
        interrupted=interrupted,
    )


def _standing(items: int, accuracy: Bounded, objectives: Objectives, most_items: int) -> tuple[bool, str]:
    """Whether a configuration needs no more items, and why."""
    if items == most_items:
        return True, "measured on every item that may be profiled"
    return objectives.settled(accuracy, items)


class _Reader:
    """Everything the store knows of some configurations, read at once, as arrays in the order of measuring."""

    def __init__(
        self,
        store: ProfileStore,
        addresses: Addresses,
        dataset: StoredDataset,
        listed: Sequence[Configuration],
    ) -> None:
        self._addresses = addresses
        self._pipeline = addresses.pipeline
        self._dataset = dataset
        self.most_items = len(dataset.order) - self._pipeline.dataset.held_out_items(len(dataset.order))
        """Items that may be profiled; what was recorded of the others is not looked at."""
        ordered = dataset.numbers[dataset.order[: self.most_items]]
        operators = [operator.name for operator in self._pipeline.operators]
        services = store.known_numbers([addresses.service(name, c) for c in listed for name in operators])
        self._service_row = {address: row for row, address in enumerate(services)}
        self._service_s, self._output_bytes = read_services(store, list(services.values()), ordered)
        scores = store.known_numbers([addresses.score(c) for c in listed])
        self._score_row = {address: row for row, address in enumerate(scores)}
        self._scores = read_scores(store, list(scores.values()), ordered)
        self._replica = store.known_numbers([addresses.replica(name, c[name]) for c in listed for name in operators])
        self._replicas = read_replicas(store, list(self._replica.values()))
        self._allocations = read_allocations(store, list(self._replica.values()))
        self._operators: dict[tuple[str, int, int], OperatorProfile] = {}

    def beginning(self, configuration: Configuration) -> int:
        """Length of the longest gap-free beginning of the order on which everything is known."""
        services = [self._addresses.service(o.name, configuration) for o in self._pipeline.operators]
        rows = [self._service_row[address] for address in services if address in self._service_row]
        score = self._score_row.get(self._addresses.score(configuration))
        if score is None or len(rows) < len(services):
            return 0
        missing = np.isnan(self._service_s[rows]).any(axis=0) | np.isnan(self._scores[score])
        return int(np.argmax(missing)) if missing.any() else len(missing)

    def scores(self, configuration: Configuration, items: int) -> FloatArray:
        """(items,) scores of the first items."""
        return self._scores[self._score_row[self._addresses.score(configuration)], :items]

    def accuracy(self, scores: FloatArray, risk: float) -> tuple[Bounded, ...]:
        """Bounds of the mean for each row of (configurations, items)."""
        low, high = self._pipeline.metric.range
        return means_bounds(scores, len(self._dataset.numbers), risk=risk, low=low, high=high)

    def profile(self, configuration: Configuration, items: int, accuracy: Bounded) -> ConfigurationProfile:
        """The profile of a configuration on the first items."""
        indexes: IntArray = self._dataset.order[:items]
        return ConfigurationProfile(
            configuration=configuration,
            items=indexes,
            scores=self.scores(configuration, items),
            accuracy=accuracy,
            input_bytes=self._dataset.input_bytes[indexes],
            operators={o.name: self._operator(o, configuration, items) for o in self._pipeline.operators},
        )

    def _operator(self, spec: OperatorSpec, configuration: Configuration, items: int) -> OperatorProfile:
        """Configurations that share a prefix, on equally many items, share the very object."""
        row = self._service_row[self._addresses.service(spec.name, configuration)]
        key = spec.name, row, items
        if key not in self._operators:
            self._operators[key] = self._read_operator(spec, configuration, row, items)
        return self._operators[key]

    def _read_operator(self, spec: OperatorSpec, configuration: Configuration, row: int, items: int) -> OperatorProfile:
        number = self._replica[self._addresses.replica(spec.name, configuration[spec.name])]
        replica, measured = self._replicas[number], self._allocations.get(number, {})
        ratios = batch_ratios(allowed_allocations(spec), measured)
        return OperatorProfile(
            operator=spec.name,
            prefix=prefix(self._pipeline, configuration, spec.name),
            service_s=self._service_s[row, :items],
            output_bytes=self._output_bytes[row, :items],
            peak_memory_bytes=replica.peak_memory_bytes,
            load_s=replica.load_s,
            batch_ratio=ratios,
            measured_allocations=measured_allocations(ratios, measured),
        )


def allowed_allocations(spec: OperatorSpec) -> tuple[tuple[float, int], ...]:
    """Every (CPUs, batch size) that an operator may be given."""
    return tuple((cpus, size) for cpus in spec.cpus for size in spec.batch_sizes)


def batch_ratios(
    allowed: Sequence[tuple[float, int]], measured: Mapping[tuple[float, int], float]
) -> Mapping[tuple[float, int], float]:
    """Ratio for every allowed (CPUs, batch size); what was not measured is taken to gain nothing."""
    fewest = min(cpus for cpus, _ in allowed)
    return {
        (cpus, size): 1.0 if (cpus, size) == (fewest, 1) else measured.get((cpus, size), float(size))
        for cpus, size in allowed
    }


def measured_allocations(
    allowed: Iterable[tuple[float, int]], measured: Mapping[tuple[float, int], float]
) -> frozenset[tuple[float, int]]:
    """Those of the allowed combinations that stand on a measurement; a single item on the fewest CPUs always does."""
    allowed = tuple(allowed)
    fewest = min(cpus for cpus, _ in allowed)
    return frozenset(pair for pair in allowed if pair in measured or pair == (fewest, 1))


def _failures(
    store: ProfileStore, addresses: Addresses, listed: Sequence[Configuration]
) -> tuple[FailedConfiguration, ...]:
    known = store.known_numbers([addresses.score(c) for c in listed])
    subjects = {c: known[a] for c in listed if (a := addresses.score(c)) in known}
    found = read_failures(store, list(subjects.values()))
    return tuple(FailedConfiguration(c, *found[number]) for c, number in subjects.items() if number in found)


def _accuracies(
    reader: _Reader, measured: Sequence[tuple[Configuration, int]], risk: float
) -> Mapping[Configuration, Bounded]:
    """Bounds of all configurations; those with equally many items are computed together."""
    found: dict[Configuration, Bounded] = {}
    for items in {n for _, n in measured}:
        group = [configuration for configuration, n in measured if n == items]
        scores = np.stack([reader.scores(configuration, items) for configuration in group])
        found.update(zip(group, reader.accuracy(scores, risk), strict=True))
    return found
