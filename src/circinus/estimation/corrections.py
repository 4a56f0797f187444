"""What observed service times teach: factors on the predicted seconds, shrunk towards 1 by how unsure they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from circinus.profiling import DECLARED, Interval, Machine, OperatorProfile, PipelineProfile, ServiceTimeObservation
from circinus.specification import HardwareClass, KnobValues, Pipeline, Pool

OPERATOR_SPREAD = 0.2
"""Standard deviation, among operators, of the logarithm of what an estimate is off by, before anything is observed."""
KNOBS_SPREAD = 0.1
"""The same among the knob values of one operator."""
RUN_SPREAD = 0.05
"""The same among runs of traffic, however many requests each has: machines have good and bad hours."""
HALF_LIFE_DAYS = 14.0
"""After so long an observation weighs half as much."""
LEAST_FACTOR, GREATEST_FACTOR = 0.5, 4.0
"""Factors and their bounds stay between these: an estimate that is too short breaks promises, one that is too long
only costs more."""

_BOUNDS = 1.959964
"""Standard deviations on each side: 95 %."""
_SECONDS_PER_DAY = 86400.0


@dataclass(frozen=True)
class Correction:
    """The factor for one operator on one hardware class."""

    hardware_class: str
    speed: float
    """The promised speed of the operator on the class that was predicted with: of another one nothing is known."""
    uses: str
    """Reference of the operator's code."""
    version: str
    """Of that code."""
    profiled_on: Machine | None
    """The machine whose measurements are corrected."""
    knobs: KnobValues | None
    """The operator's own; None: for all of which nothing was observed."""
    factor: Interval
    """On the predicted seconds in service; the true one is between the bounds with 95 %, as far as the model holds."""
    runs: int
    """Runs of traffic that it stands on."""
    requests: int

    @property
    def where(self) -> tuple[str, float]:
        """As `OperatorProfile.corrections` has it."""
        return self.hardware_class, self.speed


@dataclass(frozen=True)
class Corrections:
    """All factors that are in force."""

    entries: tuple[Correction, ...] = ()

    def of(self, uses: str, version: str, profiled_on: Machine | None) -> tuple[Correction, ...]:
        """Those of one version of one operator, as measured on one machine."""
        asked = uses, version, profiled_on
        return tuple(entry for entry in self.entries if (entry.uses, entry.version, entry.profiled_on) == asked)

    def for_pipelines(
        self, pipelines: Mapping[str, Pipeline], profiles: Mapping[str, PipelineProfile], pools: Iterable[Pool]
    ) -> Corrections:
        """Only those that change an estimate of the profiles' pipelines in the pools.

        Args:
            pipelines: by name.
            profiles: pipeline name -> profile.
            pools: of the infrastructure.
        """
        hardware = tuple(dict.fromkeys(pool.hardware for pool in pools))
        found = {
            entry: None
            for name, profile in profiles.items()
            for operator in pipelines[name].operators
            for entry in self.of(operator.uses, profile.code_versions.get(operator.uses, ""), profile.machine)
            if entry.where in _places(profile, operator.name, hardware)
        }
        return Corrections(tuple(found))

    def applied_to(self, profile: PipelineProfile, pipeline: Pipeline) -> PipelineProfile:
        """The profile with these factors, and no others, on its operators' service times; what was measured stays."""
        by_operator = {
            operator.name: self.of(operator.uses, profile.code_versions.get(operator.uses, ""), profile.machine)
            for operator in pipeline.operators
        }
        if not any(by_operator.values()):
            return profile
        known: dict[int, OperatorProfile] = {}  # configurations that share a profile go on sharing it

        def corrected(operator: OperatorProfile) -> OperatorProfile:
            if id(operator) not in known:
                factors = _factors(by_operator[operator.operator], operator.prefix[operator.operator])
                known[id(operator)] = replace(operator, corrections=factors)
            return known[id(operator)]

        return replace(
            profile,
            configurations=tuple(
                replace(found, operators={name: corrected(operator) for name, operator in found.operators.items()})
                for found in profile.configurations
            ),
        )


NO_CORRECTIONS = Corrections()


def _places(profile: PipelineProfile, operator: str, hardware: Sequence[HardwareClass]) -> set[tuple[str, float]]:
    """(class, promised speed) that estimates of an operator are made with, whatever its knobs."""
    speeds = {id(s): s for s in (found.operators[operator].speeds for found in profile.configurations)}
    return {(where.name, known.guaranteed(where)) for known in (DECLARED, *speeds.values()) for where in hardware}


