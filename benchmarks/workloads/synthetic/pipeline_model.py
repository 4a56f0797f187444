"""A pipeline that is made of functions: what its operators take and how its answers score follows from knobs.

Nothing is listed, so a pipeline may have 10^12 configurations. Every number is a function of the configuration, the
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
"""However much is lost, a mean score is not less."""
_NOISE = 0.5
"""Of the room that an item's score has above and below, the share by which a configuration moves it at most; half at
most keeps all scores within [0, 1]. So the difference of two configurations has a standard deviation of about 0.08."""


@dataclass(frozen=True)
class Effect:
    """What one choice of a knob does to its operator and to the score."""

    time: float = 1.0
    """Factor of service times."""
    loss: float = 0.0
    """Taken from the mean score."""
    size: float = 1.0
    """Factor of the output's size, and so of the time that the operators behind take."""
    memory: float = 1.0
    """Factor of memory."""


NOTHING = Effect()


def batch_ratio(time: FloatArray, more_cpus: float, batch_size: int) -> FloatArray:
    """Seconds of a full batch over those of one item with the fewest CPUs.

    Half of an item's time is common to a batch where the operator is fast, less where knobs make it slow; more CPUs
    gain the more, the slower it is.

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
    """One operator, with all factors 1."""

    service_s: float
    """Mean seconds for an item, alone, with the fewest CPUs."""
    output_bytes: float
    """Mean."""
    memory_bytes: float
    load_s: float
    fixed: float
    """Share of the service time that knobs do not change."""
    effects: Mapping[str, tuple[Effect, ...]]
    """Knob name -> what each of its choices does."""

    def effect(self, spec: OperatorSpec, values: KnobValues) -> Effect:
        """Of its knob values together; knobs that do not exist under the others do nothing."""
        chosen = values.as_dict()
        found = [self.effects[k.name][k.choices.index(chosen[k.name])] for k in spec.knobs if k.name in chosen]
        return Effect(
            time=self.fixed + (1.0 - self.fixed) * float(np.prod([effect.time for effect in found])),
            loss=sum(effect.loss for effect in found),
            size=float(np.prod([effect.size for effect in found])),
            memory=float(np.prod([effect.memory for effect in found])),
        )


@dataclass(frozen=True)
class Joint:
    """What is lost by choices of several knobs together, beside what each of them loses alone."""

    knobs: tuple[tuple[str, str], ...]
    """(operator, knob), each of which always exists."""
    kinds: tuple[tuple[int, ...], ...]
    """For each of the knobs the kind of each of its choices, from 0; choices of one kind are alike in this."""
    losses: Mapping[tuple[int, ...], float]
    """Kinds -> taken from the mean score."""

    def kind(self, pipeline: Pipeline, number: int, values: KnobValues) -> int:
        """Of the choice of the knob with that number, by the values of its operator."""
        operator, name = self.knobs[number]
        knob = next(knob for knob in pipeline.operator(operator).knobs if knob.name == name)
        return self.kinds[number][knob.choices.index(values.as_dict()[name])]

    def loss(self, pipeline: Pipeline, configuration: Configuration) -> float:
        """Of a configuration."""
        knobs = enumerate(self.knobs)
        return self.losses[tuple(self.kind(pipeline, n, configuration[operator]) for n, (operator, _) in knobs)]


@dataclass(frozen=True, eq=False)
class SyntheticModel:
    """Everything true about a pipeline."""

    pipeline: Pipeline
    operators: Mapping[str, OperatorModel]
    joints: tuple[Joint, ...]
    best: float
    """Mean score where nothing is lost."""
    input_bytes: float
    """Mean."""
    items: SyntheticItems
    seed: int

    def effect(self, operator: str, values: KnobValues) -> Effect:
        """Of an operator's own knobs."""
        return self.operators[operator].effect(self.pipeline.operator(operator), values)

    def scale(self, operator: str, configuration: Configuration) -> float:
        """Size of an operator's output over that with all factors 1."""
        return self.input_scale(operator, configuration) * self.effect(operator, configuration[operator]).size

    def input_scale(self, operator: str, configuration: Configuration) -> float:
        """Size of an operator's input over that with all factors 1: the mean over what comes in."""
        after = self.pipeline.operator(operator).after
        return float(np.mean([self.scale(parent, configuration) for parent in after])) if after else 1.0

    def service_s(self, operator: str, configuration: Configuration) -> FloatArray:
        """(N,) seconds alone, with the fewest CPUs: proportional to the item's work and to the input's size."""
        factor = self.effect(operator, configuration[operator]).time * self.input_scale(operator, configuration)
        return np.asarray(self.operators[operator].service_s * factor * self.items.work)

    def output_bytes(self, operator: str, configuration: Configuration) -> FloatArray:
        """(N,) whole numbers."""
        return self.items.sizes(self.operators[operator].output_bytes * self.scale(operator, configuration))

    def memory_bytes(self, operator: str, values: KnobValues) -> int:
        """Of one replica."""
        return int(self.operators[operator].memory_bytes * self.effect(operator, values).memory)

    def batch_ratio(self, operator: str, values: KnobValues, cpus: float, batch_size: int) -> float:
        """Seconds of a full batch over those of one item with the fewest CPUs."""
        more = cpus / min(self.pipeline.operator(operator).cpus)
        return float(batch_ratio(np.array(self.effect(operator, values).time), more, batch_size))

    def mean_score(self, configuration: Configuration) -> float:
        """Over all items; exact."""
        lost = sum(self.effect(name, configuration[name]).loss for name in configuration)
        lost += sum(joint.loss(self.pipeline, configuration) for joint in self.joints)
        return max(self.best - lost, LEAST_SCORE)

    def scores(self, configuration: Configuration) -> FloatArray:
        """(N,) of all items, within [0, 1]; their mean is `mean_score`.

        What is hard is hard for all. A configuration moves every item by what is its own, of which the mean is 0.
        """
        levelled = self.items.with_mean(self.mean_score(configuration))
        room = np.minimum(levelled, 1.0 - levelled)
        digest = hashlib.sha256(f"{self.seed} {self._live(configuration)}".encode()).digest()
        moves = np.random.default_rng(int.from_bytes(digest[:8], "big")).uniform(-1.0, 1.0, len(room))
        moves -= float((room * moves).sum() / max(float(room.sum()), 1e-300))
        return np.asarray(np.clip(levelled + _NOISE * room * moves, 0.0, 1.0))

    @cached_property
    def dead_knobs(self) -> frozenset[tuple[str, str]]:
        """(operator, knob) that change nothing, scores of single items included."""
        joint = {knob for each in self.joints for knob in each.knobs}
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
