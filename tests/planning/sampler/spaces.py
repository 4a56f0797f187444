"""Knob spaces for tests."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from hypothesis import assume
from hypothesis import strategies as st

from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.specification import DatasetSpec, Knob, MetricSpec, OperatorSpec, Pipeline
from specification.strategies import knobs


def pipeline_of(*specs: OperatorSpec) -> Pipeline:
    return Pipeline(name="p", operators=specs, metric=MetricSpec(name="m", uses="m:f"), dataset=DatasetSpec(uses="m:f"))


def one_operator(*knobs: Knob) -> ConfigurationSpace:
    return ConfigurationSpace.of(pipeline_of(OperatorSpec(name="o", uses="m:f", knobs=knobs)))


def chain_of(*operators: Sequence[Knob]) -> Pipeline:
    """Return operators `o0`, `o1`, ... in a chain, with these knobs."""
    return pipeline_of(
        *(
            OperatorSpec(name=f"o{n}", uses="m:f", after=[f"o{n - 1}"] if n else [], knobs=knobs)
            for n, knobs in enumerate(operators)
        )
    )


def knob(name: str, count: int, *, ordered: bool = False) -> Knob:
    """Return a knob with the choices 0, 1, ..."""
    return Knob(name=name, choices=list(range(count)), ordered=ordered)


def chain(*operators: Sequence[int]) -> ConfigurationSpace:
    """Return a chain of operators with the given numbers of choices of their knobs, negative for unordered knobs."""
    specs = []
    for number, counts in enumerate(operators):
        knobs = [Knob(name=f"k{i}", choices=list(range(abs(n))), ordered=n > 0) for i, n in enumerate(counts)]
        after = [f"o{number - 1}"] if number else []
        specs.append(OperatorSpec(name=f"o{number}", uses="m:f", after=after, knobs=knobs))
    return ConfigurationSpace.of(pipeline_of(*specs))


CASCADE = one_operator(
    Knob(name="beam", choices=[1, 3, 5], ordered=True, only_if={"model": ["large", "huge"]}),
    Knob(name="model", choices=["none", "small", "large", "huge"]),
    Knob(name="patience", choices=[1, 2], ordered=True, only_if={"beam": [3, 5], "model": ["huge"]}),
    Knob(name="rate", choices=[8, 16, 24, 32], ordered=True),
)
"""Conditional knobs, one of which depends on another conditional knob."""


@st.composite
def small_pipelines(draw: st.DrawFn) -> Pipeline:
    """Pipelines of up to three operators in any order, with few enough configurations to list."""
    made: list[OperatorSpec] = []
    for name in ("b", "a", "c")[: draw(st.integers(1, 3))]:
        after = [made[-1].name] if made and draw(st.booleans()) else []
        made.append(OperatorSpec(name=name, uses="m:f", after=after, knobs=draw(knobs())))
    pipeline = pipeline_of(*draw(st.permutations(made)))
    assume(prod(len(knob.choices) for operator in made for knob in operator.knobs) <= 300)
    return pipeline
