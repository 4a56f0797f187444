"""Service times of single items predicted from a profile, as the reference for drift detection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from circinus.profiling.hardware.machine import Machine
from circinus.profiling.profile import OperatorProfile
from circinus.profiling.store.profile_loader import read_profile
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import read_services
from circinus.specification import Configuration, Specification


@dataclass(frozen=True, eq=False)
class PredictedServiceTime:
    """Predicted service time of one operator under one prefix: unbatched, on the fewest CPUs, at speed 1."""

    item_s: Mapping[str, float]
    """Item key -> seconds, for all stored items, including held-out ones."""
    profile: OperatorProfile

    def single_item_s(self, item_key: str) -> float:
        """Return the predicted seconds for an item; the mean over the items of the profile if it is unmeasured."""
        measured_s = self.item_s.get(item_key)
        return float(self.profile.service_s.mean()) if measured_s is None else measured_s


@dataclass(frozen=True, eq=False)
class PredictedServiceTimes:
    """Predicted service times of all operators of some configurations of one pipeline."""

    machine: Machine | None
    """Machine of the measurements, or None if it was not recorded."""
    code_versions: Mapping[str, str]
    """See `PipelineProfile.code_versions`."""
    services: Mapping[tuple[str, Configuration], PredictedServiceTime]
    """Prediction by (operator, configuration); configurations without a profile are missing."""


def load_predicted_service_times(
    specification: Specification,
    pipeline_name: str,
    store: Path,
    configurations: Iterable[Configuration],
    *,
    seed: int = 0,
) -> PredictedServiceTimes:
    """Read the predicted service times of some configurations of a pipeline.

    Raises:
        ProfileError: the store is missing, or has no measurement of the current version of the pipeline.
        OperatorError: an operator, metric or data set cannot be found.
    """
    with ProfileStore(store) as opened:
        loaded = read_profile(opened, specification, pipeline_name, seed)
        profiles = {measured.configuration: measured for measured in loaded.profile.configurations}
        keys = loaded.dataset.keys
        services = {}
        for configuration in dict.fromkeys(configurations):
            measured = profiles.get(configuration)
            for name, operator in {} if measured is None else measured.operators.items():
                service = loaded.addresses.service(name, configuration)
                service_s = read_services(opened, [service], loaded.dataset.item_ids)[service].service_s
                item_s = {keys[i]: float(service_s[i]) for i in np.flatnonzero(np.isfinite(service_s))}
                services[name, configuration] = PredictedServiceTime(item_s, operator)
    return PredictedServiceTimes(loaded.profile.machine, loaded.profile.code_versions, services)
