"""Pipeline whose service times and scores are functions of its knobs.

Nothing is enumerated, so a pipeline may have 10^12 configurations. All numbers are functions of the configuration, the
item and a seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.workloads.synthetic.items import SyntheticItems
from circinus.arrays import FloatArray
from circinus.specification import Configuration, KnobValues, OperatorSpec, Pipeline

LEAST_SCORE = 0.02
"""Minimum mean score."""
_NOISE = 0.5
"""Maximum deviation of an item's score by its configuration, relative to its distance from 0 and 1; 0.5 keeps scores
within [0, 1]. The difference of two configurations has a standard deviation of about 0.08."""


@dataclass(frozen=True)
class Effect:
    """Effect of a knob's choice on its operator and on the score."""

    time: float = 1.0
    """Factor of service times."""
    loss: float = 0.0
    """Reduction of the mean score."""
    size: float = 1.0
    """Factor of the output's size, and of the service times of downstream operators."""
    memory: float = 1.0
    """Factor of memory."""


NOTHING = Effect()


def batch_ratio(time: FloatArray, more_cpus: float, batch_size: int) -> FloatArray:
    """Return seconds of a full batch over those of one item with the fewest CPUs.

    Half of an item's time is common to a batch if the operator is fast, less if knobs make it slow; slow operators also
    gain more from more CPUs.

    Args:
        time: factors of service times by the operator's own knobs.
        more_cpus: CPUs over the fewest.
        batch_size: items.
    """
    slowness = 1.0 - 1.0 / (1.0 + time)
    common, parallel = 0.5 * (1.0 - slowness), 0.5 + 0.4 * slowness
    return np.asarray((common + (1.0 - common) * batch_size) * (1.0 - parallel + parallel / more_cpus))


@dataclass(frozen=True)
class OperatorModel:
    """Model of one operator, with all factors 1."""

    service_s: float
    """Mean unbatched seconds per item, with the fewest CPUs."""
    output_bytes: float
    """Mean size."""
    memory_bytes: float
    load_s: float
    fixed: float
    """Share of the service time that knobs do not change."""
    effects: Mapping[str, tuple[Effect, ...]]
    """Knob name -> effects of its choices."""

    def effect(self, spec: OperatorSpec, values: KnobValues) -> Effect:
        """Return the combined effect of knob values; knobs that do not exist under the others have none."""
        chosen = values.as_dict()
        effects = [self.effects[k.name][k.choices.index(chosen[k.name])] for k in spec.knobs if k.name in chosen]
        return Effect(
            time=self.fixed + (1.0 - self.fixed) * float(np.prod([effect.time for effect in effects])),
            loss=sum(effect.loss for effect in effects),
            size=float(np.prod([effect.size for effect in effects])),
            memory=float(np.prod([effect.memory for effect in effects])),
        )


@dataclass(frozen=True)
class Joint:
    """Joint loss of several knobs' choices, in addition to their individual losses."""

    knobs: tuple[tuple[str, str], ...]
    """(operator, knob), each of which always exists."""
    kinds: tuple[tuple[int, ...], ...]
    """Kind of each choice of each knob, from 0; choices of one kind have equal joint losses."""
    losses: Mapping[tuple[int, ...], float]
    """Kinds -> reduction of the mean score."""

    def kind(self, pipeline: Pipeline, number: int, values: KnobValues) -> int:
        """Return the kind of a knob's choice, by the values of its operator."""
        operator, name = self.knobs[number]
        knob = next(knob for knob in pipeline.operator(operator).knobs if knob.name == name)
        return self.kinds[number][knob.choices.index(values.as_dict()[name])]

    def loss(self, pipeline: Pipeline, configuration: Configuration) -> float:
        """Return the loss of a configuration."""
        knobs = enumerate(self.knobs)
        return self.losses[tuple(self.kind(pipeline, n, configuration[operator]) for n, (operator, _) in knobs)]


