"""Configurations as points, for surrogates."""

from __future__ import annotations

import numpy as np

from benchmarks.search.arena import PlanSpace
from circinus.arrays import FloatArray


def knob_positions(space: PlanSpace) -> FloatArray:
    """(k, d) one column for an ordered knob, its choices evenly over [0, 1]; one for each choice of any other knob.

    Two choices of an unordered knob are as far from each other as the ends of an ordered one. A knob that does not
    exist under the others stands in the middle.
    """
    columns: list[FloatArray] = []
    for operator in space.pipeline.topological_order():
        values = [configuration[operator.name].as_dict() for configuration in space.configurations]
        for knob in operator.knobs:
            found = [knob.choices.index(v[knob.name]) if knob.name in v else -1 for v in values]
            at = np.array(found, dtype=np.float64)
            if knob.ordered:
                columns.append(np.where(at >= 0, at / max(len(knob.choices) - 1, 1), 0.5))
            else:
                columns += [np.where(at == choice, np.sqrt(0.5), 0.0) for choice in range(len(knob.choices))]
    return np.column_stack(columns) if columns else np.zeros((len(space.configurations), 1))
