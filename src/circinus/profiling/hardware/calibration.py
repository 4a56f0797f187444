"""Speed of the current machine relative to the one that a profile was measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circinus.arrays import FloatArray
from circinus.errors import ProfileError
from circinus.operators.run_clock import RunTimes
from circinus.profiling.hardware.machine import Machine
from circinus.profiling.measurement.backend import LocalBackend, MeasurementBackend
from circinus.profiling.profile import PipelineProfile, disturbance, waited_shares
from circinus.profiling.settings import PROFILING
from circinus.specification import Configuration, Specification
from circinus.statistics.counts import median_bounds
from circinus.statistics.interval import Interval


@dataclass(frozen=True)
class Calibration:
    """Relative speed of a machine (`HardwareClass.relative_speed`) with its evidence."""

    pipeline: str
    configuration: Configuration
    """Configuration that was measured again."""
    items: int
    machine: Machine | None
    """Machine whose speed is measured."""
    recorded_on: Machine | None
    """Machine whose speed is 1."""
    speed: Interval
    """Speed for the whole configuration; the bounds cover all noteworthy operators."""
    operators: Mapping[str, Interval]
    """Speed for each noteworthy operator."""
    risk: float
    """Probability that any operator's speed lies outside its bounds."""
    disturbed: tuple[str, ...] = ()
    """Noteworthy operators that waited for a CPU in a large share of their runs; their speeds are less exact."""


def calibrate(
    specification: Specification,
    profile: PipelineProfile,
    *,
    backend: MeasurementBackend | None = None,
    seed: int = 0,
    items: int = PROFILING.calibration_items,
    risk: float = 0.05,
) -> Calibration:
    """Measure the cheapest configuration of a profile again on this machine, and compare item by item.

    An operator's speed is the median over items of the recorded time divided by the current time; its bounds are order
    statistics of these ratios (distribution-free bounds of a median, Thompson, Annals of Mathematical Statistics 7,
    1936), the risk divided among the operators. They assume that items are exchangeable and that the machine is in its
    usual state throughout. Operators of other configurations may scale otherwise; therefore the bounds cover all
    operators of this configuration. Nothing is written to a store.

    Args:
        specification: specification of the pipeline.
        profile: profile measured on the reference machine.
        backend: measurement backend of this machine; default: the operators themselves.
        seed: random seed of the profile's measurement order.
        items: number of items to measure; fewer if the profile has fewer.
        risk: see `Calibration.risk`.

    Raises:
        ProfileError: the profile has no configuration, or was measured on another data set.
        OperatorError: an operator cannot be found or fails.
    """
    pipeline = specification.pipelines[profile.pipeline]
    backend = backend or LocalBackend(specification.module_paths)
    if not profile.configurations:
        raise ProfileError(
            "the profile has no measured configuration to compare with",
            code="profile.empty",
            location=f"pipeline {pipeline.name}",
            hint="Run `circinus profile` on the reference machine.",
        )
    # A configuration with few items would have wide bounds, however cheap it was.
    count = min(items, max(len(measured.items) for measured in profile.configurations))
    recorded = min((c for c in profile.configurations if len(c.items) >= count), key=lambda c: c.mean_service_s)
    dataset = backend.dataset(pipeline, seed)
    if dataset.fingerprint != profile.dataset_fingerprint:
        raise ProfileError(
            f"found version {dataset.fingerprint[:12]} of the data set, expected "
            f"{profile.dataset_fingerprint[:12]} as in the profile",
            code="dataset.other_version",
            location=f"data set {pipeline.dataset.uses} of pipeline {pipeline.name}",
            hint="Use the data that the profile was measured on.",
        )
    selected = [dataset.items[index] for index in recorded.items[:count]]
    with backend.runner(backend.addresses(pipeline, backend.machine), timeout_s=PROFILING.operator_timeout_s) as runner:
        measurement = runner.measure(recorded.configuration, selected)
    value, operators = _speeds(
        {name: operator.service_s[:count] for name, operator in recorded.operators.items()},
        {name: np.array(runs.service_s) for name, runs in measurement.runs.items()},
        risk,
    )
    return Calibration(
        pipeline=pipeline.name,
        configuration=recorded.configuration,
        items=count,
        machine=backend.machine,
        recorded_on=profile.machine,
        speed=Interval(
            value,
            min(value, *(operator.lower for operator in operators.values())),
            max(value, *(operator.upper for operator in operators.values())),
        ),
        operators=operators,
        risk=risk,
        disturbed=tuple(name for name in operators if _is_disturbed(measurement.runs[name].times)),
    )


def _is_disturbed(times: Sequence[RunTimes]) -> bool:
    seconds = np.array([(t.elapsed_s, t.wait_s, t.worker_wait_s) for t in times]).reshape(-1, 3).T
    return disturbance(*waited_shares(seconds)) > 1


def _speeds(
    recorded_s: Mapping[str, FloatArray], current_s: Mapping[str, FloatArray], risk: float
) -> tuple[float, dict[str, Interval]]:
    """Return the overall speed, and the bounded speed of each noteworthy operator, from (n,) seconds by name."""
    total_recorded_s, total_current_s = (
        np.sum(list(recorded_s.values()), axis=0),
        np.sum(list(current_s.values()), axis=0),
    )
    noteworthy = [
        name for name in recorded_s if current_s[name].sum() >= PROFILING.noteworthy_share * total_current_s.sum()
    ]
    bounds = {name: median_bounds(recorded_s[name] / current_s[name], risk / len(noteworthy)) for name in noteworthy}
    return float(np.median(total_recorded_s / total_current_s)), bounds