@dataclass(frozen=True, eq=False)
class SyntheticModel:
    """Ground truth of a pipeline."""

    pipeline: Pipeline
    operators: Mapping[str, OperatorModel]
    joints: tuple[Joint, ...]
    best: float
    """Mean score without any loss."""
    input_bytes: float
    """Mean size."""
    items: SyntheticItems
    seed: int

    def effect(self, operator: str, values: KnobValues) -> Effect:
        """Return the effect of an operator's own knobs."""
        return self.operators[operator].effect(self.pipeline.operator(operator), values)

    def scale(self, operator: str, configuration: Configuration) -> float:
        """Return the size of an operator's output over that with all factors 1."""
        return self.input_scale(operator, configuration) * self.effect(operator, configuration[operator]).size

    def input_scale(self, operator: str, configuration: Configuration) -> float:
        """Return the mean size of an operator's inputs over that with all factors 1."""
        after = self.pipeline.operator(operator).parents
        return float(np.mean([self.scale(parent, configuration) for parent in after])) if after else 1.0

    def service_s(self, operator: str, configuration: Configuration) -> FloatArray:
        """Return (N,) unbatched seconds with the fewest CPUs, proportional to the item's work and the input's size."""
        factor = self.effect(operator, configuration[operator]).time * self.input_scale(operator, configuration)
        return np.asarray(self.operators[operator].service_s * factor * self.items.work)

    def output_bytes(self, operator: str, configuration: Configuration) -> FloatArray:
        """Return (N,) integral sizes."""
        return self.items.sizes(self.operators[operator].output_bytes * self.scale(operator, configuration))

    def memory_bytes(self, operator: str, values: KnobValues) -> int:
        """Return the memory of one replica."""
        return int(self.operators[operator].memory_bytes * self.effect(operator, values).memory)

    def batch_ratio(self, operator: str, values: KnobValues, cpus: float, batch_size: int) -> float:
        """Return seconds of a full batch over those of one item with the fewest CPUs."""
        more_cpus = cpus / min(self.pipeline.operator(operator).cpus)
        return float(batch_ratio(np.array(self.effect(operator, values).time), more_cpus, batch_size))

    def mean_score(self, configuration: Configuration) -> float:
        """Return the exact mean score over all items."""
        lost = sum(self.effect(name, configuration[name]).loss for name in configuration)
        lost += sum(joint.loss(self.pipeline, configuration) for joint in self.joints)
        return max(self.best - lost, LEAST_SCORE)

    def scores(self, configuration: Configuration) -> FloatArray:
        """Return (N,) scores of all items within [0, 1]; their mean is `mean_score`.

        Hard items are hard for all configurations. Each configuration adds individual deviations with mean 0.
        """
        levelled = self.items.with_mean(self.mean_score(configuration))
        headroom = np.minimum(levelled, 1.0 - levelled)
        digest = hashlib.sha256(f"{self.seed} {self._live(configuration)}".encode()).digest()
        deviations = np.random.default_rng(int.from_bytes(digest[:8], "big")).uniform(-1.0, 1.0, len(headroom))
        deviations -= float((headroom * deviations).sum() / max(float(headroom.sum()), 1e-300))
        return np.asarray(np.clip(levelled + _NOISE * headroom * deviations, 0.0, 1.0))

    @cached_property
    def dead_knobs(self) -> frozenset[tuple[str, str]]:
        """(operator, knob) without any effect, even on scores of single items."""
        joint = {knob for interaction in self.joints for knob in interaction.knobs}
        return frozenset(
            (name, knob)
            for name, operator in self.operators.items()
            for knob, effects in operator.effects.items()
            if set(effects) == {NOTHING} and (name, knob) not in joint
        )

    def _live(self, configuration: Configuration) -> str:
        return str({
            name: [pair for pair in configuration[name].values if (name, pair[0]) not in self.dead_knobs]
            for name in configuration
        })  # fmt: skip
