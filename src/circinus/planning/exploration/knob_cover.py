"""Where to begin in spaces of any size: few configurations in which every choice of every knob occurs."""

from __future__ import annotations

import numpy as np

from circinus.planning.exploration.cover import coprime_stride
from circinus.planning.exploration.knob_space import INACTIVE, ConfigurationSpace, IntArray


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
