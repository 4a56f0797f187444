"""Order of a pipeline's configurations in which equal prefixes are adjacent."""

from __future__ import annotations

from collections.abc import Iterable

from circinus.errors import ProfileError
from circinus.profiling.settings import PROFILING
from circinus.specification import Configuration, Pipeline, configuration_count, configurations


def max_measured_configurations(pipeline: Pipeline) -> int:
    """Return the maximum number of configurations that a run measures, among which its risk is divided."""
    count = configuration_count(pipeline)
    return count if count <= PROFILING.max_enumerated else PROFILING.max_measured


def prefix_order(pipeline: Pipeline) -> tuple[Configuration, ...]:
    """Return all configurations, the knobs of the first operators varying slowest.

    Raises:
        ProfileError: the pipeline has too many configurations to enumerate.
    """
    count = configuration_count(pipeline)
    if count > PROFILING.max_enumerated:
        raise ProfileError(
            f"found {count:,} configurations, expected at most {PROFILING.max_enumerated:,} if all are to be measured",
            code="pipeline.too_many_configurations",
            location=f"pipeline {pipeline.name}",
            hint="Declare queries and an infrastructure, so that only configurations that may serve them are measured, "
            "or remove knobs or choices of little effect.",
        )
    return in_prefix_order(pipeline, configurations(pipeline))


def in_prefix_order(pipeline: Pipeline, selected: Iterable[Configuration]) -> tuple[Configuration, ...]:
    """Return the selected configurations in the order of `prefix_order`, without enumerating the others."""
    knobs = [
        (operator.name, knob.name, {choice: index for index, choice in enumerate(knob.choices)})
        for operator in pipeline.topological_order()
        for knob in operator.knobs
    ]

    def position(configuration: Configuration) -> list[int]:
        values = {name: own.as_dict() for name, own in configuration.operators}
        return [index.get(values[operator].get(knob), 0) for operator, knob, index in knobs]  # type: ignore[arg-type]

    return tuple(sorted(selected, key=position))