def _factors(entries: Sequence[Correction], knobs: KnobValues) -> dict[tuple[str, float], float]:
    """Of some knob values everywhere; where nothing was observed of them, of the operator as a whole."""
    whole = {entry.where: entry.factor.value for entry in entries if entry.knobs is None}
    return whole | {entry.where: entry.factor.value for entry in entries if entry.knobs == knobs}


def learn_corrections(
    observations: Iterable[ServiceTimeObservation], now: datetime, *, mode: str = "real"
) -> Corrections:
    """Factors from what traffic showed; none for operators that were not observed.

    The model, in logarithms: an operator on a hardware class is off by a normal effect with standard deviation
    `OPERATOR_SPREAD`, each of its knob values by a further one with `KNOBS_SPREAD`, and a run of traffic shows their
    sum with its own standard error and `RUN_SPREAD`. Its posterior is exact (Gelman et al., Bayesian Data Analysis, 3rd
    ed., section 5.4, with known variances); the weight (inverse variance) of an observation halves every
    `HALF_LIFE_DAYS`, so that what is not observed any more is forgotten.

    Args:
        observations: of any operators and modes.
        now: with a time zone.
        mode: of the observations that count. Those of `replay` say how well recorded times were replayed, and nothing
            of the hardware.
    """
    groups: dict[tuple[str, float, str, str, Machine | None], dict[KnobValues, list[ServiceTimeObservation]]] = {}
    for one in observations:
        if one.mode == mode:
            key = one.hardware_class, one.speed, one.uses, one.version, one.profiled_on
            groups.setdefault(key, {}).setdefault(one.knobs, []).append(one)
    entries = []
    for key, by_knobs in groups.items():
        seen = {knobs: _combined(found, now) for knobs, found in by_knobs.items()}
        for knobs in (*sorted(by_knobs), None):
            others = [estimate for its_knobs, estimate in seen.items() if its_knobs != knobs]
            own = [] if knobs is None else [seen[knobs]]
            found = [one for its_knobs, of_knobs in by_knobs.items() if knobs in (None, its_knobs) for one in of_knobs]
            entries.append(
                Correction(
                    *key,
                    knobs=knobs,
                    factor=_factor(own, others),
                    runs=len({one.at for one in found}),
                    requests=sum(one.requests for one in found),
                )
            )
    return Corrections(tuple(entries))


@dataclass(frozen=True)
class _Normal:
    mean: float
    precision: float
    """Inverse variance."""


def _product(parts: Sequence[_Normal]) -> _Normal:
    """What independent estimates of one number say together; of precision 0 where they say nothing."""
    precision = sum(part.precision for part in parts)
    mean = sum(part.mean * part.precision for part in parts) / precision if precision > 0 else 0.0
    return _Normal(mean, precision)


def _blurred(part: _Normal, spread: float) -> _Normal:
    """The same with a further, independent standard deviation."""
    return _Normal(part.mean, 1.0 / (1.0 / part.precision + spread**2) if part.precision > 0 else 0.0)


def _combined(observations: Sequence[ServiceTimeObservation], now: datetime) -> _Normal:
    return _product(
        [_Normal(one.log_ratio, _weight(one.at, now) / (one.standard_error**2 + RUN_SPREAD**2)) for one in observations]
    )


def _weight(at: str, now: datetime) -> float:
    days = (now - datetime.fromisoformat(at)).total_seconds() / _SECONDS_PER_DAY
    return float(2.0 ** (-max(days, 0.0) / HALF_LIFE_DAYS))


def _factor(own: Sequence[_Normal], others: Sequence[_Normal]) -> Interval:
    """For knob values of which `own` is known, and `others` of other values of the same operator."""
    prior = _Normal(0.0, OPERATOR_SPREAD**-2)
    operator = _product([prior, *(_blurred(other, KNOBS_SPREAD) for other in others)])
    found = _product([_blurred(operator, KNOBS_SPREAD), *own])
    half_width = _BOUNDS / math.sqrt(found.precision)
    value, lower, upper = (_limited(found.mean + part) for part in (0.0, -half_width, half_width))
    return Interval(value, lower, upper)


def _limited(log_factor: float) -> float:
    return math.exp(min(max(log_factor, math.log(LEAST_FACTOR)), math.log(GREATEST_FACTOR)))
