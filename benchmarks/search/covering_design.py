"""Covering design of listed configurations, which the arena's search starts with."""

from __future__ import annotations

from collections.abc import Sequence

from circinus.planning.sampler.initial_design import coprime_stride
from circinus.specification import Configuration, KnobValues


def covering_design(configurations: Sequence[Configuration]) -> tuple[Configuration, ...]:
    """Return listed configurations in which each operator has each of its knob values at least once.

    If all combinations are listed, there are as many as the operator with most knob values has. The values of the first
    operator are taken in order, those of the others in strides near the golden section, so that high values of one do
    not always meet high values of another. Remaining values, as in incomplete lists, are covered by the first
    configuration that has them.
    """
    if not configurations:
        return ()
    values: dict[str, list[KnobValues]] = {name: [] for name in configurations[0]}
    for configuration in configurations:
        for name, own in configuration.operators:
            if own not in values[name]:
                values[name].append(own)
    present = set(configurations)
    selected: dict[Configuration, None] = {}
    for index in range(max(len(own) for own in values.values())):
        combination = Configuration.of(
            {
                name: own[index * coprime_stride(len(own), number) % len(own)]
                for number, (name, own) in enumerate(values.items())
            }
        )
        if combination in present:
            selected[combination] = None
    covered = {(name, own) for configuration in selected for name, own in configuration.operators}
    for configuration in configurations:
        if not covered.issuperset(configuration.operators):
            selected[configuration] = None
            covered.update(configuration.operators)
    return tuple(selected)
