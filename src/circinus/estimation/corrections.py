"""Correction factors of predicted service times, learnt from traffic and shrunk towards 1 by their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from circinus.profiling import DECLARED, Machine
from circinus.specification import HardwareClass, KnobValues, Pipeline, Pool
from circinus.statistics.interval import Interval

if TYPE_CHECKING:
    from circinus.profiling import OperatorProfile, PipelineProfile, ServiceTimeObservation

OPERATOR_SCALE = 0.2
"""Prior standard deviation of the logarithmic error of estimates among operators."""
KNOBS_SCALE = 0.1
"""Prior standard deviation of the logarithmic error among the knob values of an operator."""
RUN_SCALE = 0.05
"""Standard deviation among runs of traffic, regardless of their size, because the speed of a machine varies."""
HALF_LIFE_DAYS = 14.0
"""Half-life of the weight of an observation."""
MIN_FACTOR, MAX_FACTOR = 0.5, 4.0
"""Limits of factors and their bounds; asymmetric, as underestimates violate SLOs and overestimates only cost more."""

_BOUNDS = 1.959964
"""Number of standard deviations on each side of a 95 % interval."""
_SECONDS_PER_DAY = 86400.0


@dataclass(frozen=True)
class Correction:
    """Correction factor of an operator on a hardware class."""

    hardware_class: str
    speed: float
    """Guaranteed speed of the operator on the class, as used for the prediction; others need another correction."""
    uses: str
    """Reference of the operator's code."""
    version: str
    """Version of the code."""
    profiled_on: Machine | None
    """Machine whose measurements are corrected."""
    knobs: KnobValues | None
    """Knob values of the operator, or None for all knob values without an observation."""
    factor: Interval
    """Factor of the predicted service time, with 95 % bounds under the assumptions of the model."""
    runs: int
    """Number of runs of traffic behind the factor."""
    requests: int

    @property
    def where(self) -> tuple[str, float]:
        """Key of the factor in `OperatorProfile.corrections`."""
        return self.hardware_class, self.speed


@dataclass(frozen=True)
class Corrections:
    """Active correction factors."""

    entries: tuple[Correction, ...] = ()

    def of(self, uses: str, version: str, profiled_on: Machine | None) -> tuple[Correction, ...]:
        """Return the corrections of a version of an operator that was profiled on a machine."""
        key = uses, version, profiled_on
        return tuple(entry for entry in self.entries if (entry.uses, entry.version, entry.profiled_on) == key)

    def for_pipelines(
        self, pipelines: Mapping[str, Pipeline], profiles: Mapping[str, PipelineProfile], pools: Iterable[Pool]
    ) -> Corrections:
        """Return the corrections that change an estimate of the profiled pipelines in the pools."""
        hardware = tuple(dict.fromkeys(pool.hardware for pool in pools))
        relevant = {
            entry: None
            for name, profile in profiles.items()
            for operator in pipelines[name].operators
            for entry in self.of(operator.uses, profile.code_versions.get(operator.uses, ""), profile.machine)
            if entry.where in _hardware_keys(profile, operator.name, hardware)
        }
        return Corrections(tuple(relevant))

    def applied_to(self, profile: PipelineProfile, pipeline: Pipeline, *, keep_others: bool = False) -> PipelineProfile:
        """Return the profile with these factors on its operators' service times; measurements are unchanged.

        Earlier factors for other operators and hardware classes are dropped unless `keep_others`.
        """
        by_operator = {
            operator.name: self.of(operator.uses, profile.code_versions.get(operator.uses, ""), profile.machine)
            for operator in pipeline.operators
        }
        if not any(by_operator.values()):
            return profile

        def corrected(operator: OperatorProfile) -> OperatorProfile:
            factors = _factors(by_operator[operator.operator], operator.prefix[operator.operator])
            earlier = operator.corrections if keep_others else {}
            return replace(operator, corrections={**earlier, **factors})

        return profile.with_operators(corrected)


NO_CORRECTIONS = Corrections()


def _hardware_keys(
    profile: PipelineProfile, operator: str, hardware: Sequence[HardwareClass]
) -> set[tuple[str, float]]:
    """Return the (class, guaranteed speed) pairs used in estimates of an operator with any knob values."""
    measured = {id(s): s for s in (c.operators[operator].speeds for c in profile.configurations)}
    return {(h.name, speeds.guaranteed(h)) for speeds in (DECLARED, *measured.values()) for h in hardware}


