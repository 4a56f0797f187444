"""Listing the configurations of a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from math import prod

from circinus.specification.base_model import Scalar
from circinus.specification.pipeline import OperatorSpec, Pipeline
from circinus.specification.plan import Configuration, KnobValues


def knob_values(operator: OperatorSpec) -> tuple[KnobValues, ...]:
    """All distinct knob values of `operator`, conditional knobs left out where they do not exist."""
    found: dict[KnobValues, None] = {}
    for choice in product(*(knob.choices for knob in operator.knobs)):
        values: dict[str, Scalar] = {knob.name: value for knob, value in zip(operator.knobs, choice, strict=True)}
        changed = True
        while changed:  # a knob that is gone may take others with it
            gone = [
                knob.name
                for knob in operator.knobs
                if knob.name in values
                and any(values.get(other) not in allowed for other, allowed in knob.only_if.items())
            ]
            changed = bool(gone)
            for name in gone:
                del values[name]
        found[KnobValues.of(values)] = None
    return tuple(found)


def knob_values_count(operator: OperatorSpec) -> int:
    """How many `knob_values` lists, without listing them."""
    waiting, done = list(operator.knobs), set[str]()
    ways: dict[frozenset[str], int] = {frozenset(): 1}  # knobs that cannot exist any more -> ways to come there
    while waiting:
        knob = next(knob for knob in waiting if done.issuperset(knob.only_if))
        waiting.remove(knob)
        done.add(knob.name)
        after: dict[frozenset[str], int] = {}
        for gone, count in ways.items():
            for choice in (None,) if knob.name in gone else knob.choices:
                excluded = {k.name for k in waiting if knob.name in k.only_if and choice not in k.only_if[knob.name]}
                left = gone.union(excluded) - {knob.name}
                after[left] = after.get(left, 0) + count
        ways = after
    return sum(ways.values())


def configuration_count(pipeline: Pipeline) -> int:
    """How many configurations there are, without listing them."""
    return prod(knob_values_count(operator) for operator in pipeline.operators)


def has_knob_values(operator: OperatorSpec, values: KnobValues) -> bool:
    """Whether `knob_values` would list these, without listing any."""
    own, knobs = values.as_dict(), {knob.name: knob for knob in operator.knobs}
    if any(name not in knobs or value not in knobs[name].choices for name, value in own.items()):
        return False
    return all(
        (name in own) == all(own.get(other) in allowed for other, allowed in knob.only_if.items())
        for name, knob in knobs.items()
    )


def configurations(pipeline: Pipeline) -> Iterator[Configuration]:
    """All configurations of `pipeline`, in the order of its knobs' choices."""
    names = [operator.name for operator in pipeline.operators]
    for choice in product(*(knob_values(operator) for operator in pipeline.operators)):
        yield Configuration.of(dict(zip(names, choice, strict=True)))


def prefix_configuration(pipeline: Pipeline, configuration: Configuration, operator: str) -> Configuration:
    """The part of `configuration` that the output of `operator` depends on: itself and all its ancestors."""
    lineage = _lineages(tuple((spec.name, spec.after) for spec in pipeline.operators))[operator]
    return Configuration(tuple(pair for pair in configuration.operators if pair[0] in lineage))


@lru_cache(maxsize=64)
def _lineages(after: tuple[tuple[str, tuple[str, ...]], ...]) -> dict[str, frozenset[str]]:
    """For each operator of a DAG, given by name and parents, itself and all its ancestors: asked for many times."""
    parents = dict(after)

    def lineage(name: str) -> frozenset[str]:
        return frozenset({name}).union(*(lineage(parent) for parent in parents[name]))

    return {name: lineage(name) for name in parents}
