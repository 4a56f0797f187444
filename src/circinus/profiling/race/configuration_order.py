"""The configurations of a pipeline, those with equal prefixes next to each other."""

from __future__ import annotations

from collections.abc import Iterable

from circinus.errors import ProfileError
from circinus.specification import Configuration, Pipeline, configuration_count, configurations

MAX_ENUMERATED = 20_000
MOST_MEASURED = 1_000
"""Configurations that are measured at most of a pipeline with more than can be listed."""


def max_measured_configurations(pipeline: Pipeline) -> int:
    """How many configurations a run may measure, over which its risk is split."""
    count = configuration_count(pipeline)
    return count if count <= MAX_ENUMERATED else MOST_MEASURED


def prefix_order(pipeline: Pipeline) -> tuple[Configuration, ...]:
    """All configurations; the knobs of the first operators vary slowest.

    Raises:
        ProfileError: there are too many to list.
    """
    count = configuration_count(pipeline)
    if count > MAX_ENUMERATED:
        raise ProfileError(
            f"pipeline {pipeline.name}: found {count:,} configurations, expected at most {MAX_ENUMERATED:,} where all "
            "are to be measured; give it queries and an infrastructure, so that only those that may serve them are, or "
            "leave out choices or knobs that matter little"
        )
    return in_prefix_order(pipeline, configurations(pipeline))


def in_prefix_order(pipeline: Pipeline, chosen: Iterable[Configuration]) -> tuple[Configuration, ...]:
    """Some configurations in the order of `prefix_order`, without listing the others."""
    knobs = [
        (operator.name, knob.name, {choice: place for place, choice in enumerate(knob.choices)})
        for operator in pipeline.topological_order()
        for knob in operator.knobs
    ]

    def place(configuration: Configuration) -> list[int]:
        values = {name: own.as_dict() for name, own in configuration.operators}
        return [places.get(values[operator].get(knob), 0) for operator, knob, places in knobs]  # type: ignore[arg-type]

    return tuple(sorted(chosen, key=place))
