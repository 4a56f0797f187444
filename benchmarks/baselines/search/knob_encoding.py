"""Encoding of configurations as points, for surrogate models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from circinus.arrays import FloatArray
from circinus.specification import Configuration, Pipeline


def knob_positions(pipeline: Pipeline, configurations: Sequence[Configuration]) -> FloatArray:
    """Return (k, d) points: one column in [0, 1] per ordered knob, one per choice of any other knob.

    Two choices of an unordered knob are as far apart as the ends of an ordered one. A knob that does not exist under
    the others is at 0.5.
    """
    columns: list[FloatArray] = []
    for operator in pipeline.topological_order():
        values = [configuration[operator.name].as_dict() for configuration in configurations]
        for knob in operator.knobs:
            indices = [knob.choices.index(v[knob.name]) if knob.name in v else -1 for v in values]
            index = np.array(indices, dtype=np.float64)
            if knob.ordered:
                columns.append(np.where(index >= 0, index / max(len(knob.choices) - 1, 1), 0.5))
            else:
                columns += [np.where(index == choice, np.sqrt(0.5), 0.0) for choice in range(len(knob.choices))]
    return np.column_stack(columns) if columns else np.zeros((len(configurations), 1))
