"""Configurations that fit on some node, by the GPU memory that the specification states for knob values.

Measuring any other is a waste, as no plan can have it. In the spaces of LLM deployments of `python -m benchmarks
evaluation` a few per cent fit: with the others in the design, searches ended after one measurement, without a plan.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import product

import numpy as np

from circinus.arrays import BoolArray, IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.specification import OperatorSpec, Pipeline, Pool

_MAX_LISTED = 20_000
"""Maximum number of codes to list before those that do not fit are removed."""


def placeable_codes(
    space: ConfigurationSpace, pipeline: Pipeline, pools: Collection[Pool], limit: int
) -> IntArray | None:
    """Return (k, d) all codes whose replicas have enough GPU memory on a node of some pool, in ascending order.

    Cases of GPU memory list the codes where the operator fits nowhere without a case, however large the space is.

    Returns:
        None if no code fits, or there are more than `limit`.
    """
    operators = pipeline.topological_order()
    if not any(operator.gpu_memory_cases for operator in operators):
        return space.enumerate(limit) if space.size <= limit else None
    boxes = [
        {column: choices for own in combination for column, choices in own.items()}
        for combination in product(*(_boxes(space, operator, pools) for operator in operators))
    ]
    sizes = [[box.get(c, range(len(knob.choices))) for c, knob in enumerate(space.columns)] for box in boxes]
    if not 0 < sum(float(np.prod([len(choices) for choices in box])) for box in sizes) <= _MAX_LISTED:
        return None
    listed = space.resolved(np.array([code for box in sizes for code in product(*box)], dtype=np.int64))
    codes = np.unique(listed, axis=0)
    codes = codes[_fits(space, operators, pools, codes)]
    return codes if 0 < len(codes) <= limit else None


def _boxes(space: ConfigurationSpace, operator: OperatorSpec, pools: Collection[Pool]) -> list[dict[int, list[int]]]:
    """Return the choices by column of each case that fits; no restriction if the operator fits without one."""
    if _fits_somewhere(operator, operator.gpu_memory_bytes, pools):
        return [{}]
    column_of = {knob.name: c for c, knob in enumerate(space.columns) if knob.operator_name == operator.name}
    return [
        {
            column_of[knob]: [space.columns[column_of[knob]].choices.index(choice) for choice in choices]
            for knob, choices in case.only_if.items()
        }
        for case in operator.gpu_memory_cases
        if _fits_somewhere(operator, case.size_bytes, pools)
    ]


def _fits(
    space: ConfigurationSpace, operators: Sequence[OperatorSpec], pools: Collection[Pool], codes: IntArray
) -> BoolArray:
    """Return (k,) whether each operator fits; an earlier case may not, although a later one does."""
    return np.array(
        [
            all(
                _fits_somewhere(o, o.replica_gpu_memory_bytes(configuration[o.name].as_dict()), pools)
                for o in operators
            )
            for configuration in space.decode(codes)
        ],
        dtype=bool,
    )


def _fits_somewhere(operator: OperatorSpec, size_bytes: float, pools: Collection[Pool]) -> bool:
    tiers = operator.allowed_tiers
    return any(size_bytes <= pool.gpu_memory_bytes for pool in pools if tiers is None or pool.tier in tiers)
