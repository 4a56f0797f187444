"""Initial design: few configurations that cover every choice."""

from __future__ import annotations

import math

import numpy as np

from circinus.arrays import IntArray
from circinus.planning.sampler.configuration_space import INACTIVE, ConfigurationSpace

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def coprime_stride(count: int, number: int) -> int:
    """Return a number coprime to `count`, so that its multiples reach all residues."""
    if number == 0:
        return 1
    return min((s for s in range(1, count + 1) if math.gcd(s, count) == 1), key=lambda s: abs(s - _GOLDEN * count))


def covering_array(space: ConfigurationSpace) -> IntArray:
    """Return (m, d) codes in which each knob has each of its choices at least once.

    There are about as many as the knob with most choices has. The first code has the last choice of every knob: if
    choices are in ascending order, nothing is likely to score higher. From there the choices of each knob descend,
    those of the first knob in order, those of the others in strides near the golden section, so that high values of one
    do not always meet high values of another. Choices of conditional knobs are added at the end.
    """
    choices = [len(knob.choices) for knob in space.columns]
    turns = np.arange(max(choices, default=1))
    codes = np.zeros((len(turns), len(choices)), dtype=np.int64)
    for column, count in enumerate(choices):
        codes[:, column] = (count - 1 - turns * coprime_stride(count, column)) % count
    resolved = space.resolved(codes)
    for column, count in enumerate(choices):
        for choice in range(count):
            if not (resolved[:, column] == choice).any():
                resolved = np.concatenate([resolved, _with(space, resolved, column, choice)])
    _, first = np.unique(resolved, axis=0, return_index=True)
    return resolved[np.sort(first)]


def covering_codes(codes: IntArray) -> IntArray:
    """Return (m, d) few of (k, d) codes, k > 0, that have each choice that occurs in any of them.

    The last one comes first, then always one with most further choices, of equal ones in a random order: high values of
    one knob do not always meet high values of another.
    """
    order = np.random.default_rng(0).permutation(len(codes))
    selected, uncovered = [len(codes) - 1], np.ones(codes.shape, dtype=bool)
    while True:
        uncovered &= codes != codes[selected[-1]]
        gains = uncovered.sum(axis=1)
        if not gains.any():
            return codes[selected]
        selected.append(int(order[gains[order].argmax()]))


def _with(space: ConfigurationSpace, codes: IntArray, column: int, choice: int) -> IntArray:
    """Return (1, d) one of `codes` changed so that a conditional choice is active."""
    code = codes[choice % len(codes)].copy()
    required = {column: choice}
    pending = [column]
    while pending:
        for on, positions in space.columns[pending.pop()].conditions:
            if on not in required:
                required[on] = positions[0]
                pending.append(on)
    for required_column, position in required.items():
        code[required_column] = position
    operator_columns = [c for c, knob in enumerate(space.columns) if knob.operator == space.columns[column].operator]
    for own_column in operator_columns:
        if code[own_column] == INACTIVE and own_column not in required:
            code[own_column] = 0  # `resolved` removes it again if it is inactive
    return space.resolved(code[None, :])