def _factors(entries: Sequence[Correction], knobs: KnobValues) -> dict[tuple[str, float], float]:
    """Return the factors of knob values; those without an observation get the factor of the operator."""
    defaults = {entry.where: entry.factor.value for entry in entries if entry.knobs is None}
    return defaults | {entry.where: entry.factor.value for entry in entries if entry.knobs == knobs}


def learn_corrections(
    observations: Iterable[ServiceTimeObservation], now: datetime, *, mode: str = "real"
) -> Corrections:
    """Return correction factors learnt from traffic; operators without an observation have none.

    The model, in logarithms: the estimate of an operator on a hardware class has a normal error with standard deviation
    `OPERATOR_SCALE`, each of its knob values a further one with `KNOBS_SCALE`, and a run of traffic measures their sum
    with its own standard error and `RUN_SCALE`. The posterior is exact (Gelman et al., Bayesian Data Analysis, 3rd ed.,
    section 5.4, with known variances). The weight (inverse variance) of an observation halves every `HALF_LIFE_DAYS`,
    so that old observations are forgotten.

    Args:
        observations: observations of any operators and modes.
        now: current time, with a time zone.
        mode: mode of the observations to learn from. Those of `replay` measure the replay of recorded times, not the
            hardware.
    """
    groups: dict[tuple[str, float, str, str, Machine | None], dict[KnobValues, list[ServiceTimeObservation]]] = {}
    for observation in observations:
        if observation.mode == mode:
            key = (
                observation.hardware_class,
                observation.speed,
                observation.uses,
                observation.version,
                observation.profiled_on,
            )
            groups.setdefault(key, {}).setdefault(observation.knobs, []).append(observation)
    entries = []
    for key, by_knobs in groups.items():
        combined = {knobs: _combined(group, now) for knobs, group in by_knobs.items()}
        for knobs in (*sorted(by_knobs), None):
            siblings = [estimate for its_knobs, estimate in combined.items() if its_knobs != knobs]
            own = [] if knobs is None else [combined[knobs]]
            relevant = [o for its_knobs, group in by_knobs.items() if knobs in (None, its_knobs) for o in group]
            entries.append(
                Correction(
                    *key,
                    knobs=knobs,
                    factor=_factor(own, siblings),
                    runs=len({o.at for o in relevant}),
                    requests=sum(o.requests for o in relevant),
                )
            )
    return Corrections(tuple(entries))


@dataclass(frozen=True)
class _Normal:
    mean: float
    precision: float
    """Inverse variance."""


def _product(parts: Sequence[_Normal]) -> _Normal:
    """Return the combination of independent estimates of a number; its precision is 0 if theirs are."""
    precision = sum(part.precision for part in parts)
    mean = sum(part.mean * part.precision for part in parts) / precision if precision > 0 else 0.0
    return _Normal(mean, precision)


def _blurred(part: _Normal, scale: float) -> _Normal:
    """Return the estimate with an additional independent error of standard deviation `scale`."""
    return _Normal(part.mean, 1.0 / (1.0 / part.precision + scale**2) if part.precision > 0 else 0.0)


def _combined(observations: Sequence[ServiceTimeObservation], now: datetime) -> _Normal:
    return _product(
        [_Normal(o.log_ratio, _weight(o.at, now) / (o.standard_error**2 + RUN_SCALE**2)) for o in observations]
    )


def _weight(at: str, now: datetime) -> float:
    days = (now - datetime.fromisoformat(at)).total_seconds() / _SECONDS_PER_DAY
    return float(2.0 ** (-max(days, 0.0) / HALF_LIFE_DAYS))


def _factor(own: Sequence[_Normal], siblings: Sequence[_Normal]) -> Interval:
    """Return the factor of knob values from their `own` estimates and those of the operator's other knob values."""
    prior = _Normal(0.0, OPERATOR_SCALE**-2)
    operator = _product([prior, *(_blurred(sibling, KNOBS_SCALE) for sibling in siblings)])
    posterior = _product([_blurred(operator, KNOBS_SCALE), *own])
    half_width = _BOUNDS / math.sqrt(posterior.precision)
    value, lower, upper = (_limited(posterior.mean + part) for part in (0.0, -half_width, half_width))
    return Interval(value, lower, upper)


def _limited(log_factor: float) -> float:
    return math.exp(min(max(log_factor, math.log(MIN_FACTOR)), math.log(MAX_FACTOR)))
