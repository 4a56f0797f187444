"""Spaces of knobs to try things on."""

from __future__ import annotations

from collections.abc import Sequence

from circinus.planning.exploration.knob_space import KnobSpace
from circinus.spec import DatasetSpec, Knob, MetricSpec, OperatorSpec, Pipeline


def pipeline_of(*specs: OperatorSpec) -> Pipeline:
    return Pipeline(name="p", operators=specs, metric=MetricSpec(name="m", uses="m:f"), dataset=DatasetSpec(uses="m:f"))


def one_operator(*knobs: Knob) -> KnobSpace:
    return KnobSpace.of(pipeline_of(OperatorSpec(name="o", uses="m:f", knobs=knobs)))


def chain(*operators: Sequence[int]) -> KnobSpace:
    """Operators one after the other; for each the numbers of choices of its knobs, negative where without order."""
    specs = []
    for number, counts in enumerate(operators):
        knobs = [Knob(name=f"k{i}", choices=list(range(abs(n))), ordered=n > 0) for i, n in enumerate(counts)]
        after = [f"o{number - 1}"] if number else []
        specs.append(OperatorSpec(name=f"o{number}", uses="m:f", after=after, knobs=knobs))
    return KnobSpace.of(pipeline_of(*specs))


CASCADE = one_operator(
    Knob(name="beam", choices=[1, 3, 5], ordered=True, only_if={"model": ["large", "huge"]}),
    Knob(name="model", choices=["none", "small", "large", "huge"]),
    Knob(name="patience", choices=[1, 2], ordered=True, only_if={"beam": [3, 5], "model": ["huge"]}),
    Knob(name="rate", choices=[8, 16, 24, 32], ordered=True),
)
"""Knobs that exist only under others, one of which does so itself."""
