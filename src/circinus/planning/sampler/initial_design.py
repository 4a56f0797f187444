"""Where to begin: few configurations in which every operator configuration occurs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from circinus.arrays import IntArray
from circinus.planning.sampler.configuration_space import INACTIVE, ConfigurationSpace
from circinus.specification import Configuration, KnobValues

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def covering_design(listed: Sequence[Configuration]) -> tuple[Configuration, ...]:
    """Configurations among those listed in which each operator has each of its knob values at least once.

    As many as the operator with most knob values has, where all combinations are listed. Each operator's values are
    gone through in strides of about the golden section, those of the first one by one: so that high values of one do
    not always meet high values of another. What is not covered by these, as where some combinations are not listed,
    is covered by the first listed that has it.
    """
    if not listed:
        return ()
    values: dict[str, list[KnobValues]] = {name: [] for name in listed[0]}
    for configuration in listed:
        for name, own in configuration.operators:
            if own not in values[name]:
                values[name].append(own)
    present = set(listed)
    chosen: dict[Configuration, None] = {}
    for turn in range(max(len(own) for own in values.values())):
        found = Configuration.of(
            {
                name: own[turn * coprime_stride(len(own), number) % len(own)]
                for number, (name, own) in enumerate(values.items())
            }
        )
        if found in present:
            chosen[found] = None
    covered = {(name, own) for configuration in chosen for name, own in configuration.operators}
    for configuration in listed:
        if not covered.issuperset(configuration.operators):
            chosen[configuration] = None
            covered.update(configuration.operators)
    return tuple(chosen)


def coprime_stride(count: int, number: int) -> int:
    """A number without a common divisor with `count`, so that steps of it reach all."""
    if number == 0:
        return 1
    return min((s for s in range(1, count + 1) if math.gcd(s, count) == 1), key=lambda s: abs(s - _GOLDEN * count))


def covering_array(space: ConfigurationSpace) -> IntArray:
    """(m, d) codes in which each knob has each of its choices at least once.

    About as many as the knob with most choices has. The first has the last choice of every knob: where choices go from
    least to most, nothing is likely to score higher. From there each knob's choices are gone through backwards, in
    strides of about the golden section, those of the first knob one by one: so that high values of one do not always
    meet high values of another. Choices of knobs that exist only under others are made up for afterwards.
    """
    choices = [len(knob.choices) for knob in space.columns]
    turns = np.arange(max(choices, default=1))
    codes = np.zeros((len(turns), len(choices)), dtype=np.int64)
    for column, count in enumerate(choices):
        codes[:, column] = (count - 1 - turns * coprime_stride(count, column)) % count
    found = space.resolved(codes)
    for column, count in enumerate(choices):
        for choice in range(count):
            if not (found[:, column] == choice).any():
                found = np.concatenate([found, _with(space, found, column, choice)])
    _, first = np.unique(found, axis=0, return_index=True)
    return found[np.sort(first)]


def _with(space: ConfigurationSpace, codes: IntArray, column: int, choice: int) -> IntArray:
    """(1, d) one of `codes`, with a choice that needs others to exist."""
    code = codes[choice % len(codes)].copy()
    wanted = {column: choice}
    waiting = [column]
    while waiting:
        for on, positions in space.columns[waiting.pop()].conditions:
            if on not in wanted:
                wanted[on] = positions[0]
                waiting.append(on)
    for of, position in wanted.items():
        code[of] = position
    own = [c for c, knob in enumerate(space.columns) if knob.operator == space.columns[column].operator]
    for other in own:
        if code[other] == INACTIVE and other not in wanted:
            code[other] = 0  # kept only where it exists under the new choices
    return space.resolved(code[None, :])
