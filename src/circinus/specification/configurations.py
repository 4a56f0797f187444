"""Enumeration of the configurations of a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from math import prod

from circinus.specification.base_model import Scalar
from circinus.specification.pipeline import OperatorSpec, Pipeline
from circinus.specification.plan import Configuration, KnobValues


def knob_values(operator: OperatorSpec) -> tuple[KnobValues, ...]:
    """Return all distinct knob values of `operator`, without conditional knobs whose condition is not met."""
    distinct: dict[KnobValues, None] = {}
    for choice in product(*(knob.choices for knob in operator.knobs)):
        values: dict[str, Scalar] = {knob.name: value for knob, value in zip(operator.knobs, choice, strict=True)}
        changed = True
        while changed:  # removing a knob may violate the condition of another knob
            inactive = [
                knob.name
                for knob in operator.knobs
                if knob.name in values
                and any(values.get(other) not in allowed for other, allowed in knob.only_if.items())
            ]
            changed = bool(inactive)
            for name in inactive:
                del values[name]
        distinct[KnobValues.of(values)] = None
    return tuple(distinct)


def knob_values_count(operator: OperatorSpec) -> int:
    """Return the number of `knob_values` without enumerating them."""
    pending, done = list(operator.knobs), set[str]()
    counts: dict[frozenset[str], int] = {frozenset(): 1}  # pending knobs that are inactive -> number of assignments
    while pending:
        knob = next(knob for knob in pending if done.issuperset(knob.only_if))
        pending.remove(knob)
        done.add(knob.name)
        next_counts: dict[frozenset[str], int] = {}
        for inactive, count in counts.items():
            for choice in (None,) if knob.name in inactive else knob.choices:
                excluded = {k.name for k in pending if knob.name in k.only_if and choice not in k.only_if[knob.name]}
                key = inactive.union(excluded) - {knob.name}
                next_counts[key] = next_counts.get(key, 0) + count
        counts = next_counts
    return sum(counts.values())


def configuration_count(pipeline: Pipeline) -> int:
    """Return the number of configurations without enumerating them."""
    return prod(knob_values_count(operator) for operator in pipeline.operators)


def has_knob_values(operator: OperatorSpec, values: KnobValues) -> bool:
    """Return whether `values` is one of the operator's `knob_values`, without enumerating them."""
    own, knobs = values.as_dict(), {knob.name: knob for knob in operator.knobs}
    if any(name not in knobs or value not in knobs[name].choices for name, value in own.items()):
        return False
    return all(
        (name in own) == all(own.get(other) in allowed for other, allowed in knob.only_if.items())
        for name, knob in knobs.items()
    )


def configurations(pipeline: Pipeline) -> Iterator[Configuration]:
    """Yield all configurations of `pipeline` in the order of its knobs' choices."""
    names = [operator.name for operator in pipeline.operators]
    for choice in product(*(knob_values(operator) for operator in pipeline.operators)):
        yield Configuration.of(dict(zip(names, choice, strict=True)))


def prefix_configuration(pipeline: Pipeline, configuration: Configuration, operator: str) -> Configuration:
    """Return the part of `configuration` that determines the output of `operator`: its own and its ancestors' knobs."""
    lineage = _lineages(tuple((spec.name, spec.parents) for spec in pipeline.operators))[operator]
    return Configuration(tuple(pair for pair in configuration.operators if pair[0] in lineage))


@lru_cache(maxsize=64)
def _lineages(after: tuple[tuple[str, tuple[str, ...]], ...]) -> dict[str, frozenset[str]]:
    """Return each operator of a DAG (name and parents) with its ancestors. Cached, as planning calls it often."""
    parents = dict(after)

    def lineage(name: str) -> frozenset[str]:
        return frozenset({name}).union(*(lineage(parent) for parent in parents[name]))

    return {name: lineage(name) for name in parents}
