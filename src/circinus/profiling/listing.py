"""Listing the configurations of a pipeline, those with equal prefixes next to each other."""

from __future__ import annotations

import math

from circinus.errors import ProfileError
from circinus.spec import Configuration, KnobValues, Pipeline, configurations, knob_values

LONGEST_LIST = 20_000


def prefix_order(pipeline: Pipeline) -> tuple[Configuration, ...]:
    """All configurations; the knobs of the first operators vary slowest.

    Raises:
        ProfileError: there are too many to list.
    """
    topological = [operator.name for operator in pipeline.topological_order()]
    ranks = {
        operator.name: {values: rank for rank, values in enumerate(knob_values(operator))}
        for operator in pipeline.operators
    }
    count = math.prod(len(its_ranks) for its_ranks in ranks.values())
    if count > LONGEST_LIST:
        raise ProfileError(
            f"pipeline {pipeline.name}: found {count:,} configurations, expected at most {LONGEST_LIST:,}; leave out "
            "choices or knobs that matter little"
        )

    def place(configuration: Configuration) -> list[int]:
        values: dict[str, KnobValues] = dict(configuration.operators)
        return [ranks[name][values[name]] for name in topological]

    return tuple(sorted(configurations(pipeline), key=place))
