"""What a profile says of the service times of single items: what traffic is held against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from circinus.profiling.hardware.machine import DECLARED, Machine, Speeds
from circinus.profiling.store.profile_loader import read_profile
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import read_services
from circinus.specification import Configuration, Specification


@dataclass(frozen=True, eq=False)
class PredictedServiceTime:
    """One operator under one prefix; seconds are those of one item alone with the fewest CPUs, at speed 1."""

    item_s: Mapping[str, float]
    """Item key -> seconds, of all items that the store knows, held-out ones too."""
    mean_s: float
    """Over the items of the profile."""
    batch_ratio: Mapping[tuple[float, int], float]
    """As in `OperatorProfile`."""
    measured_allocations: frozenset[tuple[float, int]]
    """As in `OperatorProfile`."""
    speeds: Speeds = DECLARED
    """As in `OperatorProfile`."""

    def single_item_s(self, item_key: str) -> float:
        """Seconds for an item; for one that nobody measured, the mean."""
        return self.item_s.get(item_key, self.mean_s)


@dataclass(frozen=True, eq=False)
class PredictedServiceTimes:
    """All operators of some configurations of one pipeline."""

    machine: Machine | None
    """The one that measured."""
    code_versions: Mapping[str, str]
    """As in `PipelineProfile`."""
    services: Mapping[tuple[str, Configuration], PredictedServiceTime]
    """(operator, configuration); those that are not in the profile are left out."""


def load_predicted_service_times(
    specification: Specification,
    pipeline_name: str,
    store: Path,
    configurations: Iterable[Configuration],
    *,
    seed: int = 0,
) -> PredictedServiceTimes:
    """Read what is known of the operators of some configurations of a pipeline.

    Args:
        specification: has the pipeline.
        pipeline_name: which one.
        store: file.
        configurations: of the pipeline.
        seed: of the order in which items were measured.

    Raises:
        ProfileError: there is no store, or nothing in it is of the pipeline as it is now.
        OperatorError: an operator, metric or data set cannot be found.
    """
    with ProfileStore(store) as opened:
        found = read_profile(opened, specification, pipeline_name, seed)
        known = {measured.configuration: measured for measured in found.profile.configurations}
        services = {}
        for configuration in dict.fromkeys(configurations):
            measured = known.get(configuration)
            for name, operator in {} if measured is None else measured.operators.items():
                address = found.addresses.service(name, configuration)
                numbers = opened.existing_ids([address])
                service_s = read_services(opened, list(numbers.values()), found.dataset.numbers)[0][0]
                services[name, configuration] = PredictedServiceTime(
                    item_s={found.dataset.keys[i]: float(service_s[i]) for i in np.flatnonzero(np.isfinite(service_s))},
                    mean_s=float(operator.service_s.mean()),
                    batch_ratio=operator.batch_ratio,
                    measured_allocations=operator.measured_allocations,
                    speeds=operator.speeds,
                )
    return PredictedServiceTimes(found.profile.machine, found.profile.code_versions, services)
