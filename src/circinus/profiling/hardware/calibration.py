"""How fast this machine is, compared with the one that a profile was measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb

import numpy as np

from circinus.arrays import FloatArray
from circinus.errors import ProfileError
from circinus.profiling.hardware.machine import Machine
from circinus.profiling.interval import Interval
from circinus.profiling.measurement.backend import LocalBackend, MeasurementBackend
from circinus.profiling.profile import ConfigurationProfile, PipelineProfile
from circinus.specification import Configuration, Specification

CALIBRATION_ITEMS = 24
_NOTEWORTHY_SHARE = 0.05
"""Of a configuration's time; operators below it say more of the clock than of the machine."""
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Calibration:
    """A relative speed (`HardwareClass.relative_speed`) and what it stands on."""

    pipeline: str
    configuration: Configuration
    """The one that was measured again."""
    items: int
    machine: Machine | None
    """Whose speed is measured."""
    recorded_on: Machine | None
    """Whose speed is 1."""
    speed: Interval
    """Of the whole configuration; the bounds hold every noteworthy operator's."""
    operators: Mapping[str, Interval]
    """Of each noteworthy operator."""
    risk: float
    """Probability with which an operator's speed may lie outside its bounds, all together."""


def calibrate(
    specification: Specification,
    profile: PipelineProfile,
    *,
    here: MeasurementBackend | None = None,
    seed: int = 0,
    items: int = CALIBRATION_ITEMS,
    risk: float = 0.05,
) -> Calibration:
    """Measure the cheapest configuration of a profile again on this machine, and compare item by item.

    An operator's speed is the median over items of recorded seconds over seconds here; its bounds are order statistics
    of these ratios (distribution-free bounds of a median, Thompson, Annals of Mathematical Statistics 7, 1936), the
    risk divided among the operators. They assume that items are exchangeable and that the machine is in its usual state
    throughout; operators of other configurations may scale otherwise, which is why the bounds hold all operators of
    this one. Nothing is written to a store.

    Args:
        specification: has the pipeline.
        profile: measured elsewhere.
        here: what measures on this machine; None: the operators themselves.
        seed: of the order in which the profile was measured.
        items: to measure; fewer where the profile has fewer.
        risk: see `Calibration.risk`.

    Raises:
        ProfileError: the profile has no configuration, or the data set is not the one that it was measured on.
        OperatorError: an operator cannot be found, or fails.
    """
    pipeline = specification.pipelines[profile.pipeline]
    here = here or LocalBackend(specification.module_paths)
    if not profile.configurations:
        raise ProfileError(f"pipeline {pipeline.name}: found no measured configuration to compare with; measure one")
    # One of a single item would say little, however cheap it was.
    most = min(items, max(len(measured.items) for measured in profile.configurations))
    recorded = min((c for c in profile.configurations if len(c.items) >= most), key=_seconds)
    dataset = here.dataset(pipeline, seed)
    if dataset.fingerprint != profile.dataset_fingerprint:
        raise ProfileError(
            f"data set {pipeline.dataset.uses} of pipeline {pipeline.name}: found version {dataset.fingerprint[:12]}, "
            f"expected {profile.dataset_fingerprint[:12]}, which was measured elsewhere; use the same data"
        )
    chosen = [dataset.items[index] for index in recorded.items[:most]]
    with here.runner(here.addresses(pipeline, here.machine), timeout_s=_TIMEOUT_S) as runner:
        found = runner.measure(recorded.configuration, chosen)
    value, operators = _speeds(
        {name: operator.service_s[:most] for name, operator in recorded.operators.items()},
        {name: np.array(runs.service_s) for name, runs in found.runs.items()},
        risk,
    )
    return Calibration(
        pipeline=pipeline.name,
        configuration=recorded.configuration,
        items=most,
        machine=here.machine,
        recorded_on=profile.machine,
        speed=Interval(
            value,
            min(value, *(operator.lower for operator in operators.values())),
            max(value, *(operator.upper for operator in operators.values())),
        ),
        operators=operators,
        risk=risk,
    )


def _speeds(
    then_s: Mapping[str, FloatArray], now_s: Mapping[str, FloatArray], risk: float
) -> tuple[float, dict[str, Interval]]:
    """The speed of all operators together, and that of each noteworthy one with bounds; from (n,) seconds by name."""
    whole_then_s, whole_now_s = np.sum(list(then_s.values()), axis=0), np.sum(list(now_s.values()), axis=0)
    noteworthy = [name for name in then_s if now_s[name].sum() >= _NOTEWORTHY_SHARE * whole_now_s.sum()]
    bounds = {name: median_bounds(then_s[name] / now_s[name], risk / len(noteworthy)) for name in noteworthy}
    return float(np.median(whole_then_s / whole_now_s)), bounds


def median_bounds(values: FloatArray, risk: float) -> Interval:
    """Median of the distribution that n values are drawn from, between two order statistics.

    The k-th least of n values is above the median with probability P(B < k), B binomial(n, 1/2). Where even the
    extremes do not reach the risk, they are the bounds, and the risk is 2^(1-n).

    Args:
        values: (n,), n >= 1, independent.
        risk: with which the median may lie outside, both sides together.
    """
    n = len(values)
    below, k = 0.0, 0  # P(B <= k) for the next k
    while k < n // 2 and (below := below + comb(n, k) / 2**n) <= risk / 2:
        k += 1
    least = np.sort(values)
    first = max(k - 1, 0)
    return Interval(float(np.median(values)), float(least[first]), float(least[n - 1 - first]))


def _seconds(measured: ConfigurationProfile) -> float:
    return sum(float(operator.service_s.mean()) for operator in measured.operators.values())
